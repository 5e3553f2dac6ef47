"""The two tabletop datasets: where their examples come from, and the writing of both. Imports TensorFlow."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from rich.progress import Progress

from rt2_jax.actions import action_statistics, load_card, save_card
from rt2_jax.datasets.arm import arm_action
from rt2_jax.datasets.tabletop import features as rlds
from rt2_jax.datasets.tabletop.demonstrations import RobotJob, WebJob, play_demonstrations, render_web, simulator_pool
from rt2_jax.datasets.tfds_folder import FolderSpec, Shard, Work, finish, make_ready, owned, write_shard
from rt2_jax.errors import UserError
from rt2_jax.files.writing import whole_file, write_error
from rt2_jax.progress import progress_bar

FORMAT = 1
# One validation example for so many training examples, on top of them.
VALIDATION_RATIO = 20
EPISODES_PER_SHARD = 128
IMAGES_PER_SHARD = 1024
EPISODES_PER_JOB = 4
IMAGES_PER_JOB = 64
_EXAMPLE_INSTRUCTIONS = 10
_SHOWN = 8  # damaged files that a line names


@dataclasses.dataclass(frozen=True)
class Source:
    """How one dataset's examples come about.

    Attributes:
        spec: the folder.
        job: (shard, start, stop) -> the argument of `run`.
        run: done in a simulator process: job -> list of results, one for each of start .. stop - 1.
        example: result -> dict that fits the features.
        per_job: examples of one job.
        unit: what is counted, for the progress bar.
    """

    spec: FolderSpec
    job: Callable[[Shard, int, int], Any]
    run: Callable[[Any], list[Any]]
    example: Callable[[Any], dict[str, Any]]
    per_job: int
    unit: str


def write_datasets(sources: Sequence[Source], workers: int, overwrite: bool, show_progress: bool) -> None:
    """Writes what is missing or damaged of each source's folder.

    Raises:
        UserError: a folder that holds something else, or that another process is building, no OpenGL, a process that
            died, a full disk.
    """
    with contextlib.ExitStack() as stack:
        # All folders are taken and checked before the first minute of work.
        for source in sources:
            stack.enter_context(owned(source.spec))
        works = [make_ready(source.spec, overwrite) for source in sources]
        progress = stack.enter_context(progress_bar(show_progress))
        pool = stack.enter_context(simulator_pool(workers))
        for source, work in zip(sources, works, strict=True):
            _write(source, work, pool, workers, progress)


def _split_sizes(examples: int) -> Mapping[str, int]:
    return {"train": examples, "validation": max(1, examples // VALIDATION_RATIO)}


def robot_source(
    data_dir: pathlib.Path, episodes: int, image_size: int, seed: int, skills: tuple[str, ...], noise: float
) -> Source:
    """Where the demonstrations come from; the arguments are those of `build`."""
    parameters = {"episodes": episodes, "skills": list(skills), "noise": noise}
    spec = FolderSpec(
        data_dir=data_dir,
        name=rlds.ROBOT_NAME,
        version=rlds.VERSION,
        description="Scripted demonstrations in the tabletop world of rt2_jax: successful episodes only. The last step "
        "of an episode carries a valid, terminating action.",
        features=rlds.robot_features(image_size),
        split_sizes=_split_sizes(episodes),
        examples_per_shard=EPISODES_PER_SHARD,
        parameters=parameters | {"format": FORMAT, "seed": seed, "image_size": image_size},
    )

    def job(shard: Shard, start: int, stop: int) -> RobotJob:
        return RobotJob(shard.split, start, stop, seed, image_size, skills, noise)

    return Source(spec, job, play_demonstrations, rlds.robot_example, EPISODES_PER_JOB, "episodes")


def web_source(data_dir: pathlib.Path, images: int, image_size: int, seed: int) -> Source:
    """Where the web images come from; the arguments are those of `build`."""
    spec = FolderSpec(
        data_dir=data_dir,
        name=rlds.WEB_NAME,
        version=rlds.VERSION,
        description="Pictures of the wider tabletop world of rt2_jax, with detections, places, questions, captions and "
        "alt-text.",
        features=rlds.web_features(image_size),
        split_sizes=_split_sizes(images),
        examples_per_shard=IMAGES_PER_SHARD,
        parameters={"format": FORMAT, "images": images, "seed": seed, "image_size": image_size},
    )

    def job(shard: Shard, start: int, stop: int) -> WebJob:
        return WebJob(shard.split, start, stop, seed, image_size)

    return Source(spec, job, render_web, rlds.web_example, IMAGES_PER_JOB, "images")


def _write(
    source: Source,
    work: Work,
    pool: concurrent.futures.ProcessPoolExecutor,
    workers: int,
    progress: Progress,
) -> None:
    spec = source.spec
    total = sum(spec.split_sizes.values())
    shards = work.shards
    left = sum(shard.stop - shard.start for shard in shards)
    bar = progress.add_task(f"{spec.name} ({source.unit})", total=total, completed=total - left)
    jobs = [
        source.job(shard, start, min(start + source.per_job, shard.stop))
        for shard in shards
        for start in range(shard.start, shard.stop, source.per_job)
    ]
    try:
        results = _in_order(pool, source.run, jobs, ahead=4 * workers)
        for shard in shards:
            write_shard(spec, shard, _examples(source, results, shard.stop - shard.start, progress, bar))
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError(
            f"a rendering process of {spec.name} died (out of memory, or a crash in OpenGL); run the same command to "
            "go on, with fewer workers if it happens again"
        ) from error
    if work.finished:
        return
    cards = [rlds.CARD_NAME] if spec.name == rlds.ROBOT_NAME else []
    if cards:
        _write_card(spec)
    finish(spec, cards)
    if work.damaged:
        more = f" and {len(work.damaged) - _SHOWN} more" if len(work.damaged) > _SHOWN else ""
        shown = ", ".join(work.damaged[:_SHOWN]) + more
        progress.console.print(f"{spec.name}/{spec.version}: damaged or lost, and made again: {shown}", soft_wrap=True)


def _examples(
    source: Source, results: Iterator[Any], count: int, progress: Progress, bar: Any
) -> Iterator[dict[str, Any]]:
    for _ in range(count):
        yield source.example(next(results))
        progress.advance(bar)


def _in_order(
    pool: concurrent.futures.ProcessPoolExecutor, run: Callable[[Any], list[Any]], jobs: Sequence[Any], ahead: int
) -> Iterator[Any]:
    """Results of the jobs one by one in their order, while at most `ahead` jobs are under way or wait to be taken."""
    pending: collections.deque[concurrent.futures.Future[list[Any]]] = collections.deque()
    waiting = iter(jobs)
    for job in waiting:
        pending.append(pool.submit(run, job))
        if len(pending) >= ahead:
            yield from pending.popleft().result()
    while pending:
        yield from pending.popleft().result()


def _write_card(spec: FolderSpec) -> None:
    """Measures the training split as it lies on the disk and writes its card."""
    actions, instructions, episodes = [], {}, 0
    files = [str(spec.path(shard)) for shard in spec.shards() if shard.split == "train"]
    decoders = {"steps": tfds.decode.SkipDecoding()}
    records: Any = tf.data.TFRecordDataset(files).as_numpy_iterator()
    for record in records:
        episode: Any = spec.features.deserialize_example(record, decoders=decoders)
        steps = episode["steps"]
        actions.append(arm_action(steps["action"]).numpy())
        instructions[steps["observation"]["natural_language_instruction"][0].numpy().decode()] = None
        episodes += 1
    everything = np.concatenate(actions)
    size = int(spec.parameters["image_size"])
    card = dataclasses.replace(
        load_card("tabletop"),
        name=spec.name,
        description=f"{spec.description} Statistics are of the training split alone.",
        statistics=action_statistics(everything),
        num_episodes=episodes,
        num_steps=len(everything),
        image_size=(size, size),
        instructions=tuple(instructions)[:_EXAMPLE_INSTRUCTIONS],
    )
    try:
        with whole_file(spec.folder / rlds.CARD_NAME) as partial:
            save_card(card, partial)
    except OSError as error:
        raise write_error(spec.folder / rlds.CARD_NAME, error) from error
