"""Exports a quality predictor to a LiteRT file: `python -m export.predictor --run=RUN --out=FILE`.

The file is run beside the Keras model, on compressed pictures of several sizes, before it gets its name.
"""

from pathlib import Path

import keras
import numpy as np
from absl import app, flags

from export import networks, tflite
from keras_deartifact import codecs, engines, image, models

FLAGS = flags.FLAGS

LARGEST_DIFFERENCE = 1e-4
"""In log2 steps."""

_SIZES = ((1, 16, 16), (2, 48, 80), (1, 256, 176))


def parity(predictor: keras.Model, file: Path) -> float:
    """Returns the largest difference between a file and its Keras model, over several sizes, in log2 steps."""
    predict = engines.load_predictor(file)
    rng = np.random.default_rng(0)
    worst, told = 0.0, []
    for (count, height, width), quality in zip(_SIZES, (10, 40, 80), strict=True):
        # Smooth in places and noisy in others, and compressed: combs and edges are to be found.
        fine = rng.normal(0.0, 40.0, (count, height, width, 3)) * rng.random((count, height, width, 1)) ** 4
        coarse = rng.integers(0, 256, (count, height // 16, width // 16, 3)).repeat(16, axis=1).repeat(16, axis=2)
        frames = np.clip(np.rint(coarse + fine), 0, 255).astype(np.uint8)
        frames = image.to_float(codecs.jpeg(frames, quality).frames)
        expected = np.asarray(predictor(frames, training=False))[..., 0]
        worst = max(worst, float(np.abs(predict(frames) - expected).max()))
        told.append(expected.ravel())
    if np.ptp(np.concatenate(told)) < 1e-2:
        raise ValueError("The predictor says the same of everything: there is nothing that a comparison could show.")
    return worst


def export(source: str | Path, out: Path) -> float:
    """Writes `out` and returns its parity.

    Args:
        source: a run's folder or a .keras file.
        out: the file to write.

    Raises:
        ValueError: there is no quality predictor, or the result differs from it; nothing is left in place then.
    """
    predictor, path = networks.load_network(source)
    if not isinstance(predictor, models.QualityPredictor):
        raise ValueError(f"{path} holds a generator, not a quality predictor: python -m export")
    partial = out.with_name(f"partial-{out.name}")
    try:
        partial.write_bytes(tflite.convert(predictor))
        difference = parity(predictor, partial)
        if not difference <= LARGEST_DIFFERENCE:
            raise ValueError(
                f"The LiteRT model differs from the Keras model by {difference:.2g} > {LARGEST_DIFFERENCE:g}."
            )
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return difference


def main(argv: list[str]) -> None:
    """Exports what the flags say."""
    del argv
    out = Path(FLAGS.out)
    try:
        difference = export(FLAGS.run, out)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{out}: {out.stat().st_size} bytes, differs from Keras by at most {difference:.2g}")


def define_flags() -> None:
    """Defines the flags. Not at import: programs share names of flags, and tests import several programs."""
    flags.DEFINE_string("run", None, "Folder of the run, which holds predictor.keras, or a .keras file.", required=True)
    flags.DEFINE_string("out", None, "The file to write.", required=True)


if __name__ == "__main__":
    define_flags()
    app.run(main)
