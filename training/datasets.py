"""What a configuration trains on and is validated on."""

import dataclasses
import hashlib
import os
from typing import Any

import tensorflow as tf

from keras_deartifact import data
from training.configs import PredictorConfig, TrainConfig

__all__ = ["VALIDATION_BATCHES", "Sources", "find_sources", "make_datasets", "make_predictor_datasets"]

VALIDATION_BATCHES = 12
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


def find_sources(config: TrainConfig | PredictorConfig, folders: list[str], video: str | None) -> Sources:
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


def _batches(
    config: TrainConfig | PredictorConfig, sources: Sources, first_epoch: int
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Returns training without end and validation of `((compressed, quantiser_map), original)`."""
    threads = os.cpu_count() or 1

    def parts(files: list[str], shards: list[str]) -> Any:
        stills = [data.still_pairs(files, config.stills, config.still_batch, config.seed, threads)] if files else []
        crop = config.stills.crop
        return data.mix(
            stills + ([data.video_pairs(shards, crop, config.video_batch, config.seed, threads)] if shards else [])
        )

    training = parts(sources.training, sources.training_shards)
    validation = parts(sources.validation, sources.validation_shards)
    return (
        data.epochs(training, config.steps_per_epoch, first_epoch),
        data.epochs(validation, VALIDATION_BATCHES).take(VALIDATION_BATCHES),
    )


def make_datasets(config: TrainConfig, sources: Sources, first_epoch: int) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Returns the training and the validation dataset of `(inputs, original, sample_weight)`."""

    def weigh(inputs: Any, original: tf.Tensor) -> tuple[Any, tf.Tensor, tf.Tensor]:
        compressed, quantiser_map = inputs
        if config.generator_arguments.get("channels", 3) == 1:
            compressed, original = (
                tf.tensordot(images, tf.constant(_LUMA_WEIGHTS), 1)[..., None] for images in (compressed, original)
            )
        finer = 4.0 - tf.reduce_mean(quantiser_map, axis=(1, 2, 3))
        weight = tf.clip_by_value(2.0 ** (config.step_weight_power * finer), 0.25, 8.0)
        return (compressed, quantiser_map), original, weight

    training, validation = _batches(config, sources, first_epoch)
    # Repeated: where Keras has to find the end by itself, it counts a batch that is not there.
    return training.map(weigh), validation.map(weigh).cache().repeat()


def make_predictor_datasets(
    config: PredictorConfig, sources: Sources, first_epoch: int
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Returns the training and the validation dataset of `(compressed, quantiser_map)`."""

    def without_original(inputs: Any, original: tf.Tensor) -> Any:
        del original
        return inputs

    training, validation = _batches(config, sources, first_epoch)
    return training.map(without_original), validation.map(without_original).cache().repeat()
