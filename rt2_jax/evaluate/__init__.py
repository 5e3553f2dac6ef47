"""Closed loop and held-out metrics: what a checkpoint can do, and what it forgot.

`closed_loop` needs the [sim] extra, nothing else here does.
"""
