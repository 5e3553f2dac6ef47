"""How a foreign checkpoint spells a model: one line for each parameter, read in both directions."""

import dataclasses
import functools
import re
from collections.abc import Mapping

import einops
import numpy as np

LAYER = "{}"  # stands for the layer's number in a foreign tensor's name


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One parameter of ours and the foreign tensor that holds it.

    Attributes:
        path: ours, e.g. "decoder/blocks/mlp/gate/kernel"; parameters of blocks have a leading axis of layers.
        name: theirs, `LAYER` standing for the layer's number where each layer has a tensor of its own.
        axes: einops pattern from their axes to ours, the axis of layers left out: "(h d) w -> w h d".
        part: several parameters share the tensor: ours is entry `part` of its first axis (after the layers').
        stacked: the axis of layers in their tensor; None where each layer has a tensor of its own, or there are none.
    """

    path: str
    name: str
    axes: str
    part: int | None = None
    stacked: int | None = None

    @property
    def layered(self) -> bool:
        """Whether our parameter has a leading axis of layers."""
        return self.stacked is not None or LAYER in self.name

    def ours(self, theirs: np.ndarray, sizes: Mapping[str, int]) -> np.ndarray:
        """Our array (one layer's, where there are layers) of their tensor (without the axis of layers)."""
        array = theirs if self.part is None else theirs[self.part]
        return einops.rearrange(array, self.axes, **_used(self.axes, sizes))

    def theirs(self, ours: np.ndarray, sizes: Mapping[str, int]) -> np.ndarray:
        """The inverse of `ours`: their tensor, or its entry `part`."""
        left, right = self.axes.split("->")
        return einops.rearrange(ours, f"{right.strip()} -> {left.strip()}", **_used(self.axes, sizes))


@dataclasses.dataclass(frozen=True)
class Layout:
    """The foreign spelling of a model or of one of its parts.

    Attributes:
        leaves: one for each parameter.
        sizes: of the axes that patterns take apart, e.g. {"h": 16}.
        ignored: (regex, why): tensors of the checkpoint that the model has no use for.
        copies: name -> name: tensors that files may repeat, which must then equal the other.
    """

    leaves: tuple[Leaf, ...]
    sizes: Mapping[str, int]
    ignored: tuple[tuple[str, str], ...] = ()
    copies: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def renamed(self, start: str) -> "Layout":
        """The same with `start` before every foreign name."""
        return dataclasses.replace(
            self,
            leaves=tuple(dataclasses.replace(leaf, name=start + leaf.name) for leaf in self.leaves),
            ignored=tuple((re.escape(start) + regex, why) for regex, why in self.ignored),
            copies={start + name: start + other for name, other in self.copies.items()},
        )

    def __add__(self, other: "Layout") -> "Layout":
        """Two parts of one checkpoint."""
        clash = {axis for axis in self.sizes.keys() & other.sizes.keys() if self.sizes[axis] != other.sizes[axis]}
        if clash:
            raise ValueError(f"axes {sorted(clash)} have other sizes in the two layouts; name them apart")
        return Layout(
            self.leaves + other.leaves,
            {**self.sizes, **other.sizes},
            self.ignored + other.ignored,
            {**self.copies, **other.copies},
        )


@functools.cache
def _names(pattern: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]\w*", pattern))


def _used(pattern: str, sizes: Mapping[str, int]) -> dict[str, int]:
    return {axis: size for axis, size in sizes.items() if axis in _names(pattern)}
