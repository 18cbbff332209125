"""A run: its folder, its learning rate, its epochs. What is trained does not matter here."""

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_deartifact.models import ShuffleGenerator
from keras_deartifact.models.growth import grow
from keras_deartifact.trainer import Trainer
from training import callbacks, distribution
from training.configs import PredictorConfig, TrainConfig
from training.datasets import VALIDATION_BATCHES

__all__ = ["epochs_done", "fit", "open_run", "schedule", "start_record", "take_over"]


def open_run(run: Path, record: dict[str, Any], writes: bool = True) -> Path | None:
    """Makes the run's folder with its `config.json`, and returns the checkpoint to go on from, if there is one.

    Args:
        run: the folder.
        record: what makes it this run.
        writes: False for the workers that leave that to the first.

    Raises:
        ValueError: the folder holds a run with another configuration, other data or other weights.
    """
    run.mkdir(parents=True, exist_ok=True)
    wanted = json.dumps(record, indent=2, default=list)
    file = run / "config.json"
    if file.exists() and file.read_text() != wanted:
        before, now = json.loads(file.read_text()), json.loads(wanted)
        parts = ", ".join(sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key)))
        raise ValueError(f"{run} holds a run with another {parts} ({file}). Choose another --run.")
    if writes and not file.exists():
        callbacks.replace_file(file, lambda path: path.write_text(wanted))
    checkpoint = run / callbacks.CHECKPOINT
    return checkpoint if checkpoint.exists() else None


def start_record(start: Path | None) -> dict[str, str] | None:
    """Returns what a run keeps of the file that its network starts from.

    Raises:
        ValueError: there is no such file.
    """
    if start is None:
        return None
    if not start.exists():
        raise ValueError(f"There is no network to start from: {start}")
    return {"file": start.name, "sha256": hashlib.sha256(start.read_bytes()).hexdigest()}


def take_over(start: keras.Model, network: keras.Model) -> None:
    """Gives a network the weights of another; a larger `shuffle` generator begins as a smaller one, see `growth.grow`.

    Raises:
        ValueError: they are of different architectures.
    """
    wanted, found = (
        {name: value for name, value in model.get_config().items() if name not in ("name", "dtype", "trainable")}
        for model in (network, start)
    )
    if type(start) is type(network) and wanted == found:
        network.set_weights(start.get_weights())
    elif isinstance(start, ShuffleGenerator) and isinstance(network, ShuffleGenerator):
        grow(network, start)
    else:
        raise ValueError(
            f"Expected a network to start from of the same architecture, {type(network).__name__} {wanted}. "
            f"Received: {type(start).__name__} {found}"
        )


def schedule(config: TrainConfig | PredictorConfig, peak: float) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns the learning rate: from 0 to its peak along a line, then down along a cosine."""
    return keras.optimizers.schedules.CosineDecay(
        0.0,
        config.steps - config.warmup_steps,
        alpha=config.final_learning_rate / config.learning_rate,
        warmup_target=peak,
        warmup_steps=config.warmup_steps,
    )


def epochs_done(model: Trainer, config: TrainConfig | PredictorConfig) -> int:
    """Returns the epoch to go on with."""
    return int(model.step.numpy()) // config.steps_per_epoch


def fit(
    model: Trainer,
    datasets: tuple[tf.data.Dataset, tf.data.Dataset],
    config: TrainConfig | PredictorConfig,
    run: Path,
    strategy: tf.distribute.Strategy,
    histograms: bool = False,
    more: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Trains to the end, keeping the run's state after every epoch.

    Args:
        model: compiled, with the state to go on from.
        datasets: training, from that state's epoch on, and validation.
        config: the steps.
        run: the run's folder.
        strategy: of `distribution.make_strategy`.
        histograms: of every weight, in TensorBoard.
        more: callbacks of the first worker.

    Raises:
        FloatingPointError: the loss is no number any more; the last good checkpoint is kept.
    """
    training, validation = datasets
    distribution.make_fit_work(model)
    chief = distribution.is_chief(strategy)
    model.fit(
        distribution.share(training),
        epochs=-(-config.steps // config.steps_per_epoch),
        initial_epoch=epochs_done(model, config),
        steps_per_epoch=config.steps_per_epoch,
        shuffle=False,
        validation_data=distribution.share(validation),
        validation_steps=VALIDATION_BATCHES,
        verbose=(1 if sys.stdout.isatty() else 2) if chief else 0,
        callbacks=[
            callbacks.StopOnNaN(run),
            *([callbacks.Checkpoint(run)] if chief else []),
            *([keras.callbacks.TensorBoard(run / "logs", int(histograms), profile_batch=0)] if chief else []),
            *(more if chief else []),
        ],
    )
    distribution.wait_for_all(strategy)
