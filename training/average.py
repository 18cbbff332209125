"""Weights between a network and one that was trained on from it.

    python -m training.average --start=FILE.keras --run=RUN --share=0.65 --out=RUN

    weights = (1 - share) weights_start + share weights_run

What training on new pictures costs on the old ones is mostly won back on the way, what it gained is mostly there
already: between the two lies a network that is nearly as good as the better one on either. `--out` becomes a run that
`export` takes; its `config.json` says what it was made of.

Reference: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022.
"""

import json
from pathlib import Path

import keras
from absl import app, flags

from keras_deartifact import models
from training.runs import start_record, take_over

FLAGS = flags.FLAGS


def average(start: Path, run: Path, share: float, out: Path) -> None:
    """Writes the network between two as a run's folder.

    Args:
        start: .keras file of the network that the run began with, folded or not.
        run: folder of the run.
        share: of the run's weights, 0 to 1.
        out: folder to write, which must not exist.

    Raises:
        ValueError: a network is missing or damaged, they are no generators of one architecture, or the share is out of
            range.
        OSError: a record of the run is missing, or `out` exists.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"Expected a share of 0 to 1. Received: share={share}")
    record = json.loads((run / "config.json").read_text())
    progress = (run / "progress.json").read_bytes()
    record["averaged"] = {**(start_record(start) or {}), "share": share}
    network = keras.models.load_model(run / "generator.keras", compile=False)
    first = keras.models.load_model(start, compile=False)
    if isinstance(network, models.QualityPredictor):
        raise ValueError(f"Expected a generator's run. Received: a quality predictor's, {run}")
    learnt = network.get_weights()
    # Branches that fold into one kernel are linear in it, so that they may be averaged one by one.
    take_over(first, network)
    network.set_weights(
        [(1 - share) * old + share * new for old, new in zip(network.get_weights(), learnt, strict=True)]
    )
    out.mkdir(parents=True)
    network.save(out / "generator.keras")
    (out / "config.json").write_text(json.dumps(record, indent=2) + "\n")
    (out / "progress.json").write_bytes(progress)


def main(argv: list[str]) -> None:
    """Writes what the flags ask for."""
    del argv
    try:
        average(Path(FLAGS.start), Path(FLAGS.run), FLAGS.share, Path(FLAGS.out))
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{FLAGS.out}: {FLAGS.share:g} of {FLAGS.run}, {1 - FLAGS.share:g} of {FLAGS.start}")


def define_flags() -> None:
    """Defines the flags. Not at import: programs share names of flags, and tests import several programs."""
    flags.DEFINE_string("start", None, "The .keras file that the run began with.", required=True)
    flags.DEFINE_string("run", None, "Folder of the run.", required=True)
    flags.DEFINE_float("share", 0.5, "Of the run's weights.", lower_bound=0.0, upper_bound=1.0)
    flags.DEFINE_string("out", None, "Folder for the network between them; must not exist.", required=True)


if __name__ == "__main__":
    define_flags()
    app.run(main)
