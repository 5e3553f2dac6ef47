"""``manifest.json``: the size and SHA-256 of every file of a folder, hashed in turn into the folder's one identity.

A folder that has one is *sealed*: what made it is finished with it, and any bit that changes afterwards shows.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rt2_jax.errors import UserError

MANIFEST_NAME = "manifest.json"
FORMAT = 1
# SHA-256 and reading both release the interpreter's lock.
_THREADS = min(8, os.cpu_count() or 1)


@dataclasses.dataclass(frozen=True)
class FileEntry:
    """One file: its size in bytes and the SHA-256 of its content, in hexadecimal."""

    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a sealed folder holds.

    Attributes:
        kind: what the folder is, such as "bundle".
        facts: what else its maker says of it, such as {"step": 1000}; part of the identity.
        files: path below the folder, with slashes -> `FileEntry`.
    """

    kind: str
    facts: Mapping[str, int | str]
    files: Mapping[str, FileEntry]

    @property
    def identity(self) -> str:
        """SHA-256, in hexadecimal, over kind, facts and every file's path, size and hash."""
        return hashlib.sha256(json.dumps(self._tree(), sort_keys=True).encode()).hexdigest()

    @property
    def num_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(entry.bytes for entry in self.files.values())

    def to_text(self) -> str:
        """The content of ``manifest.json``."""
        return json.dumps({**self._tree(), "identity": self.identity}, indent=1, sort_keys=True) + "\n"

    def _tree(self) -> dict[str, Any]:
        files = {path: dataclasses.asdict(entry) for path, entry in self.files.items()}
        return {"format": FORMAT, "kind": self.kind, "facts": dict(self.facts), "files": files}


def make_manifest(
    folder: pathlib.Path,
    kind: str,
    facts: Mapping[str, int | str] | None = None,
    paths: Iterable[str] | None = None,
) -> Manifest:
    """Hashes every file below `folder`, or `paths` alone, as they lie there."""
    paths = sorted(list_files(folder) if paths is None else paths)
    paths = [path for path in paths if path != MANIFEST_NAME]
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        entries = pool.map(lambda path: _entry(folder / path), paths)
        return Manifest(kind, dict(facts or {}), dict(zip(paths, entries, strict=True)))


def read_manifest(folder: pathlib.Path) -> Manifest | None:
    """The manifest of a sealed folder, None where there is none.

    Raises:
        UserError: it cannot be read, or is not to the last byte what `Manifest.to_text` writes.
    """
    path = folder / MANIFEST_NAME
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); copy the folder again") from error
    try:
        tree = json.loads(data)
        files = {name: FileEntry(int(entry["bytes"]), str(entry["sha256"])) for name, entry in tree["files"].items()}
        manifest = Manifest(tree["kind"], tree["facts"], files)
        whole = manifest.to_text().encode() == data
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}); copy or make the folder again") from error
    if not whole:
        raise UserError(f"{path} is damaged (its own hash is another); copy or make the folder again")
    return manifest


def find_damage(
    folder: pathlib.Path,
    manifest: Manifest,
    paths: Iterable[str] | None = None,
    advance: Callable[[int], None] | None = None,
) -> str | None:
    """The first thing below `folder` that is not as its manifest says, in a few words; None when all is.

    Files that the manifest does not know count as damage in its subfolders; beside the manifest they are nobody's
    concern (a README, say), for no reader looks for them.

    Args:
        folder, manifest: what is compared.
        paths: hash these files alone; names and sizes of all are compared all the same. None hashes every file.
        advance: told of bytes as they are read, from several threads.
    """
    problem = find_missing(folder, manifest)
    if problem:
        return problem
    wanted = list(manifest.files if paths is None else paths)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for path, found in zip(wanted, pool.map(lambda path: _hashed(folder / path, advance), wanted), strict=True):
            if found != manifest.files[path].sha256:
                return found if found.startswith("cannot") else f"{path} has changed since it was written"
    return None


def find_missing(folder: pathlib.Path, manifest: Manifest) -> str | None:
    """As `find_damage`, from names and sizes alone: nothing is read."""
    present = set(list_files(folder)) - {MANIFEST_NAME}
    for path, entry in manifest.files.items():
        if path not in present:
            return f"{path} is missing"
        size = (folder / path).stat().st_size
        if size != entry.bytes:
            return f"{path} has {size} bytes instead of {entry.bytes}"
    added = sorted(path for path in present - manifest.files.keys() if "/" in path)
    return f"{added[0]} does not belong to it" if added else None


def check_sealed(folder: pathlib.Path, kind: str, facts: Mapping[str, int | str] | None = None) -> Manifest | None:
    """The manifest of a folder, every byte of it verified; None where the folder has none.

    Raises:
        UserError: damage, or a folder of another kind or with other facts.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    if manifest.kind != kind or dict(manifest.facts) != dict(facts or {}):
        raise UserError(f"{folder} is sealed as {told(manifest)}, not as {kind} {dict(facts or {}) or ''}".rstrip())
    damage = find_damage(folder, manifest)
    if damage:
        raise UserError(f"{folder}: {damage}; copy or make the {kind} again")
    return manifest


def told(manifest: Manifest) -> str:
    """Kind and facts, for a message."""
    return " ".join([manifest.kind, *(f"{name} {value}" for name, value in manifest.facts.items())])


def list_files(folder: pathlib.Path) -> list[str]:
    """Paths of all files below a folder, relative, with slashes, sorted."""
    found = []
    for parent, _, names in os.walk(folder, onerror=_raise):
        below = pathlib.Path(parent).relative_to(folder)
        found += [(below / name).as_posix() for name in names]
    return sorted(found)


def shares(manifest: Manifest, count: int) -> Sequence[list[str]]:
    """The files in `count` parts of about equal bytes, the same ones everywhere: what each of several hosts checks."""
    parts: list[list[str]] = [[] for _ in range(count)]
    sizes: collections.Counter[int] = collections.Counter(dict.fromkeys(range(count), 0))
    for path, entry in sorted(manifest.files.items(), key=lambda item: (-item[1].bytes, item[0])):
        least = min(range(count), key=lambda part: (sizes[part], part))
        parts[least].append(path)
        sizes[least] += entry.bytes
    return parts


def _entry(path: pathlib.Path) -> FileEntry:
    return FileEntry(path.stat().st_size, _sha256(path))


def _hashed(path: pathlib.Path, advance: Callable[[int], None] | None) -> str:
    try:
        digest = _sha256(path)
    except OSError as error:
        return f"cannot read {path.name}: {error.strerror}"
    if advance:
        advance(path.stat().st_size)
    return digest


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _raise(error: OSError) -> None:
    raise error
