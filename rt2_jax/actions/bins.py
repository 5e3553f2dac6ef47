"""Physical actions <-> bins (RT-2, section 3.2: each dimension is cut into 256 uniform bins)."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from rt2_jax.actions.space import ActionSpace
from rt2_jax.errors import UserError
from rt2_jax.typed import Natural, build, check_fields

DECODINGS = ("centre", "rt1")


@dataclasses.dataclass(frozen=True)
class ActionBins:
    """Cuts every dimension of a space into equal bins and puts physical numbers back.

    ``decoding="centre"``: ``bin = clip(floor(u * num_bins), 0, num_bins - 1)`` with ``u`` the value scaled to [0, 1],
    decoded to the bin's centre: half a bin of error at most.
    ``decoding="rt1"``: ``bin = int(u * (num_bins - 1))`` in float32, decoded to ``bin / (num_bins - 1)``, as RT-1's
    public tokenizer does: it truncates, so errors reach a whole bin and lean towards `low`. For its checkpoints only.

    Dimension 0, ``terminate``, has two bins whatever the decoding: `continue_token` for 0.0, `terminate_token` for 1.0
    (RT-1's one-hot mode puts terminate at 0 and the arm at 1; the example string of RT-2 starts with 1).

    Raises:
        UserError: an unknown decoding, a bin count outside 2..256, or two terminate bins that coincide or do not exist.
    """

    space: ActionSpace
    # An action's integers are the vocabulary's, 0 to 255, of one token each.
    num_bins: Annotated[int, msgspec.Meta(ge=2, le=256)] = 256
    decoding: Literal[DECODINGS] = "centre"
    continue_token: Natural = 1
    terminate_token: Natural = 0

    def __post_init__(self) -> None:
        check_fields(self, "action bins")
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
        """float64[width]: a bin's size in each dimension's unit (terminate's entry has no use)."""
        cells = self.num_bins if self.decoding == "centre" else self.num_bins - 1
        return (np.asarray(self.space.high) - np.asarray(self.space.low)) / cells

    @property
    def allowed(self) -> np.ndarray:
        """bool[width, num_bins]: which bins each position of an action may take."""
        allowed = np.ones((self.width, self.num_bins), bool)
        allowed[0] = False
        allowed[0, [self.continue_token, self.terminate_token]] = True
        return allowed

    def encode(self, action: np.ndarray) -> np.ndarray:
        """Bins of physical actions; a value outside the bounds goes to the nearest bin, as in RT-1 (see `clipped`).

        Args:
            action: float[..., width] in the space's units.

        Returns:
            int32[..., width] in 0..num_bins-1.

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
        bins = np.clip(np.floor(unit * dtype(cells)), 0, self.num_bins - 1).astype(np.int32)
        bins[..., 0] = np.where(action[..., 0] >= 0.5, self.terminate_token, self.continue_token)
        return bins

    def decode(self, bins: np.ndarray) -> np.ndarray:
        """Physical actions of bins.

        Args:
            bins: int[..., width] in 0..num_bins-1; position 0 one of the two terminate bins.

        Returns:
            float32[..., width] in the space's units.

        Raises:
            UserError: a wrong dtype or width, or a bin that its position may not take.
        """
        bins = self._check(bins, np.integer, "int32")
        outside = (bins < 0) | (bins >= self.num_bins)
        wrong = outside | ~self.allowed[np.arange(self.width), np.where(outside, 0, bins)]
        if wrong.any():
            where = tuple(int(index) for index in np.argwhere(wrong)[0])
            dim = where[-1]
            limit = f"{self.continue_token} or {self.terminate_token}" if dim == 0 else f"0..{self.num_bins - 1}"
            raise UserError(
                f"action bins: {bins[where]} in dimension {self.space.names[dim]!r} at {where}, the limit is {limit}; "
                "decode under the grammar or mend the bins"
            )
        low, high = np.asarray(self.space.low), np.asarray(self.space.high)
        unit = (bins + 0.5) / self.num_bins if self.decoding == "centre" else bins / (self.num_bins - 1)
        action = (low + unit * (high - low)).astype(np.float32)
        action[..., 0] = bins[..., 0] == self.terminate_token
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
        return dataclasses.asdict(self) | {"space": self.space.to_json()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], where: str = "action bins", path: str = "") -> "ActionBins":
        """The bins that ``to_json`` wrote; `where` and `path` say in messages what holds them.

        Raises:
            UserError: a field is missing, unknown or of a wrong type, or a value is refused by the constructor.
        """
        # Fields that have a default are no choice in a file: it says what its weights were trained with.
        for field in dataclasses.fields(cls) if isinstance(fields, Mapping) else ():
            if field.name not in fields:
                raise UserError(f"{where}: {path + '.' if path else ''}{field.name} is missing; write the file anew")
        return build(cls, fields, where, path)

    def _check(self, array: np.ndarray, kind: type[np.generic], wanted: str) -> np.ndarray:
        array = np.asarray(array)
        if not np.issubdtype(array.dtype, kind):
            raise UserError(f"action: dtype {array.dtype}, needs {wanted}; convert it first")
        if array.ndim == 0 or array.shape[-1] != self.width:
            raise UserError(
                f"action: shape {array.shape}, needs {self.width} numbers last ({' '.join(self.space.names)}); reshape"
            )
        return array
