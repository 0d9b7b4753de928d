"""Training, and what every training stands on: pixels, settings, schedules, checkpoints, run folders, signals, processes."""
