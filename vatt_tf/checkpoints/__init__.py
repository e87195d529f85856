"""Checkpoints of runs and of other implementations."""
