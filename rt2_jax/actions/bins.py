"""Physical actions <-> bins (RT-2, section 3.2: each dimension is cut into 256 uniform bins)."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from rt2_jax.actions.space import BINARY, TERMINATE, ActionSpace
from rt2_jax.errors import UserError
from rt2_jax.typed import Natural, build, check_fields

DECODINGS = ("centre", "rt1")
NUM_INTEGERS = 256


@dataclasses.dataclass(frozen=True)
class ActionBins:
    """Cuts every dimension of a space into equal bins and puts physical numbers back.

    ``decoding="centre"``: ``bin = clip(floor(u * num_bins), 0, num_bins - 1)`` with ``u`` the value scaled to [0, 1],
    decoded to the bin's centre: half a bin of error at most.
    ``decoding="rt1"``: ``bin = int(u * (num_bins - 1))`` in float32, decoded to ``bin / (num_bins - 1)``, as RT-1's
    public tokenizer does: it truncates, so errors reach a whole bin and lean towards `low`. For its checkpoints only.

    A bin is spoken as the integer ``first + bin``: 21 bins from 0 are what RT-2's Language Table policy wrote as -10 to
    10, for the vocabulary has one token for each integer of 0..255 and none for a negative one.

    A dimension of two values takes two bins whatever the decoding. Terminate: `continue_token` for 0.0 and
    `terminate_token` for 1.0, counted from `first` (RT-1's one-hot mode puts terminate at 0 and the arm at 1; the
    example string of RT-2 starts with 1). Binary: the lowest bin for `low` and the highest for `high`.

    Raises:
        UserError: an unknown decoding, a bin count outside 2..256, integers beyond 255, or two terminate bins that
            coincide or do not exist.
    """

    space: ActionSpace
    # An action's integers are the vocabulary's, 0 to 255, of one token each.
    num_bins: Annotated[int, msgspec.Meta(ge=2, le=NUM_INTEGERS)] = NUM_INTEGERS
    decoding: Literal[DECODINGS] = "centre"
    continue_token: Natural = 1
    terminate_token: Natural = 0
    first: Annotated[int, msgspec.Meta(ge=0, le=NUM_INTEGERS - 2)] = 0

    def __post_init__(self) -> None:
        check_fields(self, "action bins")
        if self.first + self.num_bins > NUM_INTEGERS:
            raise UserError(
                f"action bins: {self.num_bins} bins from {self.first} end at {self.first + self.num_bins - 1}, the "
                f"vocabulary's integers at {NUM_INTEGERS - 1}; lower one of the two"
            )
        for name in ("continue_token", "terminate_token"):
            value = getattr(self, name)
            if value >= self.num_bins:
                raise UserError(f"action bins: {name} is {value}; choose a bin of 0..{self.num_bins - 1}")
        if self.continue_token == self.terminate_token:
            raise UserError(f"action bins: continue and terminate are both bin {self.continue_token}; choose two bins")

    @property
    def width(self) -> int:
        """Bins in one action: the space's number of dimensions."""
        return self.space.width

    @property
    def bin_size(self) -> np.ndarray:
        """float64[width]: a bin's size in each dimension's unit (no use where a dimension has two values)."""
        cells = self.num_bins if self.decoding == "centre" else self.num_bins - 1
        return (np.asarray(self.space.high) - np.asarray(self.space.low)) / cells

    @property
    def allowed(self) -> np.ndarray:
        """bool[width, first + num_bins]: which integers each position of an action may take."""
        allowed = np.zeros((self.width, self.first + self.num_bins), bool)
        allowed[:, self.first :] = True
        for dim in range(self.width):
            pair = self._pair(dim)
            if pair:
                allowed[dim] = False
                allowed[dim, list(pair)] = True
        return allowed

    def encode(self, action: np.ndarray) -> np.ndarray:
        """Integers of physical actions; a value outside the bounds goes to the nearest bin, as in RT-1 (see `clipped`).

        Args:
            action: float[..., width] in the space's units.

        Returns:
            int32[..., width] in first..first+num_bins-1.

        Raises:
            UserError: a wrong dtype or width, or a value that is not finite.
        """
        action = self._check(action, np.floating, "float32")
        finite = np.isfinite(action)
        if not finite.all():
            where = tuple(int(index) for index in np.argwhere(~finite)[0])
            dim = where[-1]
            raise UserError(
                f"action: {action[where]} in dimension {self.space.names[dim]!r} at {where}, the bounds are "
                f"[{self.space.low[dim]}, {self.space.high[dim]}]; drop or repair that step"
            )
        # RT-1 computes in float32, and its truncation shows the difference.
        dtype = np.float64 if self.decoding == "centre" else np.float32
        low, high = np.asarray(self.space.low, dtype), np.asarray(self.space.high, dtype)
        unit = (np.clip(action.astype(dtype), low, high) - low) / (high - low)
        cells = self.num_bins if self.decoding == "centre" else self.num_bins - 1
        bins = self.first + np.clip(np.floor(unit * dtype(cells)), 0, self.num_bins - 1).astype(np.int32)
        for dim in range(self.width):
            pair = self._pair(dim)
            if pair:
                middle = (self.space.low[dim] + self.space.high[dim]) / 2
                bins[..., dim] = np.where(action[..., dim] >= middle, pair[1], pair[0])
        return bins

    def decode(self, bins: np.ndarray) -> np.ndarray:
        """Physical actions of integers.

        Args:
            bins: int[..., width] in first..first+num_bins-1, and of the two where a dimension has two values.

        Returns:
            float32[..., width] in the space's units.

        Raises:
            UserError: a wrong dtype or width, or a bin that its position may not take.
        """
        bins = self._check(bins, np.integer, "int32")
        allowed = self.allowed
        outside = (bins < 0) | (bins >= allowed.shape[1])
        wrong = outside | ~allowed[np.arange(self.width), np.where(outside, 0, bins)]
        if wrong.any():
            where = tuple(int(index) for index in np.argwhere(wrong)[0])
            dim = where[-1]
            pair = self._pair(dim)
            limit = f"{pair[0]} or {pair[1]}" if pair else f"{self.first}..{allowed.shape[1] - 1}"
            raise UserError(
                f"action bins: {bins[where]} in dimension {self.space.names[dim]!r} at {where}, the limit is {limit}; "
                "decode under the grammar or fix the bins"
            )
        low, high = np.asarray(self.space.low), np.asarray(self.space.high)
        counted = bins - self.first
        unit = (counted + 0.5) / self.num_bins if self.decoding == "centre" else counted / (self.num_bins - 1)
        action = (low + unit * (high - low)).astype(np.float32)
        for dim in range(self.width):
            pair = self._pair(dim)
            if pair:
                action[..., dim] = np.where(bins[..., dim] == pair[1], self.space.high[dim], self.space.low[dim])
        return action

    def clipped(self, action: np.ndarray) -> np.ndarray:
        """int64[width]: how many of the actions `encode` would clip in each dimension; for inspecting a dataset.

        Args:
            action: float[..., width]. Bounds are compared at the actions' own precision, so a float32 copy of a bound
                is not counted.
        """
        action = self._check(action, np.floating, "float32")
        low, high = np.asarray(self.space.low, action.dtype), np.asarray(self.space.high, action.dtype)
        return ((action < low) | (action > high)).reshape(-1, self.width).sum(0)

    def to_json(self) -> dict[str, Any]:
        """A plain dict for a bundle; ``from_json`` reads it back."""
        fields = dataclasses.asdict(self) | {"space": self.space.to_json()}
        if not self.first:
            del fields["first"]  # as the first releases wrote it, so that hashes over it stay
        return fields

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], where: str = "action bins", path: str = "") -> "ActionBins":
        """The bins that ``to_json`` wrote; `where` and `path` say in messages what holds them.

        Raises:
            UserError: a field is missing, unknown or of a wrong type, or a value is refused by the constructor.
        """
        # Fields that have a default are no choice in a file: it says what its weights were trained with.
        for field in dataclasses.fields(cls) if isinstance(fields, Mapping) else ():
            if field.name not in fields and field.name != "first":
                raise UserError(f"{where}: {path + '.' if path else ''}{field.name} is missing; write the file anew")
        return build(cls, fields, where, path)

    def _pair(self, dim: int) -> tuple[int, int] | None:
        """The integers of `low` and `high` of a dimension with two values; None of one with more."""
        kind = self.space.kinds[dim]
        if kind == TERMINATE:
            return self.first + self.continue_token, self.first + self.terminate_token
        return (self.first, self.first + self.num_bins - 1) if kind == BINARY else None

    def _check(self, array: np.ndarray, kind: type[np.generic], wanted: str) -> np.ndarray:
        array = np.asarray(array)
        if not np.issubdtype(array.dtype, kind):
            raise UserError(f"action: dtype {array.dtype}, needs {wanted}; convert it first")
        if array.ndim == 0 or array.shape[-1] != self.width:
            raise UserError(
                f"action: shape {array.shape}, needs {self.width} numbers last ({' '.join(self.space.names)}); reshape"
            )
        return array
