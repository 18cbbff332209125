"""What a run does at the end of an epoch: keep its state, show pictures."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_deartifact.trainer import Trainer

__all__ = ["CHECKPOINT", "Checkpoint", "StopOnNaN", "Triplets", "load_checkpoint", "replace_file"]

CHECKPOINT = "checkpoint.weights.h5"


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file under a temporary name beside `path` and renames it, so that a kill leaves the old or the new."""
    temporary = path.with_name(f"partial-{path.name}")
    write(temporary)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(model: Trainer, checkpoint: Path) -> None:
    """Puts a run's whole state into its model.

    Raises:
        ValueError: the file is damaged, or the state of another architecture.
    """
    try:
        model.load_weights(checkpoint)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(
            f"{checkpoint} is no state of this configuration's networks: {str(error).splitlines()[0]} "
            "Choose another --run, or remove it to begin anew."
        ) from error


class Checkpoint(keras.callbacks.Callback):
    """Keeps the whole state of the run (networks, optimizers, running mean, step) after every epoch.

    Args:
        run: the run's folder. `checkpoint.weights.h5` is the state, `generator.keras` (see `Trainer.averaged_file`) the
            averaged network alone, float32, and `progress.json` the step and the metrics, under the names that they
            have in the logs.
    """

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.run = run

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        del epoch
        progress = {
            "step": int(self.model.step.numpy()),
            **{name: float(value) for name, value in (logs or {}).items()},
        }
        replace_file(self.run / self.model.averaged_file, self._save_averaged)
        replace_file(self.run / "progress.json", lambda path: path.write_text(json.dumps(progress, indent=2)))
        # Last: until it is there, the epoch is done again, with the same result.
        replace_file(self.run / CHECKPOINT, self.model.save_weights)

    def _save_averaged(self, path: Path) -> None:
        averaged = self.model.averaged
        network = type(averaged).from_config({**averaged.get_config(), "dtype": "float32", "trainable": True})
        network.build_from_config(averaged.get_build_config())
        network.set_weights(averaged.get_weights())
        network.save(path)


class StopOnNaN(keras.callbacks.Callback):
    """Ends a run whose loss or weights are no numbers any more, before they reach a checkpoint: put it first.

    Args:
        run: the run's folder, for the message.
        every: steps between looks at the loss, which waits for the device.

    Raises:
        FloatingPointError: from `fit`.
    """

    def __init__(self, run: Path, every: int = 50) -> None:
        super().__init__()
        self.run = run
        self.every = every

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if batch % self.every == 0:
            self._check(logs or {})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._check(logs or {})
        if not all(np.isfinite(weight).all() for weight in self.model.get_weights()):
            self._stop("the weights")

    def _check(self, logs: dict[str, Any]) -> None:
        for name, value in logs.items():
            if not math.isfinite(float(value)):
                self._stop(name)

    def _stop(self, name: str) -> None:
        checkpoint = self.run / CHECKPOINT
        kept = f"the last good state is kept in {checkpoint}" if checkpoint.exists() else "no state was kept yet"
        raise FloatingPointError(
            f"Not a number: {name}, at step {int(self.model.step.numpy())}; {kept}. "
            "Try a lower learning rate, a smaller gradient_clip or float32."
        )


class Triplets(keras.callbacks.Callback):
    """Shows compressed, restored and original side by side in TensorBoard.

    Args:
        logs: TensorBoard's folder.
        batch: one batch `((compressed, quantiser_map), original)`.
        every: epochs between pictures.
        count: samples shown.
    """

    def __init__(self, logs: Path, batch: Any, every: int = 10, count: int = 4) -> None:
        super().__init__()
        self.writer = tf.summary.create_file_writer(str(logs / "pictures"))
        (compressed, quantiser_map), original = batch
        self.inputs = (compressed[:count], quantiser_map[:count])
        self.original = original[:count]
        self.every = every

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        del logs
        if epoch % self.every:
            return
        restored = self.model(self.inputs, training=False)
        rows = tf.concat((self.inputs[0], tf.cast(restored, tf.float32), self.original), axis=2)
        with self.writer.as_default(step=int(self.model.step.numpy())):
            tf.summary.image("compressed, restored, original", tf.clip_by_value(rows, 0.0, 1.0), max_outputs=len(rows))
        self.writer.flush()
