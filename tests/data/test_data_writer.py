"""What is written of frames and examples: each frame once, at one size, and what does not fit is named."""

import dataclasses
import json

import numpy as np
import pytest

from rt2_jax.data.frames import frames_folder, read_frames_index, source_digest
from rt2_jax.data.reader import PreparedSplit
from rt2_jax.data.records import prepared_dir
from rt2_jax.data.writer import Limits, SplitWriter, write_frames, write_split
from rt2_jax.errors import UserError
from rt2_jax.files.manifest import check_sealed
from rt2_jax.files.writing import seal
from rt2_jax.inputs.images import decode_image, encode_jpeg

TOKENS = np.array([5, 1], np.int32)


def picture(seed, height=8, width=8):
    return encode_jpeg(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def frames(data_dir, images, cameras=("image",), **options):
    sources = [dict.fromkeys(cameras, images)] if isinstance(images, list) else [images]
    return write_frames(data_dir, "mine", "train", cameras, sources, task="task", **options)


def split(data_dir, examples, cameras, **options):
    rows = [(images, TOKENS, TOKENS, "go") for images in examples]
    return write_split(data_dir, "task", "train", rows, cameras, vocabulary="v", **options)


def test_a_frame_is_stored_once_and_read_by_every_example_that_shows_it(tmp_path):
    images = [picture(seed) for seed in range(3)]
    known = frames(tmp_path, [images[0], images[1], images[0], b"", images[2], images[1]])
    assert known[0].index.num_frames == 3 and known[0].index.num_bytes == sum(map(len, images))
    index = split(tmp_path, [[image] for image in (images[2], images[0], images[2])], known)
    assert index.num_bytes < 3 * 100
    for (record, found), image in zip(PreparedSplit(tmp_path, "task", "train").read([0, 1, 2]), (2, 0, 2), strict=True):
        assert record.frames.tolist() == [image] and record.instruction == "go"
        assert np.array_equal(found, decode_image(images[image])[None])
    sealed = check_sealed(tmp_path / "prepared" / known[0].ref.folder, "prepared frames")
    assert sealed.identity == index.frames[0].identity


def test_frames_that_were_made_anew_otherwise_are_refused(tmp_path):
    images = [picture(seed) for seed in range(3)]
    split(tmp_path, [[images[0]]], frames(tmp_path, images))
    frames(tmp_path, images, overwrite=True)
    PreparedSplit(tmp_path, "task", "train")
    frames(tmp_path, images[:2], overwrite=True)
    with pytest.raises(UserError, match="its frames were made anew since task was prepared with them; run .*"):
        PreparedSplit(tmp_path, "task", "train")


@pytest.mark.parametrize("name", ["index.json", "sources.bin", "part-00000.array_record", "manifest.json", None])
def test_frames_that_are_lost_or_damaged_name_the_command(tmp_path, name):
    known = frames(tmp_path, [picture(0), picture(1)])
    split(tmp_path, [[picture(1)]], known)
    folder = tmp_path / "prepared" / known[0].ref.folder
    if name is None:
        folder.rename(folder.with_name("other"))
    else:
        (folder / name).write_bytes(b"\0" + (folder / name).read_bytes()[2:])
    with pytest.raises(UserError, match=r"frames/mine/train/image.*; run `rt2 data prepare --data .* --tasks task"):
        PreparedSplit(tmp_path, "task", "train")


def test_a_corrupt_frame_is_named(tmp_path):
    known = frames(tmp_path, [picture(0), picture(1)])
    split(tmp_path, [[picture(1)]], known)
    path = tmp_path / "prepared" / known[0].ref.folder / "part-00000.array_record"
    content = bytearray(path.read_bytes())
    content[content.index(picture(1)) + 30] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"part-00000.array_record: frame 1 is corrupt .*--tasks task --overwrite"):
        PreparedSplit(tmp_path, "task", "train").read([0])


def test_a_record_that_points_beyond_the_frames_is_named(tmp_path):
    known = frames(tmp_path, [picture(0), picture(1)])[0]
    numbers = {**known.numbers, source_digest(picture(2)): 2}
    split(tmp_path, [[picture(0)], [picture(2)]], [dataclasses.replace(known, numbers=numbers)])
    with pytest.raises(UserError, match=r"record 1 is corrupt \(it points at frames \[2\] of 2\); .*--tasks task"):
        PreparedSplit(tmp_path, "task", "train").read([0, 1])


def test_an_image_of_another_function_is_refused(tmp_path):
    known = frames(tmp_path, [picture(0)])
    with pytest.raises(UserError, match="image of camera image is not among prepared/frames/mine/train/image"):
        split(tmp_path, [[picture(1)]], known)
    assert not prepared_dir(tmp_path, "task", "train").exists()


def test_cameras_and_history_lie_side_by_side_and_what_is_younger_is_black(tmp_path):
    front, wrist = [picture(seed) for seed in range(3)], [picture(10 + seed) for seed in range(3)]
    known = frames(tmp_path, {"front": front, "wrist": wrist}, ("front", "wrist"))
    rows = [[b"", b"", front[0], wrist[0]], [front[0], wrist[0], front[1], wrist[1]]]
    index = split(tmp_path, rows, known, history=2)
    assert (index.num_images, index.history, [ref.camera for ref in index.frames]) == (4, 2, ["front", "wrist"])
    (young, shown), (record, other) = PreparedSplit(tmp_path, "task", "train").read([0, 1])
    assert young.frames.tolist() == [-1, -1, 0, 0] and record.frames.tolist() == [0, 0, 1, 1]
    assert not shown[:2].any()
    assert np.array_equal(shown[2:], other[:2]) and np.array_equal(other[3], decode_image(wrist[1]))


def test_a_history_longer_than_every_episode_is_refused(tmp_path):
    known = frames(tmp_path, [picture(0), picture(1)])
    with pytest.raises(UserError, match="task/train: history is 3 frames, its longest episode has 2; lower history to"):
        split(tmp_path, [[b"", b"", picture(0)], [b"", picture(0), picture(1)]], known, history=3)
    assert not prepared_dir(tmp_path, "task", "train").exists()


def test_every_frame_has_one_size(tmp_path):
    images = [picture(0, 12, 12), picture(1, 8, 20), picture(2, 12, 12)]
    known = frames(tmp_path, images)
    split(tmp_path, [[image] for image in images], known)
    found = PreparedSplit(tmp_path, "task", "train").read([0, 1, 2])
    assert all(pixels.shape == (1, 12, 12, 3) for _, pixels in found)
    with pytest.raises(UserError, match=r"task: frames are 20 x 8 pixels; give an image size \(--image-size\)"):
        frames(tmp_path, images[1:], overwrite=True)
    assert frames(tmp_path, images[1:], image_size=16, overwrite=True)[0].index.image_size == 16


def test_cameras_of_different_sizes_need_one(tmp_path):
    cameras = {"front": [picture(0)], "wrist": [picture(1, 6, 6)]}
    known = frames(tmp_path, cameras, ("front", "wrist"))
    with pytest.raises(UserError, match=r"its cameras' frames differ in size \(front 8, wrist 6 pixels\); give one"):
        split(tmp_path, [], known)


def test_another_number_of_images_is_refused(tmp_path):
    known = frames(tmp_path, [picture(0)])
    with pytest.raises(UserError, match="task: an example has 2 images, another 1; give all as many"):
        split(tmp_path, [[picture(0)] * 2], known)


@pytest.mark.parametrize("camera", ["", "a/b", "..", ".a", "a b", "x" * 101])
def test_a_camera_that_no_folder_can_have_is_refused(camera):
    with pytest.raises(UserError, match="rename it"):
        frames_folder("mine", "train", camera)


def test_a_slice_of_a_split_has_a_folder_of_its_own(tmp_path):
    names = {
        frames_folder("a/1.0.0", split, "image") for split in ("train", "train[:95%]", "train[95%:]", "train+test")
    }
    assert len(names) == 4 and all(name.count("/") == 3 for name in names)


def test_a_split_without_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="task: mine/train has no image of camera image; leave the split out"):
        frames(tmp_path, [])
    assert not (tmp_path / "prepared/frames/mine/train/image").exists()


@pytest.mark.parametrize("kept", [0, 20, -40])
def test_a_frame_that_breaks_off_is_found_when_it_is_prepared(tmp_path, kept):
    broken = picture(0, 16, 16)[:kept] or b"\0"
    with pytest.raises(UserError, match="task: an image does not decode .*; repair or drop it"):
        frames(tmp_path, [picture(1, 16, 16), broken])


def test_a_full_disk_is_told_in_one_line(tmp_path, monkeypatch):
    known = frames(tmp_path, [picture(0)])
    (tmp_path / "part-00000.array_record").symlink_to("/dev/full")
    writer = SplitWriter(tmp_path, "task", known, 1, Limits())
    writer.add([picture(0)], TOKENS, TOKENS)
    with pytest.raises(OSError, match="No space left on device"):
        writer.close("train", "")


def test_an_index_of_frames_that_means_nothing_is_refused(tmp_path):
    known = frames(tmp_path, [picture(0)])
    folder = tmp_path / "prepared" / known[0].ref.folder
    text = (folder / "index.json").read_text()
    for change in ({"num_frames": 2}, {"image_size": 0}, {"format": 2}, {"files": "x"}, {"more": 1}):
        (folder / "index.json").write_text(json.dumps(json.loads(text) | change))
        seal(folder, "prepared frames")
        with pytest.raises(UserError, match="index.json.*; again"):
            read_frames_index(folder, "again")
