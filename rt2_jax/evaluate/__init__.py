"""Closed loop, held-out metrics and the report: what a checkpoint can do, and what it forgot.

`run.evaluate` does all of it; `closed_loop` needs the [sim] extra, nothing else here does.
"""
