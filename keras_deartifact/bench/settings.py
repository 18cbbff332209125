"""How much is measured, and of what size."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["CRF", "QUICK", "SIZES", "STANDARD", "Settings"]

SIZES = ((1280, 720), (1920, 1080))
"""Width and height in pixels."""

CRF = 30
"""Of the clip that is decoded and restored."""


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        sizes: `(width, height)` in pixels, even and at least 16.
        rounds: of everything that takes turns.
        seconds: about how long each of them is timed, over all rounds; every round runs it once at least.
        settle: seconds at the start of each turn that are not timed. OpenBLAS's threads spin for about 2^26 ticks,
            0.03 s.
        clip_frames: length of the clip; what encoding is timed on is held in memory.
        matrix_side: of the matrices in the product.
        run_rounds: of the whole runs.
    """

    sizes: Sequence[tuple[int, int]] = SIZES
    rounds: int = 7
    seconds: float = 3.0
    settle: float = 0.1
    clip_frames: int = 39
    matrix_side: int = 2048
    run_rounds: int = 3


STANDARD = Settings()

QUICK = Settings(sizes=((88, 56),), rounds=1, seconds=0.0, settle=0.0, clip_frames=4, matrix_side=128, run_rounds=1)
"""Shows that all of it works; its numbers mean nothing."""
