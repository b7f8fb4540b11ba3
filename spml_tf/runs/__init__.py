"""Training runs: their folders, settings, checkpoints, recorders, and groups of them."""
