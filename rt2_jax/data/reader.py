"""Prepared splits -> batches: a global shuffle by index, an exact-share mixture, a few threads, one integer of state.

Batch number n is a pure function of (tasks, weights, seed, global batch size, n): hosts that each take their rows of it
together read the same global batch whatever their number. No TensorFlow.
"""

import collections
import concurrent.futures
import dataclasses
import pathlib
import weakref
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from rt2_jax.data.array_records import RecordsReader
from rt2_jax.data.frames import FramesReader
from rt2_jax.data.records import NO_FRAME, PreparedIndex, Record, again, decode_record, prepared_dir, read_index
from rt2_jax.data.schedule import MixtureSchedule, make_schedule, shuffled_index
from rt2_jax.errors import UserError
from rt2_jax.inputs.batch import Batch

# Decoding JPEG and collating release the interpreter's lock for most of their time; more threads than this do not help
# a training process, whose other work wants the cores too.
THREADS = 4
PREFETCH = 8


class PreparedSplit:
    """Random access to the records of one prepared split, and their frames.

    Attributes:
        index: its `PreparedIndex`.
    """

    def __init__(self, data_dir: str | pathlib.Path, task: str, split: str):
        """Opens ``<data_dir>/prepared/<task>/<split>`` and the frames that it points at.

        Raises:
            UserError: it is not prepared, empty, its files are not those that were sealed with its index, or its frames
                are not those that it was prepared with.
        """
        self.index = read_index(data_dir, task, split)
        fix = again(data_dir, task)
        folder = prepared_dir(data_dir, task, split)
        if not self.index.num_examples:
            raise UserError(f"{folder} holds no example; leave {task} out of the mixture or prepare it from more data")
        self._records = RecordsReader(folder, self.index.files, fix)
        prepared = pathlib.Path(data_dir) / "prepared"
        self._cameras = [FramesReader(prepared, ref, task, fix) for ref in self.index.frames]

    def __len__(self) -> int:
        return self.index.num_examples

    def read(self, keys: Sequence[int]) -> list[tuple[Record, np.ndarray]]:
        """The records numbered `keys`, each with its frames decoded: uint8[N, size, size, 3].

        A frame that is not there (`NO_FRAME`) is black.

        Raises:
            UserError: a record or frame is corrupt; the file and the number in it are named.
        """
        keys = [int(key) for key in keys]
        records = [self._decode(key, data) for key, data in zip(keys, self._records.read(keys), strict=True)]
        frames = np.zeros((len(keys), self.index.num_images, self.index.image_size, self.index.image_size, 3), np.uint8)
        if records:
            numbers = np.stack([record.frames for record in records])
            for camera, reader in enumerate(self._cameras):
                # Each frame once, however many of these examples show it.
                own = np.s_[:, camera :: len(self._cameras)]
                self._check(keys, numbers[own], reader.index.num_frames)
                wanted = sorted(set(numbers[own].ravel().tolist()) - {NO_FRAME})
                found = dict(zip(wanted, reader.read(wanted), strict=True)) if wanted else {}
                for shown, row in zip(frames[own], numbers[own].tolist(), strict=True):
                    for place, number in enumerate(row):
                        if number != NO_FRAME:
                            shown[place] = found[number]
        return list(zip(records, frames, strict=True))

    def _check(self, keys: Sequence[int], numbers: np.ndarray, most: int) -> None:
        """Raises a UserError where a record points beyond the frames that there are."""
        for row in np.flatnonzero(((numbers < NO_FRAME) | (numbers >= most)).any(axis=1))[:1]:
            error = ValueError(f"it points at frames {numbers[row].tolist()} of {most}")
            raise self._records.corrupt(keys[row], error)

    def _decode(self, key: int, data: bytes) -> Record:
        try:
            record = decode_record(data)
            if record.task != self.index.task:
                raise ValueError(f"it belongs to task {record.task!r}")
            if record.frames.shape != (self.index.num_images,):
                raise ValueError(f"it has {record.frames.size} frames, the index says {self.index.num_images}")
        except ValueError as error:
            raise self._records.corrupt(key, error) from error
        return record


@dataclasses.dataclass(frozen=True)
class _Shape:
    """Sizes of a host's batch."""

    rows: range
    num_images: int
    image_size: int
    prompt_len: int
    target_len: int

    def empty(self) -> Batch:
        """A batch of these sizes, all zero."""
        count, size = len(self.rows), self.image_size
        return Batch(
            images=np.zeros((count, self.num_images, size, size, 3), np.uint8),
            prompt=np.zeros((count, self.prompt_len), np.int32),
            target=np.zeros((count, self.target_len), np.int32),
            weights=np.zeros((count, self.target_len), np.float32),
            task=np.zeros(count, np.int32),
        )


def _fill(batch: Batch, row: int, record: Record, frames: np.ndarray, task: int) -> None:
    batch.images[row] = frames
    batch.prompt[row, : len(record.prompt)] = record.prompt
    batch.target[row, : len(record.target)] = record.target
    batch.weights[row, : len(record.target)] = 1.0
    batch.task[row] = task


@dataclasses.dataclass(frozen=True)
class _MixtureLoader:
    """Makes this host's rows of any global batch."""

    splits: tuple[PreparedSplit, ...]
    schedule: MixtureSchedule
    seed: int
    shape: _Shape

    def __call__(self, number: int) -> Batch:
        task, ordinal = self.schedule.rows(number)
        mine = slice(self.shape.rows.start, self.shape.rows.stop)
        task, ordinal = task[mine], ordinal[mine]
        batch = self.shape.empty()
        for index, split in enumerate(self.splits):
            rows = np.flatnonzero(task == index)
            if not len(rows):
                continue
            name = self.schedule.tasks[index]
            keys = [shuffled_index(name, ordinal[row], len(split), self.seed) for row in rows]
            for row, (record, frames) in zip(rows, split.read(keys), strict=True):
                _fill(batch, int(row), record, frames, index)
        return batch


class BatchReader:
    """An endless iterator of this host's rows of the global batches; close it, or use it in a ``with`` statement.

    Attributes:
        tasks: names; ``Batch.task`` holds indices into them.
        position: number of the global batch that comes next: all the state there is.
    """

    def __init__(self, loader: _MixtureLoader, position: int, threads: int, prefetch: int):
        self.tasks = loader.schedule.tasks
        self.position = position
        self._loader = loader
        self._prefetch = prefetch
        self._pending: collections.deque[concurrent.futures.Future[Batch]] = collections.deque()
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="rt2-reader")
        # A reader that is dropped without close() stops its threads too.
        self._stop = weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    def __iter__(self) -> "BatchReader":
        return self

    def __next__(self) -> Batch:
        if not self._stop.alive:
            raise StopIteration
        while len(self._pending) < self._prefetch:
            self._pending.append(self._pool.submit(self._loader, self.position + len(self._pending)))
        try:
            batch = self._pending.popleft().result()
        except BaseException:
            self.close()
            raise
        self.position += 1
        return batch

    def __enter__(self) -> "BatchReader":
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Drops what was read ahead and ends the threads; the iterator is then at its end."""
        self._stop.detach()
        self._pending.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)


def make_reader(
    data_dir: str | pathlib.Path,
    weights: Mapping[str, float],
    split: str,
    global_batch: int,
    seed: int,
    prompt_len: int,
    target_len: int,
    start_example: int = 0,
    host_index: int = 0,
    host_count: int = 1,
    *,
    vocabulary_sha256: str | None = None,
    image_size: int | None = None,
    threads: int = THREADS,
    prefetch: int = PREFETCH,
) -> BatchReader:
    """Streams a mixture of prepared tasks from any position.

    Host h of H gets rows ``[h * B / H, (h + 1) * B / H)`` of each global batch of B; the global batch does not depend
    on H. Each task is shuffled anew every time it has been read through.

    Args:
        data_dir: holds ``prepared/<task>/<split>``.
        weights: task -> weight > 0.
        split: "train" or "validation".
        global_batch: B, examples in a batch, all hosts together.
        seed: of the order of examples.
        prompt_len, target_len: tokens of a row; an example that is longer is an error, never cut.
        start_example: examples of the stream to skip, a multiple of B; skipping costs nothing.
        host_index, host_count: which rows are this host's.
        vocabulary_sha256: when given, tasks prepared with another vocabulary are refused.
        image_size: when given, tasks prepared at another size are refused.
        threads, prefetch: threads that read and decode, and batches that they may be ahead.

    Raises:
        UserError: a task is not prepared, the tasks differ in vocabulary, image size or number of frames, an example
            is longer than a row, or a number does not fit the others.
    """
    schedule = make_schedule(weights, global_batch)
    if start_example < 0 or start_example % global_batch:
        raise UserError(
            f"start example {start_example} is no multiple of the global batch {global_batch}; go on with the batch "
            "size that the run was stopped with"
        )
    rows = _host_rows(global_batch, host_index, host_count)
    splits = tuple(PreparedSplit(data_dir, task, split) for task in weights)
    shape = _common_shape([one.index for one in splits], rows, prompt_len, target_len, vocabulary_sha256, image_size)
    return BatchReader(_MixtureLoader(splits, schedule, seed, shape), start_example // global_batch, threads, prefetch)


def iterate_once(
    data_dir: str | pathlib.Path,
    task: str,
    split: str,
    global_batch: int,
    prompt_len: int,
    target_len: int,
    host_index: int = 0,
    host_count: int = 1,
    *,
    vocabulary_sha256: str | None = None,
    image_size: int | None = None,
    threads: int = THREADS,
    prefetch: int = PREFETCH,
) -> Iterator[Batch]:
    """Every example of one prepared split once, in the order it was prepared.

    All batches have the same shape; rows past the last example are zeros with weight 0, on every host alike.

    Args and errors are those of `make_reader`; ``Batch.task`` is 0.
    """
    opened = PreparedSplit(data_dir, task, split)
    rows = _host_rows(global_batch, host_index, host_count)
    shape = _common_shape([opened.index], rows, prompt_len, target_len, vocabulary_sha256, image_size)

    def load(start: int) -> Batch:
        batch = shape.empty()
        keys = range(start + rows.start, min(start + rows.stop, len(opened)))
        for row, (record, frames) in enumerate(opened.read(keys) if keys else ()):
            _fill(batch, row, record, frames, 0)
        return batch

    def batches() -> Iterator[Batch]:
        pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="rt2-reader")
        pending: collections.deque[concurrent.futures.Future[Batch]] = collections.deque()
        try:
            for start in range(0, len(opened), global_batch):
                pending.append(pool.submit(load, start))
                if len(pending) > prefetch:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    return batches()


def _host_rows(global_batch: int, host_index: int, host_count: int) -> range:
    if host_count < 1 or not 0 <= host_index < host_count:
        raise UserError(f"host {host_index} of {host_count}: choose 0 <= host index < host count")
    if global_batch % host_count:
        raise UserError(f"global batch {global_batch} does not divide among {host_count} hosts; choose a multiple")
    size = global_batch // host_count
    return range(host_index * size, (host_index + 1) * size)


def _common_shape(
    indices: Sequence[PreparedIndex],
    rows: range,
    prompt_len: int,
    target_len: int,
    vocabulary_sha256: str | None,
    image_size: int | None,
) -> _Shape:
    first = indices[0]
    wanted = {
        "vocabulary": vocabulary_sha256 or first.vocabulary,
        "image_size": image_size or first.image_size,
        "num_images": first.num_images,
    }
    for index in indices:
        for field, value in wanted.items():
            found = getattr(index, field)
            if found != value:
                shown = [item[:12] if isinstance(item, str) else item for item in (found, value)]
                raise UserError(
                    f"{index.task}/{index.split} was prepared with {field.replace('_', ' ')} {shown[0]}, this run "
                    f"needs {shown[1]}; prepare it again with that one: `rt2 data prepare --overwrite`"
                )
        for what, longest, limit in (
            ("prompt", index.longest_prompt, prompt_len),
            ("target", index.longest_target, target_len),
        ):
            if longest > limit:
                raise UserError(
                    f"{index.task}/{index.split}: its longest {what} has {longest} tokens, {what}_len is {limit}; "
                    f"raise {what}_len to {longest}, or prepare it with that limit, which leaves longer examples out"
                )
    return _Shape(rows, first.num_images, wanted["image_size"], prompt_len, target_len)
