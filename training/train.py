"""Trains a generator directly: `python -m training.train --config=NAME --data=DIR --run=DIR`.

A run killed at any moment goes on with the same command: its state is kept after every epoch, and every sample is a
function of the seed and the epoch, so that the result is that of an uninterrupted run.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging

from keras_deartifact import data, losses, models
from training import callbacks
from training.configs import CONFIGS, TrainConfig, as_dict

FLAGS = flags.FLAGS


_VALIDATION_BATCHES = 12


@keras.saving.register_keras_serializable("keras_deartifact")
def psnr(original: Any, restored: Any) -> Any:
    """Peak signal-to-noise ratio over all channels in dB, one value per image, for `fit` to average and log."""
    error = keras.ops.maximum(losses.mse(original, keras.ops.clip(restored, 0.0, 1.0)), 1e-10)
    return -10.0 / float(np.log(10.0)) * keras.ops.log(error)


def make_datasets(
    config: TrainConfig, folders: list[str], video: str | None, first_epoch: int
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Returns the training and the validation dataset of `(inputs, original, sample_weight)`."""
    training, validation = [], []
    threads = os.cpu_count() or 1
    if config.still_batch:
        files = [file for folder in folders for file in data.image_files(folder)]
        # Evenly spread over the sorted files, so that every folder is represented.
        held_out = set(files[:: max(1, len(files) // max(1, config.validation_images))][: config.validation_images])
        for part, target in ((sorted(set(files) - held_out), training), (sorted(held_out), validation)):
            target.append(data.still_pairs(part, config.stills, config.still_batch, config.seed, threads))
    if config.video_batch:
        shards = data.shard_files(video or "")
        if len(shards) < 2:
            raise ValueError(f"Expected at least two shards, one of them to validate on, in {video}, found one.")
        for part, target in ((shards[:-1], training), (shards[-1:], validation)):
            target.append(data.video_pairs(part, config.stills.crop, config.video_batch, config.seed, threads))

    def weigh(inputs: Any, original: tf.Tensor) -> tuple[Any, tf.Tensor, tf.Tensor]:
        finer = 4.0 - tf.reduce_mean(inputs[1], axis=(1, 2, 3))
        return inputs, original, tf.clip_by_value(2.0 ** (config.step_weight_power * finer), 0.25, 8.0)

    samples = data.epochs(data.mix(validation), _VALIDATION_BATCHES).take(_VALIDATION_BATCHES)
    # Repeated: where Keras has to find the end by itself, it counts a batch that is not there.
    return (
        data.epochs(data.mix(training), config.steps_per_epoch, first_epoch).map(weigh),
        samples.map(weigh).cache().repeat(),
    )


def make_model(config: TrainConfig) -> keras.Model:
    """Returns the compiled generator of a fresh run."""
    generator = models.make_generator(config.generator, **config.generator_arguments)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        config.steps - config.warmup_steps,
        alpha=config.final_learning_rate / config.learning_rate,
        warmup_target=config.learning_rate,
        warmup_steps=config.warmup_steps,
    )
    optimizer = keras.optimizers.Adam(
        schedule, global_clipnorm=config.gradient_clip, use_ema=True, ema_momentum=config.ema_momentum
    )
    # XLA's convolutions are several times slower than oneDNN's on a CPU.
    generator.compile(optimizer, losses.WeightedLosses(config.losses), metrics=[psnr], jit_compile=False)
    return generator


def open_run(run: Path, config: TrainConfig) -> keras.Model:
    """Returns the model of the run: the one that its checkpoint holds, else a fresh one.

    Raises:
        ValueError: the folder holds a run with another configuration.
    """
    run.mkdir(parents=True, exist_ok=True)
    wanted = json.dumps(as_dict(config), indent=2, default=list)
    record = run / "config.json"
    if record.exists() and record.read_text() != wanted:
        raise ValueError(f"{run} holds a run with another configuration ({record}). Choose another --run.")
    record.write_text(wanted)
    checkpoint = run / "checkpoint.keras"
    if not checkpoint.exists():
        return make_model(config)
    logging.info("going on from %s", checkpoint)
    return keras.models.load_model(checkpoint)


def train(config: TrainConfig, folders: list[str], video: str | None, run: Path) -> keras.Model:
    """Trains a configuration to its end and returns the model, with the averaged weights in `run/generator.keras`."""
    keras.utils.set_random_seed(config.seed)
    replicas = tf.config.list_logical_devices("GPU")
    strategy = tf.distribute.MirroredStrategy() if len(replicas) > 1 else tf.distribute.get_strategy()
    with strategy.scope():
        model = open_run(run, config)
    first_epoch = int(model.optimizer.iterations.numpy()) // config.steps_per_epoch
    training, validation = make_datasets(config, folders, video, first_epoch)
    held_out = list(validation.take(_VALIDATION_BATCHES))
    compressed = [float(np.mean(psnr(original, inputs[0]))) for inputs, original, _ in held_out]
    logging.info("validation before restoring: %.3f dB", np.mean(compressed))
    model.fit(
        training,
        epochs=-(-config.steps // config.steps_per_epoch),
        initial_epoch=first_epoch,
        steps_per_epoch=config.steps_per_epoch,
        shuffle=False,
        validation_data=validation,
        validation_steps=_VALIDATION_BATCHES,
        verbose=1 if sys.stdout.isatty() else 2,
        callbacks=[
            callbacks.Checkpoint(run),
            keras.callbacks.SwapEMAWeights(),
            keras.callbacks.TensorBoard(run / "logs", profile_batch=0),
            callbacks.Triplets(run / "logs", held_out[0][:2]),
        ],
    )
    return model


def main(argv: list[str]) -> None:
    """Trains what the flags say."""
    del argv
    config = CONFIGS[FLAGS.config]
    if FLAGS.steps:
        config = dataclasses.replace(config, steps=FLAGS.steps)
    try:
        train(config, FLAGS.data, FLAGS.video, Path(FLAGS.run))
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


def define_data_flags() -> None:
    """Defines the flags that say what to train on. Not at import: several programs, and their tests, import this."""
    flags.DEFINE_enum("config", None, sorted(CONFIGS), "What to train; see training/configs.py.", required=True)
    flags.DEFINE_multi_string("data", [], "Folder of pictures; may be given several times.")
    flags.DEFINE_string("video", None, "Folder of shards written by training.prepare_video.")


def define_flags() -> None:
    """Defines all flags of this program."""
    define_data_flags()
    flags.DEFINE_string("run", None, "Folder of the run; an unfinished run there goes on.", required=True)
    flags.DEFINE_integer("steps", None, "Training steps in all, in place of the configuration's.", lower_bound=1)


if __name__ == "__main__":
    define_flags()
    app.run(main)
