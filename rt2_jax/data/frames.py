"""Frames as they are stored: each frame of a dataset's split and camera once, at one size. No TensorFlow.

Layout: ``<data_dir>/prepared/frames/<dataset>/<split>/<camera>/`` holds ``part-00000.array_record`` ..., one encoded
frame (JPEG) an entry, ``sources.bin``, ``index.json`` and the ``manifest.json`` that seals them. Examples of any task
point at frames by their numbers.
"""

import dataclasses
import hashlib
import json
import pathlib
import re
import urllib.parse
from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np

from rt2_jax.data.array_records import RecordsReader
from rt2_jax.data.sealed import read_sealed
from rt2_jax.errors import UserError
from rt2_jax.files.manifest import read_manifest
from rt2_jax.inputs.images import decode_image
from rt2_jax.typed import Count, build, check_fields, shown

FORMAT = 1
KIND = "prepared frames"
INDEX_NAME = "index.json"
# What each frame was made from: `source_digest` of its encoded bytes, one after the other.
SOURCES_NAME = "sources.bin"
DIGEST_BYTES = 16
# The folder below ``prepared``; no task may have this name.
FOLDER = "frames"
Size = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
_CAMERA = re.compile(r"\w[\w.-]{0,99}")


@dataclasses.dataclass(frozen=True)
class FramesRef:
    """The frames that a task's examples point at, of one camera.

    Attributes:
        camera: its name.
        folder: of the frames, below ``prepared``, with slashes.
        identity: of the folder's manifest: frames that were made otherwise since are not these.
    """

    camera: str
    folder: str
    identity: str

    def __post_init__(self) -> None:
        check_fields(self, "frames")
        parts = self.folder.split("/")
        if len(parts) != 4 or parts[0] != FOLDER or not {"", ".", ".."}.isdisjoint(parts):
            raise UserError(f"frames: folder is {shown(self.folder)}, needs {FOLDER}/dataset/split/camera")


@dataclasses.dataclass(frozen=True)
class FramesIndex:
    """What ``index.json`` says of one folder of frames.

    Attributes:
        dataset, split, camera: whose frames they are; `split` is TFDS's, a slice as it may be.
        num_frames: frames in all files together.
        files: (file name, frames), in order; frame number n counts through them.
        image_size: side of the frames in pixels.
        num_bytes: of all frames.
        source: SHA-256 of the dataset's own description, "" where the source has none.
    """

    dataset: str
    split: str
    camera: str
    num_frames: Size
    files: tuple[tuple[str, Size], ...]
    image_size: Count
    num_bytes: Size
    source: str = ""

    def __post_init__(self) -> None:
        check_fields(self, f"index of the frames of {shown(self.dataset)}/{shown(self.split)}")
        in_files = sum(count for _, count in self.files)
        if in_files != self.num_frames:
            raise UserError(
                f"frames of {self.dataset}/{self.split}: num_frames is {self.num_frames}, files hold {in_files}"
            )


def frames_folder(dataset: str, split: str, camera: str) -> str:
    """The folder of a camera's frames, below ``prepared``, with slashes.

    Raises:
        UserError: a camera's name that no folder can have.
    """
    if not _CAMERA.fullmatch(camera):
        raise UserError(f"camera {shown(camera)}: a name has letters, digits, '_', '.' or '-'; rename it")
    return "/".join([FOLDER, *(urllib.parse.quote(part, safe="[:%]") for part in (dataset, split)), camera])


def source_digest(data: bytes) -> bytes:
    """What an encoded frame is recognised by: 16 bytes of its SHA-256."""
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]


def frames_index_to_json(index: FramesIndex) -> str:
    """The text of ``index.json``."""
    return json.dumps({"format": FORMAT, **dataclasses.asdict(index)}, indent=2) + "\n"


def read_frames_index(folder: pathlib.Path, fix: str) -> tuple[FramesIndex, str]:
    """A folder's index, once its bytes are those that were sealed, and the folder's identity.

    Raises:
        UserError: not there, not whole, of another format or damaged; ends in `fix`.
    """
    fields = read_sealed(folder, KIND, INDEX_NAME, FORMAT, fix)
    try:
        index = build(FramesIndex, fields, str(folder / INDEX_NAME))
    except UserError as error:
        raise UserError(f"{folder / INDEX_NAME} is damaged ({error}); {fix}") from error
    manifest = read_manifest(folder)
    return index, manifest.identity if manifest else ""


class FramesReader:
    """Random access to the frames that a task's examples point at.

    Attributes:
        index: of their folder.
    """

    def __init__(self, prepared: pathlib.Path, ref: FramesRef, task: str, fix: str):
        """Opens ``<prepared>/<ref.folder>``; `task` points at it, and `fix` makes both anew.

        Raises:
            UserError: the frames are not there, damaged, or not those that the task was prepared with.
        """
        folder = prepared / ref.folder
        if not folder.is_dir():
            raise UserError(f"{folder}, the frames of {task}, is missing; {fix}")
        self.index, identity = read_frames_index(folder, fix)
        if identity != ref.identity:
            raise UserError(f"{folder}: its frames were made anew since {task} was prepared with them; {fix}")
        self._records = RecordsReader(folder, self.index.files, fix, "frame")

    def read(self, numbers: Sequence[int]) -> list[np.ndarray]:
        """The frames of these numbers, decoded: uint8[size, size, 3] each.

        Raises:
            UserError: a frame is corrupt.
        """
        return [self._decoded(*pair) for pair in zip(numbers, self._records.read(numbers), strict=True)]

    def _decoded(self, number: int, data: bytes) -> np.ndarray:
        wanted = (self.index.image_size, self.index.image_size, 3)
        try:
            frame = decode_image(data)
            if frame.shape != wanted:
                raise ValueError(f"it has shape {frame.shape}, the index says {wanted}")
        except (ValueError, UserError) as error:
            raise self._records.corrupt(number, error) from error
        return frame
