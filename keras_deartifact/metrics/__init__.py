"""How near a restored picture is to the original: one metric a file, `fn(original, restored) -> float`.

All take uint8 pictures, `(height, width, 3)` of RGB or `(height, width)` of grey, and measure the whole picture without
cropping a border. "Luma" is always `image.luma`, full range; a grey picture is its own luma.
"""

from collections.abc import Callable
from typing import Any

from keras_deartifact.metrics.psnr import psnr, psnr_y
from keras_deartifact.metrics.psnr_b import psnr_b
from keras_deartifact.metrics.ssim import ssim

METRICS: dict[str, Callable[[Any, Any], float]] = {
    "psnr": psnr,
    "psnr_y": psnr_y,
    "psnr_b": psnr_b,
    "ssim": ssim,
}

__all__ = ["METRICS", "psnr", "psnr_b", "psnr_y", "ssim"]
