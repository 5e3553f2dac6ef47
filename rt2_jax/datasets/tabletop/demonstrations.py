"""What the simulator's processes do: play demonstrations and render web images, and hand them over as bytes.

TensorFlow and Mesa's software OpenGL crash in one process, so nothing here imports TensorFlow: `build` runs these
functions in processes of their own and writes what they return.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from rt2_jax.errors import UserError
from rt2_jax.inputs.images import encode_jpeg
from rt2_jax.sim.language.web import WebRenderer
from rt2_jax.sim.tasks.rollout import record_episode
from rt2_jax.sim.tasks.splits import robot_task
from rt2_jax.sim.world.scene import Scene
from rt2_jax.sim.world.world import World

# Scenes tried for one demonstration before the build gives up: the expert fails at a small share of them.
MOST_ATTEMPTS = 20
JPEG_QUALITY = 95
SPLIT_NUMBERS = {"train": 0, "validation": 1}


@dataclasses.dataclass(frozen=True)
class RobotJob:
    """Demonstrations number `start` .. `stop` - 1 of a split; number k shows ``skills[k % len(skills)]``."""

    split: str
    start: int
    stop: int
    seed: int
    image_size: int
    skills: tuple[str, ...]
    noise: float


@dataclasses.dataclass(frozen=True)
class WebJob:
    """Web images number `start` .. `stop` - 1 of a split."""

    split: str
    start: int
    stop: int
    seed: int
    image_size: int


@dataclasses.dataclass(frozen=True)
class Demonstration:
    """One successful episode of T steps.

    Attributes:
        frames: T JPEG images.
        actions: float32[T, 8], physical (`actions.ARM`); the last one terminates.
        instruction: text.
        plans: T texts.
        metadata: seed, skill, split, success, and the scene as JSON.
    """

    frames: tuple[bytes, ...]
    actions: np.ndarray
    instruction: str
    plans: tuple[str, ...]
    metadata: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class WebImage:
    """One image and what is said about it.

    Attributes:
        image: JPEG.
        annotations: dicts of kind, lang, question, target (see `sim.describe.Annotation`).
        scene: the scene as JSON.
    """

    image: bytes
    annotations: tuple[dict[str, str], ...]
    scene: str


def stream_seed(seed: int, split: str, number: int, attempt: int = 0) -> int:
    """The simulator's seed for example `number` of a split: no two of (seed, split, number, attempt) share one.

    It stays below 2**63 for seed < 2**20, number < 2**37, attempt < 32.
    """
    return (((seed << 1 | SPLIT_NUMBERS[split]) << 37) | number) << 5 | attempt


def play_demonstrations(job: RobotJob) -> list[Demonstration]:
    """The job's demonstrations; scenes where the expert fails are dropped and the next one is tried.

    Raises:
        UserError: the expert failed at every one of `MOST_ATTEMPTS` scenes.
    """
    _check_process()
    return [_demonstration(job, number) for number in range(job.start, job.stop)]


def render_web(job: WebJob) -> list[WebImage]:
    """The job's web images."""
    _check_process()
    images = []
    for number in range(job.start, job.stop):
        example = _web_renderer(job.image_size).example(stream_seed(job.seed, job.split, number))
        annotations = tuple(dataclasses.asdict(annotation) for annotation in example.annotations)
        images.append(WebImage(encode_jpeg(example.image, JPEG_QUALITY), annotations, scene_json(example.scene)))
    return images


def scene_json(scene: Scene) -> str:
    """The scene as compact JSON."""
    return json.dumps(dataclasses.asdict(scene), separators=(",", ":"))


class _Worker(multiprocessing.context.SpawnProcess):
    """A process that Ctrl-C does not reach, its imports included: the parent decides what to do about it."""

    def start(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Context(multiprocessing.context.SpawnContext):
    Process = _Worker


@contextlib.contextmanager
def simulator_pool(workers: int) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """Fresh processes for the functions above; they end with the block, whatever ends it, and with this process.

    Raises:
        UserError: fewer than one worker.
    """
    if workers < 1:
        raise UserError(f"workers is {workers}; choose at least 1: rendering needs a process without TensorFlow")
    pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=_Context(), initializer=_start_worker)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _check_process() -> None:
    if "tensorflow" in sys.modules:
        raise UserError(
            "a rendering process imported TensorFlow, which crashes beside software OpenGL; in the main script, move "
            'the import of TensorFlow, tensorflow_datasets or seqio under `if __name__ == "__main__":`'
        )


def _start_worker() -> None:
    # A pool's processes outlive a parent that is killed, waiting for work forever.
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("this process is not one of a pool's")
    sentinel = parent.sentinel

    def end_with_parent() -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _demonstration(job: RobotJob, number: int) -> Demonstration:
    skill = job.skills[number % len(job.skills)]
    for attempt in range(MOST_ATTEMPTS):
        seed = stream_seed(job.seed, job.split, number, attempt)
        scene, task = robot_task(seed, skill)
        world = _world(job.image_size)
        episode = record_episode(scene, task, seed, job.image_size, job.noise, world=world)
        if episode.success and episode.actions[-1, 0] >= 0.5:
            metadata = {
                "seed": seed,
                "skill": episode.skill,
                "split": job.split,
                "success": True,
                "scene": scene_json(scene),
            }
            frames = tuple(encode_jpeg(image, JPEG_QUALITY) for image in episode.images)
            return Demonstration(frames, episode.actions, episode.instruction, episode.plans, metadata)
    raise UserError(
        f"the expert failed {MOST_ATTEMPTS} times in a row at {skill!r} (demonstration {number} of {job.split}, seed "
        f"{job.seed}, noise {job.noise}); lower the noise or choose other skills"
    )


@functools.cache
def _world(image_size: int) -> World:
    """This process's world: making the GL context anew for each episode would take most of the time."""
    return World(robot_task(0)[0], image_size)


@functools.cache
def _web_renderer(image_size: int) -> WebRenderer:
    return WebRenderer(image_size)
