import subprocess
import sys
import threading

import numpy as np
import pytest

from rt2_jax.data.reader import iterate_once, make_reader
from rt2_jax.data.records import prepared_dir
from rt2_jax.errors import UserError

WEIGHTS = {"robot": 0.5, "vqa": 0.3, "caption": 0.2}


@pytest.fixture
def data(tmp_path, prepared):
    prepared(tmp_path, "robot", 40, first_token=1000)
    prepared(tmp_path, "vqa", 25, first_token=2000)
    prepared(tmp_path, "caption", 7, first_token=3000, files=1)
    return tmp_path


def read(data, batches, *, weights=WEIGHTS, **changes):
    arguments = {"split": "train", "global_batch": 8, "seed": 3, "prompt_len": 2, "target_len": 5} | changes
    with make_reader(data, weights, **arguments) as reader:
        return [next(reader) for _ in range(batches)]


def stack(batches, field):
    return np.concatenate([getattr(batch, field) for batch in batches])


def same(one, other):
    return all(np.array_equal(stack(one, field), stack(other, field)) for field in one[0].tree())


def test_batches_have_the_promised_arrays(data):
    batch = read(data, 1)[0]
    assert batch.images.shape == (8, 1, 8, 8, 3) and batch.images.dtype == np.uint8
    assert batch.prompt.shape == (8, 2) and batch.target.shape == batch.weights.shape == (8, 5)
    for row in range(8):
        number = batch.prompt[row, 0] % 1000
        assert batch.task[row] == batch.prompt[row, 0] // 1000 - 1
        tokens = 2 + number % 3
        assert batch.target[row].tolist() == [7] * (tokens - 1) + [1] + [0] * (5 - tokens)
        assert batch.weights[row].tolist() == [1.0] * tokens + [0.0] * (5 - tokens)
        assert np.abs(batch.images[row].astype(int) - number).max() <= 1


def test_every_batch_and_the_whole_stream_hold_the_shares(data):
    batches = read(data, 40)
    counts = np.stack([np.bincount(batch.task, minlength=3) for batch in batches])
    exact = 8 * np.array([0.5, 0.3, 0.2])
    assert np.abs(counts - exact).max() < 1
    assert np.abs(np.cumsum(counts, 0) - np.arange(1, 41)[:, None] * exact).max() < 1


def test_each_epoch_shows_every_example_once_in_another_order(data):
    batches = read(data, 20, weights={"robot": 1.0})
    epochs = stack(batches, "prompt")[:, 0].reshape(4, 40)
    for epoch in epochs:
        assert sorted(epoch) == list(range(1000, 1040))
    assert len({tuple(epoch) for epoch in epochs}) == 4


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_together_read_the_same_global_batches(data, hosts):
    alone = read(data, 6)
    together = [read(data, 6, host_index=host, host_count=hosts) for host in range(hosts)]
    for number, batch in enumerate(alone):
        assert same([batch], [batches[number] for batches in together])


@pytest.mark.parametrize("position", [1, 5, 17])
def test_a_resumed_run_goes_on_as_if_unbroken(data, position):
    unbroken = read(data, position + 4)
    with make_reader(data, WEIGHTS, "train", 8, 3, 2, 5, start_example=8 * position, host_count=1) as reader:
        assert reader.position == position
        resumed = [next(reader) for _ in range(4)]
        assert reader.position == position + 4
    assert same(unbroken[position:], resumed)


def test_threads_do_not_change_the_order(data):
    assert same(read(data, 12, threads=1, prefetch=1), read(data, 12, threads=4, prefetch=8))


def test_another_seed_gives_another_order(data):
    assert not same(read(data, 2), read(data, 2, seed=4))


def test_iterate_once_shows_all_examples_in_order_and_pads_the_last_batch(data):
    for hosts in (1, 2):
        parts = [list(iterate_once(data, "vqa", "train", 8, 2, 5, host, hosts)) for host in range(hosts)]
        batches = [np.concatenate(rows) for rows in zip(*[[b.prompt for b in part] for part in parts], strict=True)]
        weights = [np.concatenate(rows) for rows in zip(*[[b.weights for b in part] for part in parts], strict=True)]
        assert len(batches) == 4 and all(batch.shape == (8, 2) for batch in batches)
        assert np.concatenate(batches)[:25, 0].tolist() == list(range(2000, 2025))
        assert (np.concatenate(weights).sum(1) > 0).tolist() == [True] * 25 + [False] * 7


def _corrupt(path, at):
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0xFF
    path.write_bytes(raw)


def test_a_corrupt_record_is_named_and_the_threads_end(data):
    path = prepared_dir(data, "robot", "train") / "part-00001.array_record"
    content = path.read_bytes()
    # Record 3 of the second file: example 23, whose prompt no other record has.
    _corrupt(path, content.index((1023).to_bytes(4, "little")))
    with pytest.raises(UserError, match=r"part-00001.array_record: record 3 is corrupt.*--tasks robot --overwrite"):
        list(iterate_once(data, "robot", "train", 8, 2, 5))
    reader = make_reader(data, {"robot": 1.0}, "train", 8, 0, 2, 5)
    with pytest.raises(UserError, match="record 3 is corrupt"):
        for _ in range(6):
            next(reader)
    assert list(reader) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rt2-reader")]


def test_flipped_bits_never_give_other_examples(data):
    def read_all():
        batches = list(iterate_once(data, "caption", "train", 8, 2, 5))
        return [stack(batches, field).tobytes() for field in batches[0].tree()]

    whole, rng = read_all(), np.random.default_rng(0)
    folder, refused = prepared_dir(data, "caption", "train"), 0
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        # The blocks of a file of records are padded with zeros, which nobody reads.
        written = np.flatnonzero(np.frombuffer(content, np.uint8))
        for at in rng.choice(written, 25):
            flipped = bytearray(content)
            flipped[at] ^= 1 << int(rng.integers(8))
            path.write_bytes(flipped)
            try:
                assert read_all() == whole
            except UserError as error:
                assert "\n" not in str(error) and "--tasks caption --overwrite" in str(error)
                refused += 1
        path.write_bytes(content)
    assert refused > 60


def test_a_dropped_reader_ends_its_threads(data):
    reader = make_reader(data, WEIGHTS, "train", 8, 0, 2, 5)
    next(reader)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("rt2-reader")]
    assert threads
    del reader
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()


def test_a_truncated_or_missing_file_is_named(data):
    path = prepared_dir(data, "vqa", "train") / "part-00000.array_record"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match="part-00000.array_record has 5000 bytes instead of .*--tasks vqa"):
        read(data, 1)
    path.unlink()
    with pytest.raises(UserError, match="part-00000.array_record is missing.*--tasks vqa"):
        read(data, 1)


def test_a_file_of_the_right_size_that_is_no_array_record_is_named(data):
    path = prepared_dir(data, "vqa", "train") / "part-00000.array_record"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(UserError, match="part-00000.array_record (cannot be read|holds 0 records).*--tasks vqa"):
        read(data, 1)


def test_a_swapped_file_is_noticed(data, prepared):
    folder = prepared_dir(data, "vqa", "train")
    (folder / "part-00001.array_record").write_bytes((folder / "part-00000.array_record").read_bytes())
    with pytest.raises(UserError, match="holds 13 records, its index says 12"):
        read(data, 1)
    prepared(data, "alike", 25)
    (folder / "part-00001.array_record").write_bytes(
        (prepared_dir(data, "alike", "train") / "part-00001.array_record").read_bytes()
    )
    with pytest.raises(UserError, match="record 0 is corrupt .it belongs to task 'alike'.; .*--tasks vqa"):
        list(iterate_once(data, "vqa", "train", 8, 2, 5))


def test_a_missing_task_names_the_command(data):
    with pytest.raises(UserError, match="prepared tasks: caption, robot, vqa.*rt2 data prepare"):
        read(data, 1, weights={"robot": 1, "detect": 1})


def test_other_vocabulary_size_or_frames_are_refused(data, prepared):
    prepared(data, "other", 5, vocabulary="b" * 64)
    with pytest.raises(UserError, match="other/train was prepared with vocabulary bbbb.*needs aaaa"):
        read(data, 1, weights={"robot": 1, "other": 1})
    with pytest.raises(UserError, match="robot/train was prepared with vocabulary aaaa.*needs cccc"):
        read(data, 1, vocabulary_sha256="c" * 64)
    with pytest.raises(UserError, match="robot/train was prepared with image size 8, this run needs 96"):
        read(data, 1, image_size=96)


def test_examples_that_do_not_fit_are_refused_before_the_first_batch(data):
    with pytest.raises(UserError, match="longest target has 4 tokens, target_len is 3; raise target_len to 4"):
        read(data, 1, target_len=3)
    with pytest.raises(UserError, match="longest prompt has 1 tokens, prompt_len is 0"):
        read(data, 1, prompt_len=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start_example": 12}, "start example 12 is no multiple of the global batch 8"),
        ({"host_count": 3}, "global batch 8 does not divide among 3 hosts"),
        ({"host_index": 2, "host_count": 2}, "host 2 of 2"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(data, changes, message):
    with pytest.raises(UserError, match=message):
        read(data, 1, **changes)


def test_an_empty_split_is_refused(data, prepared):
    prepared(data, "empty", 0, files=0)
    with pytest.raises(UserError, match="holds no example"):
        read(data, 1, weights={"empty": 1})


def test_training_and_simulating_never_import_tensorflow():
    modules = "rt2_jax.data.inspect, rt2_jax.datasets.tabletop.demonstrations, rt2_jax.datasets.tabletop.build"
    code = f"import {modules}; import sys; print('tensorflow' in sys.modules, 'seqio' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.split() == ["False", "False"]
