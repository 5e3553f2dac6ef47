"""API keys: who may ask, and who may exchange the bundle."""

import base64
import binascii
import dataclasses
import hashlib
import hmac
import os
import pathlib
from collections.abc import Mapping

from rt2_jax.errors import UserError

KEYS_VARIABLE = "RT2_API_KEYS"
ADMIN_VARIABLE = "RT2_ADMIN_KEY"
_LEAST = 16  # characters of a key


@dataclasses.dataclass(frozen=True)
class Keys:
    """The keys of a server, as digests.

    Attributes:
        clients: name -> SHA-256 of the key; none lets everybody in.
        admin: SHA-256 of the admin's key; None where the bundle cannot be exchanged over the network.
    """

    clients: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    admin: bytes | None = None

    def client(self, header: str | None) -> str | None:
        """The name of the key in an Authorization header; None where it is not one of them.

        Every key is compared, each in constant time, so that an answer's time tells nothing of them.
        """
        given = _digest(_key_of(header))
        found = None
        for name, digest in self.clients.items():
            if hmac.compare_digest(given, digest):
                found = name
        return found

    def is_admin(self, header: str | None) -> bool:
        """Whether an Authorization header has the admin's key."""
        return self.admin is not None and hmac.compare_digest(_digest(_key_of(header)), self.admin)


def read_keys(file: pathlib.Path | None, environment: Mapping[str, str] = os.environ) -> Keys:
    """The keys of a file and of the environment.

    The file has one key a line, as `NAME:KEY` or alone; empty lines and those that begin with # are left out.
    RT2_API_KEYS holds the same with commas instead of line ends, and RT2_ADMIN_KEY the admin's.

    Raises:
        UserError: no such file, or a key that is too short, stands twice or has no name of its own.
    """
    entries: list[str] = []
    if file is not None:
        if not file.is_file():
            raise UserError(f"key file {file} does not exist; write one key a line into it: NAME:KEY")
        entries += file.read_text(encoding="utf-8").splitlines()
    entries += environment.get(KEYS_VARIABLE, "").split(",")
    clients: dict[str, bytes] = {}
    for entry in entries:
        entry = entry.strip()
        if not entry or entry.startswith("#"):
            continue
        name, _, key = entry.rpartition(":")
        name, digest = name.strip() or f"key{len(clients) + 1}", _checked(key.strip(), name.strip())
        if name in clients or digest in clients.values():
            raise UserError(f"API key of {name!r} stands twice; give each client a name and a key of its own")
        clients[name] = digest
    if file is not None and not clients:
        raise UserError(
            f"key file {file} holds no key, which would let everybody in; write one, or leave the option out"
        )
    admin = environment.get(ADMIN_VARIABLE, "").strip()
    return Keys(clients, _checked(admin, "the admin") if admin else None)


def _checked(key: str, whose: str) -> bytes:
    if len(key) < _LEAST or not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(
            f"API key of {whose or 'a client'}: {len(key)} characters; give at least {_LEAST} of printable ASCII "
            "without spaces, such as those of: openssl rand -hex 32"
        )
    return _digest(key)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _key_of(header: str | None) -> str:
    """The key in `Api-Key KEY` (openpi-client), `Bearer KEY`, or `Basic base64(anything:KEY)` (a URL's user:KEY@)."""
    scheme, _, value = (header or "").strip().partition(" ")
    if scheme.lower() in ("api-key", "bearer"):
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode("utf-8").partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""
