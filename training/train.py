"""Trains a configuration: `python -m training.train --config=NAME --data=DIR --run=DIR`.

A run killed at any moment goes on with the same command: its state is kept after every epoch, and every sample is a
function of the seed and the epoch, so that the result is that of an uninterrupted run.
"""

import dataclasses
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging

from keras_deartifact import data, models, perceptual, quantiser
from keras_deartifact.gan import DeartifactGAN, psnr
from training import callbacks, distribution
from training.configs import CONFIGS, EnsembleConfig, TrainConfig, as_dict

FLAGS = flags.FLAGS

_VALIDATION_BATCHES = 12
_LUMA_WEIGHTS = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class Sources:
    """Files to train on and to validate on.

    Attributes:
        training: picture files.
        validation: picture files that are held out.
        training_shards: of video pairs.
        validation_shards: held out.
    """

    training: list[str]
    validation: list[str]
    training_shards: list[str]
    validation_shards: list[str]

    def record(self) -> dict[str, Any]:
        """What a run keeps of its data: other data would train on what was held out before."""
        names = [os.path.basename(file) for files in dataclasses.astuple(self) for file in files]
        return {
            "pictures": len(self.training) + len(self.validation),
            "shards": len(self.training_shards) + len(self.validation_shards),
            "sha256_of_names": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        }


def find_sources(config: TrainConfig, folders: list[str], video: str | None) -> Sources:
    """Finds the files that a configuration trains on, and holds some of them out.

    Raises:
        ValueError: there is nothing to train on, or nothing to validate on.
    """
    training, validation, shards = [], [], []
    if config.still_batch:
        files = [file for folder in folders for file in data.image_files(folder)]
        if not 0 < config.validation_images < len(files):
            raise ValueError(
                f"Expected more pictures than the {config.validation_images} (at least 1) to validate on. "
                f"Received: {len(files)} in {folders}"
            )
        # Evenly spread over the sorted files, so that every folder is represented.
        validation = files[:: len(files) // config.validation_images][: config.validation_images]
        training = sorted(set(files) - set(validation))
    if config.video_batch:
        if not video:
            raise ValueError("Expected --video: a folder of pairs made by python -m training.prepare_video.")
        shards = data.shard_files(video)
        if len(shards) < 2:
            raise ValueError(f"Expected at least two shards, one of them to validate on, in {video}, found one.")
    return Sources(training, sorted(validation), shards[:-1], shards[-1:])


def make_datasets(config: TrainConfig, sources: Sources, first_epoch: int) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Returns the training and the validation dataset of `(inputs, original, sample_weight)`."""
    threads = os.cpu_count() or 1

    def parts(files: list[str], shards: list[str]) -> list[Any]:
        stills = [data.still_pairs(files, config.stills, config.still_batch, config.seed, threads)] if files else []
        crop = config.stills.crop
        return stills + ([data.video_pairs(shards, crop, config.video_batch, config.seed, threads)] if shards else [])

    def weigh(inputs: Any, original: tf.Tensor) -> tuple[Any, tf.Tensor, tf.Tensor]:
        compressed, quantiser_map = inputs
        if config.generator_arguments.get("channels", 3) == 1:
            compressed, original = (
                tf.tensordot(images, tf.constant(_LUMA_WEIGHTS), 1)[..., None] for images in (compressed, original)
            )
        finer = 4.0 - tf.reduce_mean(quantiser_map, axis=(1, 2, 3))
        weight = tf.clip_by_value(2.0 ** (config.step_weight_power * finer), 0.25, 8.0)
        return (compressed, quantiser_map), original, weight

    training = data.mix(parts(sources.training, sources.training_shards))
    samples = data.epochs(data.mix(parts(sources.validation, sources.validation_shards)), _VALIDATION_BATCHES)
    # Repeated: where Keras has to find the end by itself, it counts a batch that is not there.
    return (
        data.epochs(training, config.steps_per_epoch, first_epoch).map(weigh),
        samples.take(_VALIDATION_BATCHES).map(weigh).cache().repeat(),
    )


def _optimizer(config: TrainConfig, peak: float) -> keras.Optimizer:
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        config.steps - config.warmup_steps,
        alpha=config.final_learning_rate / config.learning_rate,
        warmup_target=peak,
        warmup_steps=config.warmup_steps,
    )
    optimizer = keras.optimizers.Adam(schedule, beta_1=config.adam_beta_1)
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
        _take_over(start, generator)
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


def _take_over(start: keras.Model, generator: keras.Model) -> None:
    wanted, found = (
        {name: value for name, value in model.get_config().items() if name not in ("name", "dtype", "trainable")}
        for model in (generator, start)
    )
    if type(start) is not type(generator) or wanted != found:
        raise ValueError(
            f"Expected a generator to start from of the same architecture, {type(generator).__name__} {wanted}. "
            f"Received: {type(start).__name__} {found}"
        )
    generator.set_weights(start.get_weights())


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


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
    if start is not None and not start.exists():
        raise ValueError(f"There is no generator to start from: {start}")
    sources = find_sources(config, folders, video)
    keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        backbone = load_backbone(config, options.backbone)
        checkpoint = open_run(
            run,
            {
                "config": as_dict(config),
                "start": start and {"file": start.name, "sha256": _sha256(start)},
                "backbone": backbone and {"name": backbone.name, "sha256": backbone.sha256},
                "data": sources.record(),
            },
            distribution.is_chief(strategy),
        )
        first = keras.models.load_model(start, compile=False) if start is not None else None
        model = make_model(config, first, backbone)
        if checkpoint:
            callbacks.load_checkpoint(model, checkpoint)
    first_epoch = int(model.step.numpy()) // config.steps_per_epoch
    training, validation = make_datasets(config, sources, first_epoch)
    held_out = list(validation.take(_VALIDATION_BATCHES))
    compressed = [float(np.mean(psnr(original, inputs[0]))) for inputs, original, _ in held_out]
    logging.info("validation before restoring: %.3f dB", np.mean(compressed))
    distribution.make_fit_work(model)
    chief = distribution.is_chief(strategy)
    model.fit(
        distribution.share(training),
        epochs=-(-config.steps // config.steps_per_epoch),
        initial_epoch=first_epoch,
        steps_per_epoch=config.steps_per_epoch,
        shuffle=False,
        validation_data=distribution.share(validation),
        validation_steps=_VALIDATION_BATCHES,
        verbose=(1 if sys.stdout.isatty() else 2) if chief else 0,
        callbacks=[
            callbacks.StopOnNaN(run),
            *([callbacks.Checkpoint(run)] if chief else []),
            *([keras.callbacks.TensorBoard(run / "logs", int(options.histograms), profile_batch=0)] if chief else []),
            *([callbacks.Triplets(run / "logs", held_out[0][:2])] if chief else []),
        ],
    )
    distribution.wait_for_all(strategy)


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
        ValueError: the name is that of an ensemble.
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
    options = Options(FLAGS.start_from and Path(FLAGS.start_from), FLAGS.vgg_weights, FLAGS.histograms)
    run = train_ensemble if isinstance(config, EnsembleConfig) else train
    try:
        distribution.rejoin_on_lost_worker(
            lambda: run(config, FLAGS.data, FLAGS.video, Path(FLAGS.run), options, distribution.make_strategy())
        )
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
        "start_from", None, "Run or .keras file whose generator to start from, in place of training one first."
    )
    flags.DEFINE_boolean("histograms", False, "Histograms of the weights in TensorBoard, after every epoch.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
