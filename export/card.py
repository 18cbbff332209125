"""Writes a shipped model's card: `python -m export.card --run=RUN --model=FILE.tflite --evaluation=FILE.json`.

The card lies beside the model, with the ending .json: what the model is, how it was trained and what it measured, so
that the numbers travel with the file that they are about.
"""

import json
from pathlib import Path

from absl import app, flags

from export.networks import load_network
from keras_deartifact import complexity, engines, models

FLAGS = flags.FLAGS


def make_card(run: Path, model: Path, evaluation: Path, description: str, training_data: str) -> dict[str, object]:
    """Returns the card's content as plain values.

    Raises:
        ValueError: the evaluation is of another file.
    """
    digest = engines.digest(model)
    measured = json.loads(evaluation.read_text())
    digests = measured.get("sha256")
    if digest not in (digests.values() if isinstance(digests, dict) else [digests]):
        raise ValueError(f"{evaluation} holds the figures of another file than {model}: evaluate this one.")
    network, _ = load_network(run)
    takes_map = not isinstance(network, models.QualityPredictor)
    return {
        "name": model.stem,
        "description": description,
        "sha256": digest,
        "size_bytes": model.stat().st_size,
        "parameters": complexity.parameters(network.fold() if hasattr(network, "fold") else network),
        "multiply_accumulates_720p": complexity.multiply_accumulates(network, takes_map=takes_map),
        "training_data": training_data,
        "steps": json.loads((run / "progress.json").read_text())["step"],
        **json.loads((run / "config.json").read_text()),
        # The single pictures' figures stay where they are.
        "measured": {name: value for name, value in measured.items() if name != "records"},
    }


def main(argv: list[str]) -> None:
    """Writes the card that the flags ask for."""
    del argv
    model = Path(FLAGS.model)
    try:
        card = make_card(Path(FLAGS.run), model, Path(FLAGS.evaluation), FLAGS.description, FLAGS.training_data)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    target = model.with_suffix(".json")
    target.write_text(json.dumps(card, indent=2) + "\n")
    print(f"{target}: {card['parameters']} parameters, {card['multiply_accumulates_720p'] / 1e9:.2f} GMAC at 720p")


def define_flags() -> None:
    """Defines the flags. Not at import: programs share names of flags, and tests import several programs."""
    flags.DEFINE_string("run", None, "Folder of the run that the model was exported from.", required=True)
    flags.DEFINE_string("model", None, "The exported .tflite file.", required=True)
    flags.DEFINE_string(
        "evaluation",
        None,
        "Figures of the model, from training.evaluate or training.evaluate_predictor, with --json.",
        required=True,
    )
    flags.DEFINE_string("description", None, "What the model is for, in a line.", required=True)
    flags.DEFINE_string("training_data", None, "What it was trained on, in a line.", required=True)


if __name__ == "__main__":
    define_flags()
    app.run(main)
