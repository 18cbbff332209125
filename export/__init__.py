"""Artefacts for deployment, made from a run: `python -m export.tflite`. Run from a checkout."""
