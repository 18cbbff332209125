"""Trains a configuration: `python -m training.train --config=NAME --data=DIR --run=DIR`.

A run killed at any moment goes on with the same command: its state is kept after every epoch, and every sample is a
function of the seed and the epoch, so that the result is that of an uninterrupted run.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging

from keras_deartifact import models, perceptual, quantiser
from keras_deartifact.gan import DeartifactGAN, psnr
from training import callbacks, distribution, runs
from training.configs import CONFIGS, EnsembleConfig, PredictorConfig, TrainConfig, as_dict
from training.datasets import VALIDATION_BATCHES, find_sources, make_datasets
from training.train_predictor import train_predictor

FLAGS = flags.FLAGS


def _optimizer(config: TrainConfig, peak: float) -> keras.Optimizer:
    optimizer = keras.optimizers.Adam(runs.schedule(config, peak), beta_1=config.adam_beta_1)
    return keras.optimizers.LossScaleOptimizer(optimizer) if config.precision == "mixed_float16" else optimizer


def make_model(
    config: TrainConfig, start: keras.Model | None = None, backbone: perceptual.Backbone | None = None
) -> DeartifactGAN:
    """Returns the compiled trainer of a fresh run.

    Args:
        config: what to train.
        start: generator whose weights it begins with.
        backbone: of the perceptual loss, where the configuration has one.

    Raises:
        ValueError: `start` is of another architecture.
    """
    generator = models.make_generator(config.generator, **config.generator_arguments, dtype=config.precision)
    if start is not None:
        runs.take_over(start, generator)
    discriminator, optimizers = None, [_optimizer(config, config.learning_rate)]
    arguments: dict[str, Any] = {}
    if config.adversarial:
        channels = config.generator_arguments.get("channels", 3)
        discriminator = models.make_discriminator(
            config.adversarial.discriminator,
            **{"channels": channels, **config.adversarial.discriminator_arguments},
            dtype=config.precision,
        )
        optimizers.append(_optimizer(config, config.adversarial.learning_rate))
        arguments = {
            "adversarial": config.adversarial.loss,
            "adversarial_weight": config.adversarial.weight,
            "ramp_steps": config.adversarial.ramp_steps,
        }
    if config.perceptual:
        arguments["perceptual"] = perceptual.perceptual_loss(backbone, config.perceptual.layers)
        arguments |= {"perceptual_weight": config.perceptual.weight, "perceptual_shift": config.perceptual.shift}
    model = DeartifactGAN(generator, discriminator)
    model.compile(
        *optimizers,
        losses=config.losses,
        gradient_clip=config.gradient_clip,
        ema_momentum=config.ema_momentum,
        **arguments,
    )
    return model


def load_backbone(config: TrainConfig, weights: str) -> perceptual.Backbone | None:
    """Returns the network of the configuration's perceptual loss, if it has one; see `perceptual.load_backbone`."""
    if config.perceptual is None:
        return None
    return perceptual.load_backbone(config.perceptual.backbone, list(config.perceptual.layers), weights)


@dataclasses.dataclass(frozen=True)
class Options:
    """What is no part of a run's configuration.

    Attributes:
        start: a run's folder, or a .keras file, whose generator to start from; None for the one that the configuration
            names, trained first.
        backbone: file for the perceptual loss, or "imagenet" for those of keras.applications.
        histograms: whether TensorBoard gets a histogram of every weight after every epoch.
    """

    start: Path | None = None
    backbone: str = "imagenet"
    histograms: bool = False


def train(
    config: TrainConfig,
    folders: list[str],
    video: str | None,
    run: Path,
    options: Options | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> None:
    """Trains a configuration to its end, with the averaged weights in `run/generator.keras`.

    A configuration with a warm start first trains the one that it names, in `run/direct`, unless `options.start` is
    given.

    Args:
        config: what to train.
        folders: of pictures.
        video: folder of video pairs.
        run: the run's folder.
        options: what is no part of the configuration.
        strategy: of `distribution.make_strategy`; one device by default.

    Raises:
        ValueError: what the user gave does not fit; nothing was changed then.
        FloatingPointError: the loss is no number any more; the last good checkpoint is kept.
    """
    options = options or Options()
    strategy = strategy or tf.distribute.get_strategy()
    distribution.check_run_is_shared(run, strategy)
    distribution.check_batch(config.still_batch + config.video_batch, strategy)
    start = options.start
    if config.warm_start and start is None:
        start = run / "direct"
        train(named(config.warm_start), folders, video, start, strategy=strategy)
    if start is not None and start.is_dir():
        start = start / "generator.keras"
    sources = find_sources(config, folders, video)
    keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        backbone = load_backbone(config, options.backbone)
        checkpoint = runs.open_run(
            run,
            {
                "config": as_dict(config),
                "start": runs.start_record(start),
                "backbone": backbone and {"name": backbone.name, "sha256": backbone.sha256},
                "data": sources.record(),
            },
            distribution.is_chief(strategy),
        )
        first = keras.models.load_model(start, compile=False) if start is not None else None
        model = make_model(config, first, backbone)
        if checkpoint:
            callbacks.load_checkpoint(model, checkpoint)
    training, validation = make_datasets(config, sources, runs.epochs_done(model, config))
    held_out = list(validation.take(VALIDATION_BATCHES))
    compressed = [float(np.mean(psnr(original, inputs[0]))) for inputs, original, _ in held_out]
    logging.info("validation before restoring: %.3f dB", np.mean(compressed))
    triplets = callbacks.Triplets(run / "logs", held_out[0][:2])
    runs.fit(model, (training, validation), config, run, strategy, options.histograms, [triplets])


def train_ensemble(
    config: EnsembleConfig,
    folders: list[str],
    video: str | None,
    run: Path,
    options: Options | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> None:
    """Trains every member of an ensemble and writes `run/ensemble.json`, which `engines.load` takes; see `train`."""
    members = []
    for quality, member in config.members().items():
        name = f"quality-{quality}"
        train(member, folders, video, run / name, options, strategy)
        members.append({"log2_step": quantiser.jpeg_quality_log2_step(quality), "model": f"{name}/generator.keras"})
    if strategy is None or distribution.is_chief(strategy):
        callbacks.replace_file(run / "ensemble.json", lambda path: path.write_text(json.dumps(members, indent=2)))


def named(name: str) -> TrainConfig:
    """Returns a configuration of one generator.

    Raises:
        ValueError: the name is that of something else.
    """
    config = CONFIGS[name]
    if not isinstance(config, TrainConfig):
        raise ValueError(f"Expected the configuration of one generator. Received: {name!r}")
    return config


def main(argv: list[str]) -> None:
    """Trains what the flags say."""
    del argv
    config = CONFIGS[FLAGS.config]
    if FLAGS.steps and isinstance(config, EnsembleConfig):
        config = dataclasses.replace(config, member=dataclasses.replace(config.member, steps=FLAGS.steps))
    elif FLAGS.steps:
        config = dataclasses.replace(config, steps=FLAGS.steps)
    sources = FLAGS.data, FLAGS.video, Path(FLAGS.run)
    options = Options(FLAGS.start_from and Path(FLAGS.start_from), FLAGS.vgg_weights, FLAGS.histograms)

    def run() -> None:
        strategy = distribution.make_strategy()
        match config:
            case EnsembleConfig():
                train_ensemble(config, *sources, options, strategy)
            case PredictorConfig():
                train_predictor(config, *sources, options.start, options.histograms, strategy)
            case TrainConfig():
                train(config, *sources, options, strategy)

    try:
        distribution.rejoin_on_lost_worker(run)
    except (ValueError, FloatingPointError) as error:
        raise SystemExit(f"error: {error}") from error


def define_data_flags() -> None:
    """Defines the flags that say what to train on. Not at import: several programs, and their tests, import this."""
    flags.DEFINE_enum("config", None, sorted(CONFIGS), "What to train; see training/configs.py.", required=True)
    flags.DEFINE_multi_string("data", [], "Folder of pictures; may be given several times.")
    flags.DEFINE_string("video", None, "Folder of shards written by training.prepare_video.")
    flags.DEFINE_string(
        "vgg_weights", "imagenet", "File of weights for the perceptual loss; those of keras.applications by default."
    )


def define_flags() -> None:
    """Defines all flags of this program."""
    define_data_flags()
    flags.DEFINE_string("run", None, "Folder of the run; an unfinished run there goes on.", required=True)
    flags.DEFINE_integer("steps", None, "Training steps in all, in place of the configuration's.", lower_bound=1)
    flags.DEFINE_string(
        "start_from", None, "Run or .keras file whose network to start from, in place of training one first."
    )
    flags.DEFINE_boolean("histograms", False, "Histograms of the weights in TensorBoard, after every epoch.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
