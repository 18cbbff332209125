"""Both networks that a restoration needs."""

import numpy as np

from keras_deartifact import console, engines
from keras_deartifact.engines.restorer import Predictor, Restorer
from keras_deartifact.engines.serving import Server


def load_both(
    model: str,
    engine: str = "auto",
    threads: int | None = None,
    provider: str | None = None,
    server: Server | None = None,
    perception: float = 0.0,
) -> tuple[Restorer, Predictor]:
    """Loads a model and the quality predictor, and runs both once: what an engine says then on its own is not shown.

    Args:
        model: see `load`.
        engine: likewise.
        threads: of each.
        provider: see `load`.
        server: likewise.
        perception: likewise.

    Raises:
        ValueError: see `load`.
    """
    # Engines run for the first time when they are measured.
    with console.silenced():
        restorer = engines.load(model, engine, threads, provider, server, perception)
        predictor = engines.load_predictor(threads=threads)
        height, width = getattr(restorer, "tile", None) or (32, 32)
        frames = np.zeros((1, height, width, 3), np.float32)
        restorer(frames, predictor(frames))
    return restorer, predictor
