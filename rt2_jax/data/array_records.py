"""ArrayRecord files that an index names: written one after the other, read at random. No TensorFlow."""

import pathlib
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from rt2_jax.errors import UserError, first_line

RECORDS_PER_FILE = 100_000
# One record a chunk: reading one at random reads no other. JPEG does not compress further.
_WRITER_OPTIONS = "group_size:1,uncompressed"


class RecordsWriter:
    """Writes records to ``part-00000.array_record`` and so on, at most `RECORDS_PER_FILE` in each.

    Attributes:
        files: (file name, records) so far, in order.
        num_bytes: of all records so far.
    """

    def __init__(self, folder: pathlib.Path):
        self.files: tuple[tuple[str, int], ...] = ()
        self.num_bytes = 0
        self._folder = folder
        self._writer: ArrayRecordWriter | None = None

    def add(self, data: bytes) -> None:
        """Writes one record.

        Raises:
            OSError: the disk refuses it.
        """
        writer = self._writer
        if writer is None or self.files[-1][1] == RECORDS_PER_FILE:
            writer = self._next_file()
        try:
            writer.write(data)
        except (RuntimeError, ValueError) as error:
            raise OSError(str(error)) from error
        self.files = (*self.files[:-1], (self.files[-1][0], self.files[-1][1] + 1))
        self.num_bytes += len(data)

    def close(self) -> None:
        """Finishes the last file.

        Raises:
            OSError: the disk refuses it.
        """
        if self._writer is None:
            return
        try:
            self._writer.close()
        except (RuntimeError, ValueError) as error:
            raise OSError(str(error)) from error

    def _next_file(self) -> ArrayRecordWriter:
        self.close()
        name = f"part-{len(self.files):05d}.array_record"
        try:
            self._writer = writer = ArrayRecordWriter(str(self._folder / name), _WRITER_OPTIONS)
        except (RuntimeError, ValueError) as error:
            raise OSError(str(error)) from error
        self.files = (*self.files, (name, 0))
        return writer


class RecordsReader:
    """Random access to the records of such files."""

    def __init__(self, folder: pathlib.Path, files: Sequence[tuple[str, int]], fix: str, noun: str = "record"):
        """Opens them.

        Args:
            folder: that holds them.
            files: (file name, records) as an index has them.
            fix: what makes them anew, for messages.
            noun: what one of them is, for messages.

        Raises:
            UserError: a file cannot be read, or holds another number of records.
        """
        self._paths = [folder / name for name, _ in files]
        self._ends = np.cumsum([count for _, count in files], dtype=np.int64)
        self._fix, self._noun = fix, noun
        for path, (_, count) in zip(self._paths, files, strict=True):
            try:
                found = len(_opened([path]))
            except (RuntimeError, ValueError, OSError) as error:
                raise UserError(f"{path} cannot be read ({first_line(error)}); {fix}") from error
            if found != count:
                raise UserError(f"{path} holds {found} {noun}s, its index says {count}; {fix}")
        self._source: Any = _opened(self._paths) if files else None

    def read(self, keys: Sequence[int]) -> list[bytes]:
        """The records numbered `keys`.

        Raises:
            UserError: one is corrupt; the file and the record's number in it are named.
        """
        try:
            return self._source.__getitems__(keys)
        except (RuntimeError, ValueError, OSError):
            # One bad record fails the whole read: read again one by one to name it.
            return [self._read_one(key) for key in keys]

    def corrupt(self, key: int, error: Exception) -> UserError:
        """The error that says which record is corrupt."""
        file = int(np.searchsorted(self._ends, key, side="right"))
        place = key - (int(self._ends[file - 1]) if file else 0)
        return UserError(f"{self._paths[file]}: {self._noun} {place} is corrupt ({first_line(error)}); {self._fix}")

    def _read_one(self, key: int) -> bytes:
        try:
            return self._source[key]
        except (RuntimeError, ValueError, OSError) as error:
            raise self.corrupt(key, error) from error


def _opened(paths: Sequence[pathlib.Path]) -> Any:
    """Grain's source of the files' records; its declared type leaves out its length and the reading of several."""
    return grain.sources.ArrayRecordDataSource([str(path) for path in paths])
