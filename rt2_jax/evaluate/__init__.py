"""Closed loop and held-out metrics: what a checkpoint can do, and what it forgot.

`env` says what an environment is; `tabletop_env` alone needs the [sim] extra.
"""
