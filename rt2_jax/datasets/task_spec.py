"""What a seqio task is, said once: `TaskSpec`. Preparing asks `spec_of(task)` for all of it. Imports TensorFlow."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import seqio

from rt2_jax.actions import Embodiment
from rt2_jax.data.frames import frames_folder
from rt2_jax.datasets.tfds_reading import task_folder
from rt2_jax.errors import UserError

# The camera of datasets that have one.
CAMERA = "image"
Tensors = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """What one task is: `register_robot_task` and `register_image_text_task` say it, or a task by hand itself.

    Attributes:
        name: the task's name.
        folder: of the TFDS dataset that it reads; None where it reads something else.
        kind: what its prompts ask for, and so how its answers are scored: "action", "plan", or a kind of text such as
            "vqa".
        embodiment: what its frames and the integers of its targets mean, so that what was binned with one card cannot
            be decoded with another; None where no integer is an action.
        cameras: the names of the cameras that an example shows, in order.
        history: frames of each camera in an example; an example's images are oldest first, and of each moment the
            cameras in order; where the episode is younger an image is "".
        splits: task split -> TFDS split or slice; a split that is not in it is TFDS's own.
        frames: a TensorFlow function from an example of the TFDS dataset to camera -> string[T], all of its encoded
            frames: tasks that have one share their dataset's. None: its frames are its own, the images of its examples.
        made_by: the functions that make its examples and the settings that they are made with, by what they are;
            prepared data notices by them that it would come out otherwise now (see `fingerprint`).

    Raises:
        UserError: cameras or a history that are not the embodiment's.
    """

    name: str
    folder: pathlib.Path | None = None
    kind: str = "text"
    embodiment: Embodiment | None = None
    cameras: tuple[str, ...] = (CAMERA,)
    history: int = 1
    splits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    frames: Callable[[Tensors], Tensors] | None = None
    made_by: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for what in ("cameras", "history") if self.embodiment else ():
            own, card = getattr(self, what), getattr(self.embodiment, what)
            if own != card:
                raise UserError(f"task {self.name}: its {what} is {own}, its card's is {card}; give it the card's")

    @property
    def num_images(self) -> int:
        """Images in one example."""
        return self.history * len(self.cameras)

    def source_split(self, split: str) -> str:
        """The dataset's split or slice that a split of the task is."""
        return self.splits.get(split, split)


@dataclasses.dataclass(frozen=True)
class TaskFeature(seqio.Feature):
    """The feature ``inputs`` of a task: it carries what the task is.

    Attributes:
        spec: what it is; None says no more than any seqio task does.
    """

    spec: TaskSpec | None = None


def spec_of(task: seqio.Task) -> TaskSpec:
    """What a task is; what a task by hand leaves out is taken from its source and its preprocessors.

    Raises:
        UserError: it has no image, or the spec of another task.
    """
    if "image" not in task.output_features:
        raise UserError(f"task {task.name}: it has no feature 'image'; give its examples an encoded image")
    inputs = task.output_features.get("inputs")
    spec = (isinstance(inputs, TaskFeature) and inputs.spec) or TaskSpec(task.name)
    if spec.name != task.name:
        raise UserError(f"task {task.name}: its spec is that of {spec.name}; give it one of its own name")
    return dataclasses.replace(
        spec,
        folder=spec.folder or task_folder(task),
        splits=spec.splits or _splits(task),
        made_by=spec.made_by or _functions(task),
    )


def frames_of(task: seqio.Task, spec: TaskSpec, split: str) -> tuple[str, str]:
    """Whose frames a task's split shows, (dataset, split): a dataset's, which others may show too, or its own."""
    if spec.frames is None or not isinstance(task.source, seqio.TfdsDataSource):
        return task.name, split
    return task.source.tfds_dataset.builder.info.full_name, spec.source_split(split)


def frames_folders(task: seqio.Task, spec: TaskSpec, split: str) -> dict[str, str]:
    """The folder of each camera's frames, below ``prepared``, in the cameras' order."""
    return {camera: frames_folder(*frames_of(task, spec, split), camera) for camera in spec.cameras}


def _splits(task: seqio.Task) -> dict[str, str]:
    if not isinstance(task.source, seqio.TfdsDataSource):
        return {}
    return {split: str(task.source.tfds_dataset._map_split(split)) for split in task.splits}


def _functions(task: seqio.Task) -> dict[str, Callable[..., Any]]:
    functions = {f"preprocessors[{number}]": function for number, function in enumerate(task.preprocessors)}
    own = {"source": task.source._dataset_fn} if isinstance(task.source, seqio.FunctionDataSource) else {}
    return own | functions
