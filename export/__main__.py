"""Exports a generator for deployment: `python -m export --run=RUN --out=ARTEFACT --formats=saved_model,tflite,onnx`.

RUN is a run's folder, a .keras file or a shipped model's name. Every artefact is run beside the Keras model on real
pictures (`verify.py`), and the folder ARTEFACT appears only when all of them agree:

    ARTEFACT/saved_model/1               for TensorFlow Serving (saved_model.py)
    ARTEFACT/onnx/model*.onnx            float32 and float16
    ARTEFACT/tflite/model.*.tflite       every precision, for any size, and with --tile for one size
    ARTEFACT/manifest.json               what each is, its sha256, and how far it is from the Keras model
"""

from pathlib import Path

from absl import app, flags, logging

from export import artefacts, tflite
from keras_deartifact import console

FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Exports what the flags say."""
    del argv
    folder = None if FLAGS.pictures is None else Path(FLAGS.pictures)
    out = Path(FLAGS.out)
    # The converters tell of every step.
    logging.set_verbosity(logging.ERROR)
    try:
        artefacts.export(FLAGS.run, out, FLAGS.formats, folder, FLAGS.tile, FLAGS.precisions, FLAGS.overwrite, print)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {console.sentence(error)}") from error


def define_flags() -> None:
    """Defines the flags. Not at import: programs share names of flags, and tests import several programs."""
    flags.DEFINE_string(
        "run", None, "A run's folder with generator.keras, a .keras file, or a shipped model's name.", required=True
    )
    flags.DEFINE_string("out", None, "The folder to write.", required=True)
    flags.DEFINE_list("formats", list(artefacts.FORMATS), f"Of {', '.join(artefacts.FORMATS)}.")
    flags.DEFINE_list("precisions", list(tflite.PRECISIONS), f"Of LiteRT: {', '.join(tflite.PRECISIONS)}.")
    flags.DEFINE_string("pictures", None, "Folder of pictures to measure on; the packaged demo's clip by default.")
    flags.DEFINE_integer("tile", None, "Also write LiteRT models for squares of this side, a multiple of 16.")
    flags.DEFINE_bool("overwrite", False, "Replace an older export.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
