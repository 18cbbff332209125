"""Exports a run's generator to a LiteRT file: `python -m export.tflite --run=RUN --out=FILE.tflite`.

The branches are folded, the variables frozen, and the result is run beside the Keras model on pictures of several sizes
before it gets its name: a conversion can lose the weights without an error.
"""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from keras_deartifact import engines, models  # noqa: F401  (registers the generators)

FLAGS = flags.FLAGS

_TOLERANCE = 1e-5
_SIZES = ((1, 16, 16), (2, 48, 80), (1, 256, 176))


def convert(generator: keras.Model) -> bytes:
    """Returns a LiteRT model of a built generator, float32, for any size and batch.

    Its inputs are `images` and `quantiser_map`, as the generator takes them.
    """
    folded = generator.fold() if hasattr(generator, "fold") else generator

    @tf.function
    def restore(images: tf.Tensor, quantiser_map: tf.Tensor) -> tf.Tensor:
        return folded((images, quantiser_map), training=False)

    concrete = restore.get_concrete_function(
        tf.TensorSpec((None, None, None, generator.channels), tf.float32, "images"),
        tf.TensorSpec((None, None, None, 1), tf.float32, "quantiser_map"),
    )
    # Not frozen, the file has no weights where the model is a Keras one, and misses the fast kernels.
    frozen = convert_variables_to_constants_v2(concrete)
    return tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert()


def parity(generator: keras.Model, file: Path) -> float:
    """Returns the largest difference between a file and its Keras model, over several sizes, in intensity."""
    restorer = engines.load(file)
    rng = np.random.default_rng(0)
    worst = 0.0
    for count, height, width in _SIZES:
        images = rng.random((count, height, width, generator.channels), np.float32)
        # What is luma to a network of one channel is a grey picture to its restorer.
        frames = np.broadcast_to(images, (count, height, width, 3))
        quantiser_map = rng.uniform(0.0, 7.0, (count, height // 16, width // 16)).astype(np.float32)
        expected = np.asarray(generator((images, quantiser_map[..., None]), training=False))
        if np.abs(expected - images).max() < 1e-4:
            raise ValueError("The generator changes nothing: there is nothing that a comparison could show.")
        worst = max(worst, float(np.abs(restorer(frames, quantiser_map) - expected).max()))
    return worst


def export(run: Path, out: Path) -> float:
    """Writes `out` and returns its parity.

    Raises:
        ValueError: the run has no generator, or the result differs from it; nothing is left in place then.
    """
    source = run / "generator.keras"
    if not source.exists():
        raise ValueError(f"There is no {source}: train first, or give the run's folder.")
    generator = keras.models.load_model(source, compile=False)
    partial = out.with_name(f"partial-{out.name}")
    try:
        partial.write_bytes(convert(generator))
        difference = parity(generator, partial)
        if not difference <= _TOLERANCE:
            raise ValueError(f"The LiteRT model differs from the Keras model by {difference:.2g} > {_TOLERANCE:g}.")
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return difference


def main(argv: list[str]) -> None:
    """Exports what the flags say."""
    del argv
    out = Path(FLAGS.out)
    try:
        difference = export(Path(FLAGS.run), out)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{out}: {out.stat().st_size} bytes, differs from Keras by at most {difference:.2g}")


def define_flags() -> None:
    """Defines the flags. Not at import: programs share names of flags, and tests import several programs."""
    flags.DEFINE_string("run", None, "Folder of the run, which holds generator.keras.", required=True)
    flags.DEFINE_string("out", None, "The file to write.", required=True)


if __name__ == "__main__":
    define_flags()
    app.run(main)
