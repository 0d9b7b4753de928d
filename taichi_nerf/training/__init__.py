"""Training: from pictures in memory to batches of rays."""
