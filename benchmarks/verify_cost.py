"""What verification costs: loading the shipped bundles with and without it, and its rate over a large folder.

    python benchmarks/verify_cost.py
    python benchmarks/verify_cost.py --gigabytes 11     # the bytes of a 5B bundle in bfloat16, as random files

Loads alternate, verified and not, in one process after a first load that compiles; the table gives medians. The rate is
over files just written, so it is the processor's where they fit the page cache, and the disk's where they do not.
"""

import argparse
import os
import pathlib
import statistics
import tempfile
import time

from rich.console import Console
from rich.table import Table

from rt2_jax.bundle.store import load_bundle, open_folder
from rt2_jax.files.manifest import find_damage, read_manifest
from rt2_jax.files.writing import seal

CHECKPOINTS = pathlib.Path(__file__).parents[1] / "data" / "checkpoints"
FILE_BYTES = 1 << 30  # Orbax's data files have two of these at most
BLOCK = 16 << 20


def timed(function, *arguments, **options) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - began


def shipped(repeats: int, console: Console) -> None:
    """The shipped bundles: verified and not, in turn."""
    table = Table("bundle", "MB", "verified s", "not s", "more s", "of it hashing s")
    for folder in sorted(path.parent for path in CHECKPOINTS.glob("*/bundle.json")):
        load_bundle(folder)
        rows = [
            (timed(load_bundle, folder), timed(load_bundle, folder, verify=False), timed(open_folder, folder))
            for _ in range(repeats)
        ]
        verified, trusted, opened = (statistics.median(column) for column in zip(*rows, strict=True))
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
        numbers = (f"{value:.3f}" for value in (verified, trusted, verified - trusted, opened))
        table.add_row(folder.name, f"{size:.1f}", *numbers)
    console.print(table)


def large(gigabytes: float, folder: pathlib.Path, console: Console) -> None:
    """Writes random files of so many bytes, seals them, and verifies them; they go again."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="rt2-verify-") as name:
        root, left, number = pathlib.Path(name), int(gigabytes * 1e9), 0
        began = time.perf_counter()
        while left > 0:
            with (root / f"data-{number:05d}").open("wb") as file:
                for _ in range(min(left, FILE_BYTES) // BLOCK + 1):
                    file.write(os.urandom(BLOCK))
            left, number = left - FILE_BYTES, number + 1
        wrote = time.perf_counter() - began
        sealed = timed(seal, root, "bundle")
        manifest = read_manifest(root)
        drop_cache(root)
        cold = timed(find_damage, root, manifest)
        read = timed(read_all, root)
        size = manifest.num_bytes / 1e9
        console.print(
            f"{size:.1f} GB in {number} files: written in {wrote:.0f} s, sealed in {sealed:.1f} s "
            f"({size / sealed:.2f} GB/s), verified in {cold:.1f} s ({size / cold:.2f} GB/s); "
            f"reading alone, by one thread: {read:.1f} s ({size / read:.2f} GB/s)"
        )


def read_all(root: pathlib.Path) -> None:
    """Reads every file, from the disk where its pages can be dropped."""
    drop_cache(root)
    for path in sorted(root.iterdir()):
        with path.open("rb") as file:
            while file.read(BLOCK):
                pass


def drop_cache(root: pathlib.Path) -> None:
    """Asks the kernel to forget the files' pages, so that the next read is the disk's."""
    for path in root.iterdir():
        number = os.open(path, os.O_RDONLY)
        os.fsync(number)
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(number)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="loads of each bundle (default 7)")
    parser.add_argument("--gigabytes", type=float, default=0.0, help="size of the large folder (default: none)")
    parser.add_argument("--folder", type=pathlib.Path, default=None, help="where it is written (default: temporary)")
    arguments = parser.parse_args()
    console = Console()
    shipped(arguments.repeats, console)
    if arguments.gigabytes:
        large(arguments.gigabytes, arguments.folder, console)


if __name__ == "__main__":
    main()
