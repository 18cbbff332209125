"""Training configurations: frozen dataclasses by name. A run writes the one it used beside its checkpoints."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from keras_deartifact.data import StillsConfig

__all__ = ["CONFIGS", "TrainConfig", "as_dict"]


@dataclass(frozen=True)
class TrainConfig:
    """What to train and how.

    Attributes:
        generator: key of `models.GENERATORS`.
        generator_arguments: keyword arguments for it, over those of the registry.
        losses: weight of each loss, by its name in `losses.LOSSES`.
        stills: crops and degradations of still pictures.
        still_batch: JPEG samples a step, 0 for none.
        video_batch: video samples a step, 0 for none; more than 0 needs prepared pairs.
        steps: training steps in all.
        steps_per_epoch: steps between checkpoints.
        learning_rate: its peak, reached after `warmup_steps`; it falls to `final_learning_rate` along a cosine.
        final_learning_rate: where it ends.
        warmup_steps: linear rise from 0.
        gradient_clip: largest norm of the whole gradient.
        ema_momentum: of the running mean of the weights, which is what is evaluated and exported.
        step_weight_power: a sample counts as `(16 / quantiser step)^power`, within 1/4 to 8: coarse steps make larger
            errors, and would otherwise be all that is learnt.
        validation_images: pictures held out of the training folder.
        seed: of the weights and of the samples.
    """

    generator: str
    generator_arguments: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=lambda: {"mse": 1.0})
    stills: StillsConfig = StillsConfig()
    still_batch: int = 16
    video_batch: int = 0
    steps: int = 100_000
    steps_per_epoch: int = 500
    learning_rate: float = 2e-3
    final_learning_rate: float = 1e-5
    warmup_steps: int = 200
    gradient_clip: float = 1.0
    ema_momentum: float = 0.999
    step_weight_power: float = 1.0
    validation_images: int = 20
    seed: int = 1


def as_dict(config: TrainConfig) -> dict[str, Any]:
    """Returns the configuration as plain values, for JSON."""
    return dataclasses.asdict(config)


CONFIGS: dict[str, TrainConfig] = {
    "testing": TrainConfig(
        "shuffle_pico",
        {"filters": 8, "depth": 2},
        losses={"charbonnier": 1.0, "one_minus_ssim": 0.1},
        stills=StillsConfig(crop=32),
        still_batch=2,
        steps=4,
        steps_per_epoch=2,
        warmup_steps=1,
        validation_images=1,
    ),
    "shuffle_pico": TrainConfig("shuffle_pico", still_batch=8, video_batch=12),
    "shuffle_nano": TrainConfig("shuffle_nano", still_batch=8, video_batch=12, steps=92_000),
    "shuffle_small": TrainConfig("shuffle_small", still_batch=8, video_batch=12, learning_rate=1e-3),
    "shuffle_nano_stills": TrainConfig("shuffle_nano"),
}
