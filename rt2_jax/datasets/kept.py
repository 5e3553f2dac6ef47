"""Whether what is prepared already is what would be prepared now: anything else is named, with both values."""

import dataclasses
from collections.abc import Mapping

from rt2_jax.actions import embodiment as embodiments
from rt2_jax.data.frames import FramesIndex
from rt2_jax.data.records import PreparedIndex
from rt2_jax.data.writer import Limits
from rt2_jax.datasets.fingerprint import fingerprints, home
from rt2_jax.datasets.task_spec import TaskSpec


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a split is to be prepared from and with.

    Attributes:
        spec: of the task.
        split: of the task.
        vocabulary, source: see `PreparedIndex`.
        frames: camera -> the folder of its frames, in the cameras' order.
        limits: what its examples must keep to.
    """

    spec: TaskSpec
    split: str
    vocabulary: str
    source: str
    frames: Mapping[str, str]
    limits: Limits


def difference(index: PreparedIndex, wanted: Wanted) -> str | None:
    """How a prepared split is not what is wanted, as what follows "was prepared"; None when it is."""
    spec, size = wanted.spec, wanted.limits.image_size
    hashes = {"vocabulary": (index.vocabulary, wanted.vocabulary), "source": (index.source, wanted.source)}
    if size:
        hashes["image size"] = str(index.image_size), str(size)
    for what, (found, now) in hashes.items():
        if found != now:
            return f"from another {what} ({found[:12]}, now {now[:12]})"
    differing = embodiments.difference(index.embodiment, spec.embodiment, told=True)
    if differing:
        return f"when {differing[0]} was {differing[1]}, now {differing[2]}"
    frames, source_split = {ref.camera: ref.folder for ref in index.frames}, spec.source_split(wanted.split)
    pairs = {
        "kind": (index.kind, spec.kind),
        "history": (index.history, spec.history),
        "cameras": (list(frames), list(wanted.frames)),
        # An index of a release that did not write it down has None.
        "the dataset's split": (source_split if index.source_split is None else index.source_split, source_split),
        "frames": (frames, dict(wanted.frames)),
    }
    for what, (found, now) in pairs.items():
        if found != now:
            return f"with {what} {found}, now {now}"
    return _other_maker(index, spec) or _other_limit(index, wanted.limits)


def _other_maker(index: PreparedIndex, spec: TaskSpec) -> str | None:
    """How other functions or settings made a prepared split's examples; None where its index does not say."""
    if index.made_by is None:
        return None
    now = fingerprints(spec.made_by)
    for what in {**now, **index.made_by}:
        if now.get(what) == index.made_by.get(what):
            continue
        if callable(spec.made_by.get(what)):
            where = f"{what}, module {home(spec.made_by[what])}"
            return f"otherwise: the function that makes its examples ({where}) has changed since"
        return f"with {what} {index.made_by.get(what)}, now {now.get(what)}"
    return None


def _other_limit(index: PreparedIndex, limits: Limits) -> str | None:
    """How other limits would leave other examples; None where they would leave those that are prepared.

    What is left out is not there to be measured: only limits that are no higher are known to leave it out again. Where
    an index without limits has left examples out, an earlier release wrote it, and they are not known.
    """
    unknown = index.dropped > 0 and index.prompt_len is None and index.target_len is None
    for what in ("prompt", "target"):
        then, now = getattr(index, f"{what}_len"), getattr(limits, f"{what}_len")
        longer = now is not None and getattr(index, f"longest_{what}") > now
        more = index.dropped > 0 and then is not None and (now is None or now > then)
        if longer or more:
            was, asked = ("without a limit" if limit is None else str(limit) for limit in (then, now))
            return f"with {what}_len {'unknown' if unknown else was}, now {asked}"
    return None


def frames_difference(index: FramesIndex, source: str, image_size: int | None) -> str | None:
    """How frames are not what would be written now, as what follows "was prepared"; None when they are."""
    for what, found, wanted in (("source", index.source, source), ("image size", index.image_size, image_size)):
        if wanted is not None and found != wanted:
            return f"from another {what} ({str(found)[:12]}, now {str(wanted)[:12]})"
    return None
