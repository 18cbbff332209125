"""Training configurations: frozen dataclasses by name. A run writes the one it used beside its checkpoints."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from keras_deartifact.data import StillsConfig

__all__ = [
    "CONFIGS",
    "AdversarialConfig",
    "EnsembleConfig",
    "PerceptualConfig",
    "PredictorConfig",
    "TrainConfig",
    "as_dict",
]


@dataclass(frozen=True)
class PerceptualConfig:
    """The perceptual loss.

    Attributes:
        backbone: key of `perceptual.BACKBONES`.
        layers: weight of each of its layers, by name; one layer of weight 1 is the paper's Eq. 5.
        weight: of the sum.
        shift: see `DeartifactGAN.compile`.
    """

    backbone: str = "vgg19"
    layers: dict[str, float] = field(default_factory=lambda: {"block5_conv3": 1.0})
    weight: float = 1.0
    shift: int = 0


@dataclass(frozen=True)
class AdversarialConfig:
    """The discriminator and how it is trained.

    Attributes:
        discriminator: key of `models.DISCRIMINATORS`.
        discriminator_arguments: keyword arguments for it.
        loss: key of `adversarial.ADVERSARIAL`.
        weight: lambda of the paper's Eq. 6.
        ramp_steps: steps over which lambda rises from 0, while the discriminator learns.
        learning_rate: of the discriminator; it falls along the same curve as the generator's.
    """

    discriminator: str = "patch"
    discriminator_arguments: dict[str, Any] = field(default_factory=dict)
    loss: str = "sub_patch"
    weight: float = 0.01
    ramp_steps: int = 500
    learning_rate: float = 1e-4


@dataclass(frozen=True)
class TrainConfig:
    """What to train and how.

    Attributes:
        generator: key of `models.GENERATORS`.
        generator_arguments: keyword arguments for it, over those of the registry; `channels=1` trains on luma.
        losses: weight of each pixel loss, by its name in `losses.LOSSES`.
        perceptual: the perceptual loss; None for none.
        adversarial: the discriminator; None for direct training.
        warm_start: configuration whose generator this run begins with, trained first where none is given; None to begin
            from random weights.
        stills: crops and degradations of still pictures.
        still_batch: JPEG samples a step, 0 for none; over all replicas.
        video_batch: video samples a step, 0 for none; more than 0 needs prepared pairs.
        steps: training steps in all.
        steps_per_epoch: steps between checkpoints.
        learning_rate: its peak, reached after `warmup_steps`; it falls to `final_learning_rate` along a cosine.
        final_learning_rate: where it ends.
        warmup_steps: linear rise from 0.
        adam_beta_1: memory of Adam's mean gradient.
        gradient_clip: largest norm of a network's whole gradient.
        ema_momentum: of the running mean of the weights, which is what is evaluated and exported.
        step_weight_power: a sample counts as `(16 / quantiser step)^power`, within 1/4 to 8: coarse steps make larger
            errors, and would otherwise be all that is learnt.
        precision: Keras's dtype policy: float32, mixed_float16 (with a scaled loss) or mixed_bfloat16.
        validation_images: pictures held out of the training folder.
        seed: of the weights and of the samples.
    """

    generator: str
    generator_arguments: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=lambda: {"mse": 1.0})
    perceptual: PerceptualConfig | None = None
    adversarial: AdversarialConfig | None = None
    warm_start: str | None = None
    stills: StillsConfig = StillsConfig()
    still_batch: int = 16
    video_batch: int = 0
    steps: int = 100_000
    steps_per_epoch: int = 500
    learning_rate: float = 2e-3
    final_learning_rate: float = 1e-5
    warmup_steps: int = 200
    adam_beta_1: float = 0.9
    gradient_clip: float = 1.0
    ema_momentum: float = 0.999
    step_weight_power: float = 1.0
    precision: str = "float32"
    validation_images: int = 20
    seed: int = 1


@dataclass(frozen=True)
class EnsembleConfig:
    """One generator for each JPEG quality, as in the paper; a quality predictor picks among them.

    Attributes:
        member: what each is trained by, but for the qualities of its samples.
        qualities: the JPEG quality of each.
    """

    member: TrainConfig
    qualities: tuple[int, ...] = (10, 20, 40, 60, 80)

    def members(self) -> dict[int, TrainConfig]:
        """Returns the configuration of each member by its quality."""
        return {
            quality: dataclasses.replace(
                self.member,
                stills=dataclasses.replace(self.member.stills, quality_range=(quality, quality), wide_share=0.0),
            )
            for quality in self.qualities
        }


@dataclass(frozen=True)
class PredictorConfig:
    """The quality predictor and how it is trained.

    Attributes:
        predictor_arguments: keyword arguments for `models.QualityPredictor`.
        stills: crops and degradations of still pictures.
        still_batch: JPEG samples a step, 0 for none; over all replicas.
        video_batch: video samples a step, 0 for none; more than 0 needs pairs prepared for predicting.
        steps: training steps in all.
        steps_per_epoch: steps between checkpoints.
        learning_rate: its peak, reached after `warmup_steps`; it falls to `final_learning_rate` along a cosine.
        final_learning_rate: where it ends.
        warmup_steps: linear rise from 0.
        weight_decay: of AdamW.
        gradient_clip: largest norm of the whole gradient.
        ema_momentum: of the running mean of the weights.
        validation_images: pictures held out of the training folder.
        seed: of the weights and of the samples.
    """

    predictor_arguments: dict[str, Any] = field(default_factory=dict)
    stills: StillsConfig = StillsConfig(
        crop=160,
        wide_share=0.0,
        quality_range=(5, 97),
        misaligned_share=0.12,
        double_share=0.15,
        unknown_share=0.0,
        reduced_share=0.5,
        smallest_gradient=1.0,
        clean_share=0.06,
        coarser_of_double=True,
    )
    still_batch: int = 24
    video_batch: int = 40
    steps: int = 12_000
    steps_per_epoch: int = 500
    learning_rate: float = 2e-3
    final_learning_rate: float = 2e-5
    warmup_steps: int = 200
    weight_decay: float = 3e-3
    gradient_clip: float = 1.0
    ema_momentum: float = 0.998
    validation_images: int = 20
    seed: int = 1


def as_dict(config: TrainConfig | EnsembleConfig | PredictorConfig) -> dict[str, Any]:
    """Returns the configuration as plain values, for JSON."""
    return dataclasses.asdict(config)


_TESTING = TrainConfig(
    "shuffle_pico",
    {"filters": 8, "depth": 2},
    losses={"charbonnier": 1.0, "one_minus_ssim": 0.1},
    stills=StillsConfig(crop=32),
    still_batch=2,
    steps=4,
    steps_per_epoch=2,
    warmup_steps=1,
    validation_images=1,
)
# The paper's recipe: direct supervision by SSIM, or VGG-19's conv5_3 and the discriminator alone. Features are of the
# order of 255, their squared error of 1e4: the weight brings it to that of the other losses, so that lambda means the
# same everywhere. The paper states neither.
# At 1e-3 the tanh saturates, and nothing is learnt.
_PAPER_DIRECT: dict[str, Any] = {"losses": {"one_minus_ssim": 1.0}, "learning_rate": 2e-4}
_PAPER_GAN: dict[str, Any] = {
    "losses": {},
    "perceptual": PerceptualConfig(weight=1e-5),
    "adversarial": AdversarialConfig(),
    "learning_rate": 1e-4,
    "step_weight_power": 0.0,
}
# What practice has settled on since: the pixels keep their say, shallow layers (deep ones, pooled, draw their grid into
# the picture), a logarithm per pixel, a discriminator that learns faster than the generator.
_GAN: dict[str, Any] = {
    "losses": {"charbonnier": 1.0},
    "perceptual": PerceptualConfig("hed_vgg16", {"block1_conv2": 1e-6, "block2_conv2": 3e-6}, weight=0.3, shift=16),
    "adversarial": AdversarialConfig("patch", {"filters": 24}, "per_pixel", 0.012, ramp_steps=500, learning_rate=1e-3),
    "learning_rate": 3e-4,
    "adam_beta_1": 0.5,
}
_VIDEO: dict[str, Any] = {"still_batch": 8, "video_batch": 12}

# With high qualities, more of 4:4:4 and pictures that were not compressed: what it takes to leave good pictures alone.
_BROAD = StillsConfig(wide_quality_range=(5, 98), wide_share=0.35, share_444=0.35, clean_share=0.02)

CONFIGS: dict[str, TrainConfig | EnsembleConfig | PredictorConfig] = {
    "testing": _TESTING,
    "testing_gan": dataclasses.replace(
        _TESTING, adversarial=AdversarialConfig("patch", {"filters": 4}, ramp_steps=2), warm_start="testing"
    ),
    "testing_ensemble": EnsembleConfig(_TESTING, (10, 40)),
    "testing_predictor": PredictorConfig(
        {"local_units": 4, "filters": 4, "comb_units": 4, "picture_units": 8, "spectrum_filters": 4, "heads": 1},
        stills=StillsConfig(crop=32, unknown_share=0.0, clean_share=0.1, coarser_of_double=True),
        still_batch=2,
        video_batch=0,
        steps=4,
        steps_per_epoch=2,
        warmup_steps=1,
        validation_images=1,
    ),
    "shuffle_pico": TrainConfig("shuffle_pico", **_VIDEO, stills=_BROAD, steps=24_000),
    "shuffle_pico_finish": TrainConfig(
        "shuffle_pico", **_VIDEO, stills=_BROAD, warm_start="shuffle_pico", steps=10_000, learning_rate=5e-4
    ),
    "shuffle_nano": TrainConfig("shuffle_nano", **_VIDEO, steps=92_000),
    "shuffle_nano_finish": TrainConfig(
        "shuffle_nano", **_VIDEO, stills=_BROAD, warm_start="shuffle_nano", steps=15_000, learning_rate=5e-4
    ),
    # It begins as the smaller one, which took longer to learn what it knows than two cores could give this one.
    "shuffle_small": TrainConfig(
        "shuffle_small",
        **_VIDEO,
        stills=_BROAD,
        warm_start="shuffle_nano_finish",
        learning_rate=5e-4,
        steps=40_000,
        precision="mixed_bfloat16",
    ),
    "shuffle_nano_stills": TrainConfig("shuffle_nano"),
    "shuffle_nano_gan": TrainConfig(
        "shuffle_nano",
        **_GAN,
        warm_start="shuffle_nano",
        still_batch=6,
        video_batch=2,
        steps=10_000,
        steps_per_epoch=100,
    ),
    "residual": TrainConfig("residual", **_PAPER_DIRECT),
    "residual_gan": TrainConfig("residual", **_PAPER_GAN, warm_start="residual"),
    "fast": TrainConfig("fast", **_PAPER_DIRECT),
    "fast_gan": TrainConfig("fast", **_PAPER_GAN, warm_start="fast"),
    "very_fast": TrainConfig("very_fast", **_PAPER_DIRECT),
    "very_fast_gan": TrainConfig("very_fast", **_PAPER_GAN, warm_start="very_fast"),
    "arcnn": TrainConfig("arcnn", learning_rate=5e-4),
    "residual_luma": TrainConfig("residual", {"channels": 1}, **_PAPER_DIRECT),
    # The paper's question, one generator for each quality or one for all that is told the quality, at equal cost.
    "ensemble_very_fast": EnsembleConfig(TrainConfig("very_fast", {"residual": True}, steps=2_000)),
    "very_fast_conditioned": TrainConfig("very_fast", {"residual": True, "conditioned": True}, steps=10_000),
    "ensemble_residual_gan": EnsembleConfig(TrainConfig("residual", **_PAPER_GAN, warm_start="residual")),
    "quality_predictor": PredictorConfig(),
    # From the predictor of that, with drawings among the pictures, which it took for coarsely compressed photographs.
    "quality_predictor_finish": PredictorConfig(steps=3_000, learning_rate=5e-4),
}
