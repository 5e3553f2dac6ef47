"""seqio Tasks: one per dataset and use. An example is encoded images, a prompt and a target.

`register_robot_task` and `register_image_text_task` turn any TFDS folder into a task. docs/data.md shows how to add a
dataset of your own.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from rt2_jax.actions import Embodiment
from rt2_jax.datasets.seqio_vocabulary import SeqioVocabulary
from rt2_jax.datasets.task_spec import CAMERA, TaskFeature, TaskSpec, Tensors
from rt2_jax.datasets.tfds_folder import INFO_NAME
from rt2_jax.datasets.tfds_reading import check_dataset, holds_dataset
from rt2_jax.errors import UserError
from rt2_jax.inputs import prompts
from rt2_jax.tokens import Vocabulary, action_text

# What the target of a robot task is: the action alone, or a plan in words and then the action.
MODES = ("action", "plan")


def register_robot_task(
    name: str,
    folder: str | pathlib.Path,
    embodiment: Embodiment,
    steps: Callable[[Tensors], Tensors],
    *,
    mode: str = "action",
    use_last_step: bool = False,
    splits: Mapping[str, str] | None = None,
    vocabulary: Vocabulary | None = None,
) -> seqio.Task:
    """Registers a task on an RLDS dataset: a frame and an instruction in, an action out. An old one is replaced.

    Args:
        name: the task's name.
        folder: of the TFDS dataset, the one that holds ``dataset_info.json``.
        embodiment: what its actions are, the integers that stand for them, and the cameras and history of an example's
            frames (those from before the episode began are masked); it goes from here into prepared data, runs and
            bundles. Tasks on one dataset that name a camera alike share its frames. Of an answer of several actions
            (`chunk`), those past an episode's end repeat its last.
        steps: a TensorFlow function from one episode, as TFDS gives it with encoded images (``episode["steps"]`` holds
            tensors with T first), to a dict of ``image`` string[T] (encoded) or camera -> string[T], ``action``
            float32[T, width] (physical, in the embodiment's units; for the arm's see `arm_action`), ``instruction``
            string[T]; for mode "plan", ``plan`` string[T]; for an embodiment with proprioception, ``state`` float32[T,
            its width].
        mode: "action" (prompt: RT-2's question) or "plan" (prompt: the instruction; target: plan, then action).
        use_last_step: RLDS calls the action of an ``is_last`` step undefined, so that step is left out; True keeps it
            for datasets that record a terminating action there (fractal20220817_data, the tabletop).
        splits: task split -> TFDS split or slice, e.g. ``{"train": "train[:95%]"}``; None takes TFDS's own.
        vocabulary: None is the shipped one.

    Raises:
        UserError: an unknown mode, or no dataset in `folder`.
    """
    if mode not in MODES:
        raise UserError(f"task {name}: mode {mode!r} is unknown; choose one of {', '.join(MODES)}")
    vocabulary = vocabulary or Vocabulary.load()
    cameras, history = embodiment.cameras, embodiment.history
    ask = prompts.robot_prompt if mode == "action" else prompts.plan_prompt

    def texts(
        actions: np.ndarray, states: np.ndarray, instructions: np.ndarray, plans: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        rows = chunks(embodiment.bins.encode(actions), embodiment.chunk)
        targets = [action_text(vocabulary, row) for row in rows]
        told = [""] * len(rows)
        if embodiment.proprioception:
            told = [action_text(vocabulary, row) for row in embodiment.proprioception.encode(states)]
        pairs = zip(instructions, told, strict=True)
        asked = [ask(instruction.decode("utf-8"), embodiment.robot, state) for instruction, state in pairs]
        if mode == "plan":
            targets = [
                prompts.plan_target(plan.decode("utf-8"), action) for plan, action in zip(plans, targets, strict=True)
            ]
        return _strings(asked), _strings(targets)

    def examples(episode: Tensors) -> tf.data.Dataset:
        rows = _fields(name, steps, episode, wanted)
        rows = rows if use_last_step else tf.nest.map_structure(lambda value: value[:-1], rows)
        plans = rows["plan"] if mode == "plan" else rows["instruction"]
        states = rows["state"] if embodiment.proprioception else rows["action"]
        asked, answered = tf.numpy_function(
            texts, [rows["action"], states, rows["instruction"], plans], (tf.string, tf.string), stateful=False
        )
        images = _with_history([_of_camera(name, rows["image"], camera) for camera in cameras], history)
        return _slices(images, asked, answered, rows["instruction"])

    def frames(episode: Tensors) -> Tensors:
        images = _fields(name, steps, episode, ["image"])["image"]
        return {camera: _of_camera(name, images, camera) for camera in cameras}

    wanted = ["image", "action", "instruction"]
    wanted += ["plan"] * (mode == "plan") + ["state"] * (embodiment.proprioception is not None)
    spec = TaskSpec(
        name,
        pathlib.Path(folder),
        kind=mode,
        embodiment=embodiment,
        cameras=cameras,
        history=history,
        splits=dict(splits or {}),
        frames=tf.autograph.experimental.do_not_convert(frames),
        made_by={"steps": steps, "use_last_step": use_last_step},
    )
    return _add_task(spec, examples, vocabulary)


def chunks(actions: np.ndarray, count: int) -> np.ndarray:
    """[T, count * width] of [T, width]: each row with the `count` - 1 that follow it; past the end the last repeats."""
    following = np.minimum(np.arange(len(actions))[:, None] + np.arange(count), len(actions) - 1)
    return actions[following].reshape(len(actions), count * actions.shape[1])


def register_image_text_task(
    name: str,
    folder: str | pathlib.Path,
    annotations: Callable[[Tensors], Tensors],
    prompt: Callable[[Mapping[str, str]], str],
    *,
    kind: str = "text",
    max_per_image: int | None = None,
    camera: str = CAMERA,
    splits: Mapping[str, str] | None = None,
    vocabulary: Vocabulary | None = None,
) -> seqio.Task:
    """Registers a task on images and what is said of them: K annotations become K examples. An old one is replaced.

    Args:
        name: the task's name.
        folder: of the TFDS dataset, the one that holds ``dataset_info.json``; its image feature is named ``image``, or
            it is an RLDS dataset.
        annotations: a TensorFlow function from one TFDS example, its image encoded, to a dict of ``image`` (a string
            scalar, encoded), ``target`` string[K], and any further string[K] that `prompt` wants. From an episode, as
            `register_robot_task` gives it, ``image`` is string[T], all frames of the camera, and ``frame`` int32[K]
            says which of them each annotation is about, from 0 on.
        prompt: a Python function from one annotation's fields, as text, to the prompt; see `rt2_jax.inputs.prompts`.
        kind: what the prompts ask for, as prepared data tells it to those who score, such as "vqa".
        max_per_image: keep at most so many annotations of an image, the first ones.
        camera: whose frames the images are: tasks on one dataset that name a camera alike share its frames.
        splits, vocabulary: as in `register_robot_task`.

    Raises:
        UserError: no dataset in `folder`.
    """

    def examples(example: Tensors) -> tf.data.Dataset:
        images, places, rows = annotated(example)
        keys = sorted(rows)

        def asked(
            count: np.ndarray, places: np.ndarray, *columns: np.ndarray
        ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            kept, questions, answers = [], [], []
            for place, *row in zip(places.tolist(), *columns, strict=True):
                if not 0 <= place < count:
                    raise UserError(
                        f"task {name}: an annotation's frame is {place} of {count} images; give 0 to {count - 1}"
                    )
                if max_per_image is None or kept.count(place) < max_per_image:
                    fields = dict(zip(keys, (field.decode("utf-8") for field in row), strict=True))
                    kept.append(place)
                    questions.append(prompt(fields))
                    answers.append(fields["target"])
            return np.array(kept, np.int64), _strings(questions), _strings(answers)

        columns = [tf.shape(images)[0], places, *(rows[key] for key in keys)]
        shown, questions, answers = tf.numpy_function(asked, columns, (tf.int64, tf.string, tf.string), stateful=False)
        shown = tf.gather(images, tf.ensure_shape(shown, [None]))
        return _slices(shown, questions, answers, tf.fill(tf.shape(shown), ""))

    def frames(example: Tensors) -> Tensors:
        return {camera: annotated(example)[0]}

    def annotated(example: Tensors) -> tuple[tf.Tensor, tf.Tensor, dict[str, Any]]:
        """Images string[T], which of them each annotation is about, int[K], and the annotations' other fields."""
        rows = _fields(name, annotations, example, ["image", "target"])
        image, places = tf.convert_to_tensor(rows.pop("image")), rows.pop("frame", None)
        if image.shape.rank not in (None, 0 if places is None else 1):
            raise UserError(
                f"task {name}: its function gives image of shape {image.shape} "
                f"{'without' if places is None else 'and'} frame; give one image alone, or image string[T] and frame "
                "int32[K]"
            )
        if places is None:
            image, places = image[None], tf.zeros_like(rows["target"], tf.int32)
        return image, places, rows

    spec = TaskSpec(
        name,
        pathlib.Path(folder),
        kind=kind,
        cameras=(camera,),
        splits=dict(splits or {}),
        frames=tf.autograph.experimental.do_not_convert(frames),
        made_by={"annotations": annotations, "prompt": prompt, "max_per_image": max_per_image},
    )
    return _add_task(spec, examples, vocabulary)


def _of_camera(name: str, images: Any, camera: str) -> tf.Tensor:
    """string[T] of one camera, where a task's function gives a camera's frames or those of several by name."""
    if not isinstance(images, Mapping):
        images = {CAMERA: images}
    if camera not in images:
        raise UserError(
            f"task {name}: camera {camera!r} is not among those that its function gives ({', '.join(sorted(images))}); "
            "name one of them, or let it give image: camera -> string[T]"
        )
    return images[camera]


def _with_history(cameras: Sequence[tf.Tensor], history: int) -> tf.Tensor:
    """string[T, history * cameras] of string[T] each, "" before the first; string[T] where an example has one image."""
    if len(cameras) == history == 1:
        return cameras[0]
    count = tf.shape(cameras[0])[0]
    places = tf.range(count)[:, None] + tf.range(history)[None, :]
    before = tf.fill([history - 1], "")
    windows = [tf.gather(tf.concat([before, images], axis=0), places) for images in cameras]
    return tf.ensure_shape(
        tf.reshape(tf.stack(windows, axis=2), [count, history * len(cameras)]), [None, history * len(cameras)]
    )


def _add_task(
    spec: TaskSpec, examples: Callable[[Tensors], tf.data.Dataset], vocabulary: Vocabulary | None
) -> seqio.Task:
    """Registers the task whose examples the function makes of one of the source's."""
    name, folder = spec.name, spec.folder
    if folder is None or not holds_dataset(folder):
        raise UserError(f"task {name}: no dataset in {folder} ({INFO_NAME} is missing); name a whole TFDS folder")
    check_dataset(folder)
    # seqio keeps builders by folder for ever: forget one whose files have been replaced since.
    seqio.utils.LazyTfdsLoader._MEMOIZED_BUILDERS.pop((None, str(folder)), None)
    words = SeqioVocabulary(vocabulary or Vocabulary.load())
    # Nothing here branches on tensors; AutoGraph would spend seconds on finding that out.
    examples = tf.autograph.experimental.do_not_convert(examples)
    image = seqio.PassThroughVocabulary(0)
    # Images stay encoded: those of an RLDS episode are in its steps.
    features: Any = tfds.builder_from_directory(folder).info.features
    encoded = "steps" if "steps" in features else "image"
    source: Any = seqio.TfdsDataSource(
        tfds_data_dir=str(folder),
        splits=spec.splits or None,
        decoders={encoded: tfds.decode.SkipDecoding()},
        read_only=True,
    )
    seqio.TaskRegistry.remove(name)
    return seqio.TaskRegistry.add(
        name,
        source=source,
        preprocessors=[
            lambda dataset: dataset.flat_map(examples),
            seqio.preprocessors.tokenize,
            seqio.preprocessors.append_eos,
        ],
        output_features={
            "image": seqio.Feature(image, add_eos=False, rank=0 if spec.num_images == 1 else 1, dtype=tf.string),
            "inputs": TaskFeature(words, add_eos=False, spec=spec),
            "targets": seqio.Feature(words, add_eos=True),
        },
    )


def _fields(
    name: str, function: Callable[[Tensors], Tensors], example: Tensors, wanted: Sequence[str]
) -> dict[str, Any]:
    """What a task's function gives of an example, all that is wanted among it."""
    try:
        rows = dict(function(example))
    except KeyError as error:
        raise UserError(
            f"task {name}: its function asks for {error}, which is not among {', '.join(sorted(example))} or below "
            "them; compare it with the dataset's features.json"
        ) from error
    lacks = [key for key in wanted if key not in rows]
    if lacks:
        raise UserError(f"task {name}: its function gives no {lacks[0]!r}, only {', '.join(sorted(rows))}; add it")
    return rows


def _slices(image: tf.Tensor, inputs: tf.Tensor, targets: tf.Tensor, instruction: tf.Tensor) -> tf.data.Dataset:
    texts = {"inputs": inputs, "targets": targets, "instruction": instruction}
    columns: Any = {key: tf.ensure_shape(value, [None]) for key, value in texts.items()}
    return tf.data.Dataset.from_tensor_slices(columns | {"image": image})


def _strings(texts: Any) -> np.ndarray:
    """bytes objects in an array; without the dtype numpy would cut trailing zeros and TensorFlow refuse empty rows."""
    return np.array([text.encode("utf-8") for text in texts], dtype=object)
