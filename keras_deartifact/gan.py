"""The trainer: `DeartifactGAN` trains a generator directly, or against a discriminator, with `model.fit`.

One step on a batch `((compressed, quantiser_map), original, sample_weight)`:

    restored       = G(compressed, quantiser_map)
    generator_loss = sample_weight * sum_i w_i loss_i(original, restored)          LOSSES
                   + w_P L_P(original, restored)                                   Eq. 5, `perceptual.py`
                   + lambda(step) L_A(D(compressed, original), D(compressed, restored))      Eq. 6 and 7
    discriminator_loss = L_D(D(compressed, original), D(compressed, restored))     Eq. 4, `adversarial.py`
    lambda(step)   = adversarial_weight * min(1, step / ramp_steps)

Both networks step from the same forward pass, each with its own optimizer. What is done with the losses, the gradients
and the averaged weights: `trainer.py`.

Reference: Galteri, Seidenari, Uricchio, Bertini, Del Bimbo, "Preserving Low-Quality Video through Deep Learning".
Without a discriminator this is its direct training. It leaves the paper in the warm start that `training/` gives it,
the ramp, and the running mean.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_deartifact.adversarial import ADVERSARIAL
from keras_deartifact.losses import mse, one_minus_ssim, weighted_losses
from keras_deartifact.models.patch_discriminator import probability
from keras_deartifact.trainer import Trainer

__all__ = ["DeartifactGAN", "psnr"]


def psnr(original: Any, restored: Any) -> Any:
    """Peak signal-to-noise ratio over all channels in dB, one value per image, for `fit` to average and log.

        psnr = -10 log10(max(mse(original, clip(restored, 0, 1)), 1e-10))

    Args:
        original: float tensor `(batch, height, width, channels)` in `[0, 1]`.
        restored: same shape and dtype; what lies outside `[0, 1]` counts as clipped.

    Returns:
        Tensor `(batch,)`, at most 100.
    """
    error = ops.maximum(mse(original, ops.clip(restored, 0.0, 1.0)), 1e-10)
    return -10.0 * ops.log10(error)


@keras.saving.register_keras_serializable("keras_deartifact")
class DeartifactGAN(Trainer):
    """Trains a generator; see the module. Called with `(images, quantiser_map)`, it restores with the averaged weights.

    Args:
        generator: built, see `models.GENERATORS`; it starts with the weights that it has.
        discriminator: built, see `models.DISCRIMINATORS`; None for direct training.
        **kwargs: see `keras.Model`.
    """

    averaged_file = "generator.keras"

    def __init__(self, generator: keras.Model, discriminator: keras.Model | None = None, **kwargs: Any) -> None:
        names = ["generator_loss", "pixel_loss", "perceptual_loss", "psnr", "ssim"]
        if discriminator is not None:
            names += ["adversarial_loss", "discriminator_loss", "discriminator_real", "discriminator_fake"]
        super().__init__(generator, names, **kwargs)
        self.generator = generator
        self.discriminator = discriminator
        self.built = True

    def compile(
        self,
        optimizer: keras.Optimizer,
        discriminator_optimizer: keras.Optimizer | None = None,
        losses: Mapping[str, float] | None = None,
        perceptual: Callable[[Any, Any], Any] | None = None,
        perceptual_weight: float = 1.0,
        perceptual_shift: int = 0,
        adversarial: str = "sub_patch",
        adversarial_weight: float = 1.0,
        ramp_steps: int = 0,
        gradient_clip: float | None = None,
        ema_momentum: float = 0.999,
    ) -> None:
        """Sets how to train.

        Args:
            optimizer: of the generator; a `LossScaleOptimizer` where the dtype policy is `mixed_float16`.
            discriminator_optimizer: of the discriminator, likewise.
            losses: weight of each pixel loss, by its name in `losses.LOSSES`.
            perceptual: `(original, restored) -> (batch,)`, see `perceptual.perceptual_loss`; not saved with the model.
            perceptual_weight: of that loss.
            perceptual_shift: pixels of the crop's sides that it leaves out, at offsets that change with every step. A
                backbone pools on a grid of its own; with crops that always start on the generator's grid too, the
                generator learns to draw that grid (seen after 500 steps from a direct model). 0, as in the paper, uses
                the whole crop.
            adversarial: key of `adversarial.ADVERSARIAL`.
            adversarial_weight: lambda of Eq. 6 and 7, once the ramp is over.
            ramp_steps: steps over which lambda rises from 0.
            gradient_clip: largest norm of a network's whole gradient; None for no limit.
            ema_momentum: of the running mean of the weights, in `[0, 1)`.

        Raises:
            ValueError: no loss, an unknown one, or a discriminator without its optimizer or the other way round.
        """
        if not (losses or perceptual):
            raise ValueError(f"Expected losses, or a perceptual one. Received: losses={losses}")
        if adversarial not in ADVERSARIAL:
            raise ValueError(f"Expected a loss of {sorted(ADVERSARIAL)}. Received: adversarial={adversarial!r}")
        if (self.discriminator is None) != (discriminator_optimizer is None):
            raise ValueError(
                "Expected an optimizer for each network. Received: "
                f"discriminator={self.discriminator}, discriminator_optimizer={discriminator_optimizer}"
            )
        self.compile_step(optimizer, gradient_clip, ema_momentum)
        self.optimizer.build(self.generator.trainable_variables)
        self.discriminator_optimizer = discriminator_optimizer
        if self.discriminator is not None and discriminator_optimizer is not None:
            discriminator_optimizer.build(self.discriminator.trainable_variables)
        self.pixel_losses = dict(losses or {})
        self.perceptual = perceptual
        self.perceptual_weight = perceptual_weight
        self.perceptual_shift = perceptual_shift
        self.adversarial = ADVERSARIAL[adversarial]
        self.adversarial_weight = adversarial_weight
        self.ramp_steps = ramp_steps

    def train_step(self, data: Any) -> dict[str, Any]:
        inputs, original, weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape(persistent=True) as tape:
            restored = ops.cast(self.generator(inputs, training=True), "float32")
            values = self._loss_values(inputs[0], original, restored, weight, training=True)
            scaled = {"generator_loss": self.scaled(values["generator_loss"], self.optimizer)}
            if self.discriminator is not None:
                scaled["discriminator_loss"] = self.scaled(values["discriminator_loss"], self.discriminator_optimizer)
        self.descend(tape, scaled["generator_loss"], self.generator, self.optimizer)
        if self.discriminator is not None:
            self.descend(tape, scaled["discriminator_loss"], self.discriminator, self.discriminator_optimizer)
        del tape
        self.count(self.generator)
        return self.log({**values, "psnr": psnr(original, restored)})

    def test_step(self, data: Any) -> dict[str, Any]:
        inputs, original, weight = keras.utils.unpack_x_y_sample_weight(data)
        restored = ops.cast(self.averaged(inputs, training=False), "float32")
        values = self._loss_values(inputs[0], original, restored, weight, training=False)
        similarity = 1.0 - one_minus_ssim(original, ops.clip(restored, 0.0, 1.0))
        return self.log({**values, "psnr": psnr(original, restored), "ssim": similarity})

    def _loss_values(
        self, compressed: Any, original: Any, restored: Any, weight: Any, training: bool
    ) -> dict[str, Any]:
        """Returns every loss, one value per image."""
        values = {}
        total = ops.zeros_like(original[:, 0, 0, 0])
        if self.pixel_losses:
            values["pixel_loss"] = weighted_losses(original, restored, self.pixel_losses)
            total = total + (values["pixel_loss"] if weight is None else weight * values["pixel_loss"])
        if self.perceptual is not None:
            values["perceptual_loss"] = self.perceptual(*self._shifted(original, restored))
            total = total + self.perceptual_weight * values["perceptual_loss"]
        if self.discriminator is not None:
            real = self.discriminator((compressed, original), training=training)
            fake = self.discriminator((compressed, restored), training=training)
            values["adversarial_loss"] = self.adversarial.generator(real, fake)
            values["discriminator_loss"] = self.adversarial.discriminator(real, fake)
            values["discriminator_real"] = probability(real)
            values["discriminator_fake"] = probability(fake)
            total = total + self._ramp() * values["adversarial_loss"]
        return {**values, "generator_loss": total}

    def _shifted(self, *images: Any) -> list[Any]:
        """Cuts the same part out of each, at an offset that depends on the step alone."""
        if not self.perceptual_shift:
            return list(images)
        seed = tf.stack([tf.cast(self.step.value, tf.int32), 0])
        row, column = tf.unstack(tf.random.stateless_uniform((2,), seed, 0, self.perceptual_shift + 1, tf.int32))
        height, width = (side - self.perceptual_shift for side in images[0].shape[1:3])
        return [each[:, row : row + height, column : column + width] for each in images]

    def _ramp(self) -> Any:
        step = ops.cast(self.step, "float32")
        return self.adversarial_weight * ops.minimum(1.0, step / self.ramp_steps if self.ramp_steps else 1.0)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "generator": keras.saving.serialize_keras_object(self.generator),
            "discriminator": keras.saving.serialize_keras_object(self.discriminator),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "DeartifactGAN":
        networks = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects)
            for name in ("generator", "discriminator")
        }
        return cls(**{**config, **networks})
