"""Adversarial losses of logits: `ADVERSARIAL[name].generator` and `.discriminator`, one value per image.

Every function is called with `(real_logits, fake_logits)`: float tensors `(batch, rows, columns, 1)`, what the
discriminator says, before its sigmoid, about the original and about the restored image, each seen beside the compressed
one. It returns a float32 tensor `(batch,)`; a generator's loss need not depend on `real_logits`. Values and gradients
are finite for logits in `[-1e4, 1e4]`, where a sigmoid itself is 0 or 1 and its logarithm infinite.

Below, `sigmoid` is of every position, `mean` is over the positions of one image, and `-log(1 - sigmoid(l))` is computed
as `softplus(l)`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

__all__ = ["ADVERSARIAL", "AdversarialLoss"]

_POSITIONS = (1, 2, 3)


class AdversarialLoss(NamedTuple):
    """What the two sides of the game minimise, each `fn(real_logits, fake_logits) -> (batch,)`."""

    generator: Callable[[Any, Any], Any]
    discriminator: Callable[[Any, Any], Any]


def _log_mean_sigmoid(logits: Any) -> Any:
    """Returns `log(mean(sigmoid(logits)))`; that of `-logits` is `log(1 - mean(sigmoid(logits)))`."""
    logs = ops.log_sigmoid(ops.cast(logits, "float32"))
    return ops.logsumexp(logs, axis=_POSITIONS) - ops.log(ops.sum(ops.ones_like(logs), axis=_POSITIONS))


def _mean_softplus(logits: Any) -> Any:
    return ops.mean(ops.softplus(ops.cast(logits, "float32")), axis=_POSITIONS)


def sub_patch_generator(real_logits: Any, fake_logits: Any) -> Any:
    """The paper's adversarial term: the logarithm of the averaged sigmoid.

        loss = -log(mean(sigmoid(fake)))

    A generator is free to convince the discriminator in some sub-patches only: the gradient goes mostly to those that
    look real already.

    Reference: Galteri et al., "Preserving Low-Quality Video through Deep Learning", Eq. 7.
    """
    return -_log_mean_sigmoid(fake_logits)


def sub_patch_discriminator(real_logits: Any, fake_logits: Any) -> Any:
    """The discriminator's side of `sub_patch_generator`.

        loss = -log(mean(sigmoid(real))) - log(1 - mean(sigmoid(fake)))

    Reference: Galteri et al., "Preserving Low-Quality Video through Deep Learning", Eq. 4.
    """
    return -_log_mean_sigmoid(real_logits) - _log_mean_sigmoid(-fake_logits)


def per_pixel_generator(real_logits: Any, fake_logits: Any) -> Any:
    """The usual loss of a patch discriminator: the mean of every position's logarithm.

        loss = mean(-log(sigmoid(fake)))

    Reference: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017.
    """
    return _mean_softplus(-fake_logits)


def per_pixel_discriminator(real_logits: Any, fake_logits: Any) -> Any:
    """The discriminator's side of `per_pixel_generator`.

        loss = mean(-log(sigmoid(real))) + mean(-log(1 - sigmoid(fake)))

    The paper halves it; here it has the scale of `sub_patch`, which it equals where all positions agree.

    Reference: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017.
    """
    return _mean_softplus(-real_logits) + _mean_softplus(fake_logits)


def lsgan_generator(real_logits: Any, fake_logits: Any) -> Any:
    """Least squares, the logits taken as scores, without a sigmoid.

        loss = mean((fake - 1)^2) / 2

    Reference: Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017, Eq. 9.
    """
    return ops.mean(ops.square(ops.cast(fake_logits, "float32") - 1.0), axis=_POSITIONS) / 2.0


def lsgan_discriminator(real_logits: Any, fake_logits: Any) -> Any:
    """The discriminator's side of `lsgan_generator`.

        loss = (mean((real - 1)^2) + mean(fake^2)) / 2

    Reference: Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017, Eq. 9.
    """
    real, fake = ops.cast(real_logits, "float32"), ops.cast(fake_logits, "float32")
    return (ops.mean(ops.square(real - 1.0), axis=_POSITIONS) + ops.mean(ops.square(fake), axis=_POSITIONS)) / 2.0


def relativistic_generator(real_logits: Any, fake_logits: Any) -> Any:
    """Relativistic average: the restored image should look more real than the original, not just real.

        loss = mean(-log(sigmoid(fake - mean(real)))) + mean(-log(1 - sigmoid(real - mean(fake))))

    The paper takes the inner means over the batch. Here they are over the positions of one image, so that the loss
    depends neither on its neighbours in the batch nor on the number of replicas.

    References: Jolicoeur-Martineau, "The relativistic discriminator: a key element missing from standard GAN", ICLR
    2019; Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", ECCVW 2018, Eq. 2.
    """
    return relativistic_discriminator(fake_logits, real_logits)


def relativistic_discriminator(real_logits: Any, fake_logits: Any) -> Any:
    """The discriminator's side of `relativistic_generator`: the same with the roles exchanged.

        loss = mean(-log(sigmoid(real - mean(fake)))) + mean(-log(1 - sigmoid(fake - mean(real))))

    References: Jolicoeur-Martineau, "The relativistic discriminator: a key element missing from standard GAN", ICLR
    2019; Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", ECCVW 2018, Eq. 1.
    """
    real, fake = ops.cast(real_logits, "float32"), ops.cast(fake_logits, "float32")
    mean_real = ops.mean(real, axis=_POSITIONS, keepdims=True)
    mean_fake = ops.mean(fake, axis=_POSITIONS, keepdims=True)
    return _mean_softplus(mean_fake - real) + _mean_softplus(fake - mean_real)


ADVERSARIAL = {
    "sub_patch": AdversarialLoss(sub_patch_generator, sub_patch_discriminator),
    "per_pixel": AdversarialLoss(per_pixel_generator, per_pixel_discriminator),
    "lsgan": AdversarialLoss(lsgan_generator, lsgan_discriminator),
    "relativistic": AdversarialLoss(relativistic_generator, relativistic_discriminator),
}
