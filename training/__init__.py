"""Training runs: `python -m training.prepare_video`, then `python -m training.train`. Run from a checkout."""
