"""Closed loop, offline metrics and the report."""
