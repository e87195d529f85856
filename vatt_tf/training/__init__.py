"""Tasks, optimizers and schedules, the training step and its loop."""
