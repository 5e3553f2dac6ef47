"""Examples a second that the reader gives, of all prepared tasks alike, with their frames decoded.

PYTHONPATH=. python benchmarks/reader_speed.py --data runs/demo/data
"""

import argparse
import time

from rt2_jax.data.reader import make_reader
from rt2_jax.data.records import prepared_tasks


def main() -> None:
    """Prints one line a repetition: examples a second by the clock, and milliseconds of the processors for one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder with prepared data")
    parser.add_argument("--batches", type=int, default=200, help="of 64 examples, in each repetition (default 200)")
    parser.add_argument("--repetitions", type=int, default=3, help="(default 3)")
    arguments = parser.parse_args()
    tasks = prepared_tasks(arguments.data)
    for seed in range(arguments.repetitions):
        with make_reader(arguments.data, dict.fromkeys(tasks, 1.0), "train", 64, seed, 512, 1024) as reader:
            next(reader)
            clock, processors = time.perf_counter(), time.process_time()
            for _ in range(arguments.batches):
                next(reader)
            clock, processors = time.perf_counter() - clock, time.process_time() - processors
        count = 64 * arguments.batches
        print(f"{count / clock:,.0f} examples/s, {1e3 * processors / count:.3f} ms of processor an example")


if __name__ == "__main__":
    main()
