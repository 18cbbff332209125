"""What a run does at the end of an epoch: keep its state, show pictures."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

__all__ = ["Checkpoint", "Triplets", "replace_file", "with_averaged_weights"]


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file under a temporary name beside `path` and renames it, so that a kill leaves the old or the new."""
    temporary = path.with_name(f"partial-{path.name}")
    write(temporary)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def with_averaged_weights(model: keras.Model, act: Callable[[], None]) -> None:
    """Runs `act` while the model holds the optimizer's running mean of its weights, then puts the weights back."""
    weights = [variable.numpy() for variable in model.trainable_variables]
    model.optimizer.finalize_variable_values(model.trainable_variables)
    act()
    for variable, value in zip(model.trainable_variables, weights, strict=True):
        variable.assign(value)


class Checkpoint(keras.callbacks.Callback):
    """Keeps the whole state of the run (weights, optimizer, running mean) after every epoch.

    Args:
        run: the run's folder; the state is `checkpoint.keras`, the averaged weights alone are `generator.keras`.
    """

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.run = run

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        del logs, epoch
        replace_file(self.run / "checkpoint.keras", self.model.save)
        with_averaged_weights(self.model, lambda: replace_file(self.run / "generator.keras", self._save_generator))

    def _save_generator(self, path: Path) -> None:
        # A `.keras` file always holds the optimizer of a compiled model; a copy is not compiled.
        generator = type(self.model).from_config(self.model.get_config())
        generator.build_from_config(self.model.get_build_config())
        generator.set_weights(self.model.get_weights())
        generator.save(path)


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
        with self.writer.as_default(step=int(np.asarray(self.model.optimizer.iterations))):
            tf.summary.image("compressed, restored, original", tf.clip_by_value(rows, 0.0, 1.0), max_outputs=len(rows))
        self.writer.flush()
