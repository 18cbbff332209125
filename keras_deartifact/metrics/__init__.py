"""How good a restored picture or clip is: one metric a file, plain numpy, one float.

All take uint8 pictures, `(height, width, 3)` of RGB or `(height, width)` of grey. "Luma" is always `image.luma`, full
range; a grey picture is its own luma. Each docstring names the rest of the protocol.

There is a registry for each kind of call:

    METRICS                    fn(original, restored)                 higher is better
    NO_REFERENCE_METRICS       fn(image)                              lower is better
    CLIP_METRICS               fn(original_frames, restored_frames)   lower is better
    NO_REFERENCE_CLIP_METRICS  fn(frames)                             lower is better
"""

from collections.abc import Callable, Iterable
from typing import Any

from keras_deartifact.metrics.bits_per_pixel import bits_per_pixel
from keras_deartifact.metrics.bootstrap import mean_interval
from keras_deartifact.metrics.brisque import brisque
from keras_deartifact.metrics.flicker import flicker
from keras_deartifact.metrics.ms_ssim import ms_ssim
from keras_deartifact.metrics.niqe import niqe
from keras_deartifact.metrics.psnr import psnr, psnr_y
from keras_deartifact.metrics.psnr_b import psnr_b
from keras_deartifact.metrics.ssim import ssim
from keras_deartifact.metrics.viideo import viideo

METRICS: dict[str, Callable[[Any, Any], float]] = {
    "psnr": psnr,
    "psnr_y": psnr_y,
    "psnr_b": psnr_b,
    "ssim": ssim,
    "ms_ssim": ms_ssim,
}

NO_REFERENCE_METRICS: dict[str, Callable[[Any], float]] = {
    "niqe": niqe,
    "brisque": brisque,
}

CLIP_METRICS: dict[str, Callable[[Iterable[Any], Iterable[Any]], float]] = {
    "flicker": flicker,
}

NO_REFERENCE_CLIP_METRICS: dict[str, Callable[[Iterable[Any]], float]] = {
    "viideo": viideo,
}

__all__ = [
    "CLIP_METRICS",
    "METRICS",
    "NO_REFERENCE_CLIP_METRICS",
    "NO_REFERENCE_METRICS",
    "bits_per_pixel",
    "brisque",
    "flicker",
    "mean_interval",
    "ms_ssim",
    "niqe",
    "psnr",
    "psnr_b",
    "psnr_y",
    "ssim",
    "viideo",
]
