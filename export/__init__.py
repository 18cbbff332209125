"""Artefacts for deployment, made from a run and verified: `python -m export`. Run from a checkout."""
