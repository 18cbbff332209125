"""Random degradations of a clip: which codec, how strong, on which grid, how often.

Every choice comes from the `numpy.random.Generator` that the caller passes, so that a seed repeats a data set exactly.
Still pictures are degraded inside `tf.data` (`data.py`), where the JPEG operations are native; this module is for what
only a real video encoder can make.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keras_deartifact import codecs, quantiser

__all__ = ["CLEAN_REDUCTION", "VideoConfig", "degrade_clip", "random_encoding"]

CLEAN_REDUCTION = 1.4

_STILL_QUALITIES = (8, 90)
_PRESETS = ("veryfast", "fast", "medium", "slow")


@dataclass(frozen=True)
class VideoConfig:
    """How clips are degraded.

    Attributes:
        codec_shares: weight of each codec, by its name in `codecs.CODECS`.
        crf_range: of most H.264 and H.265 encodes, inclusive.
        wide_crf_range: of the rest.
        wide_share: share of encodes that use the wide range.
        bitrate_share: share of encodes with a target bitrate in place of a quality.
        bits_per_pixel_range: of those, chosen evenly in the logarithm.
        qscale_range: of MPEG-2 and MPEG-4, inclusive.
        share_444: share of H.264 encodes without chroma subsampling.
        double_share: share of clips that are encoded, cropped off the grid or not, and encoded again.
        misaligned_share: of those, the share cropped off the grid.
        unknown_share: share of pairs whose map says `DEFAULT_LOG2_STEP`, as where a file tells nothing.
        still_first_share: of the clips that are encoded twice, the share whose frames were JPEGs first.
        coarser_of_double: if True, the map of a clip that was encoded twice is that of the coarser one, block by block,
            as the quality predictor is to see it; else that of the last, as a file tells it.
        clean_share: share of clips that are not encoded at all, but reduced by `CLEAN_REDUCTION`, so that nothing of
            the file they came from is left to see; their map says 0.
    """

    codec_shares: tuple[tuple[str, float], ...] = (("h264", 0.6), ("mpeg2", 0.14), ("mpeg4", 0.12), ("h265", 0.14))
    crf_range: tuple[int, int] = (24, 44)
    wide_crf_range: tuple[int, int] = (8, 48)
    wide_share: float = 0.35
    bitrate_share: float = 0.15
    bits_per_pixel_range: tuple[float, float] = (0.02, 0.4)
    qscale_range: tuple[int, int] = (2, 26)
    share_444: float = 0.1
    double_share: float = 0.1
    misaligned_share: float = 0.5
    unknown_share: float = 0.05
    still_first_share: float = 0.0
    coarser_of_double: bool = False
    clean_share: float = 0.0


def random_encoding(
    rng: np.random.Generator, shape: tuple[int, ...], config: VideoConfig
) -> tuple[str, dict[str, Any]]:
    """Chooses a codec and its settings.

    Args:
        rng: source of every choice.
        shape: of the clip, `(n, height, width, 3)`; a target bitrate follows the number of pixels.
        config: the ranges.

    Returns:
        The codec's name in `codecs.CODECS` and the keyword arguments for it.
    """
    names, shares = zip(*config.codec_shares, strict=True)
    name = str(rng.choice(names, p=np.array(shares) / sum(shares)))
    settings: dict[str, Any] = {}
    modern = name in ("h264", "h265")
    if rng.random() < config.bitrate_share:
        low, high = np.log(config.bits_per_pixel_range)
        bits_per_pixel = float(np.exp(rng.uniform(low, high)))
        settings["bitrate_kbps"] = max(8, round(bits_per_pixel * shape[1] * shape[2] * 25 / 1000))
    elif modern:
        low, high = config.wide_crf_range if rng.random() < config.wide_share else config.crf_range
        settings["crf"] = int(rng.integers(low, high + 1))
    else:
        low, high = config.qscale_range
        settings["qscale"] = round(float(np.exp(rng.uniform(np.log(low), np.log(high)))))
    if modern:
        settings["preset"] = str(rng.choice(_PRESETS[:3] if name == "h265" else _PRESETS))
        settings["gop"] = int(rng.choice((12, 50, 250)))
    settings["b_frames"] = int(rng.integers(0, 4)) if modern else int(rng.choice((0, 2)))
    if name == "h264" and rng.random() < config.share_444:
        settings["pix_fmt"] = "yuv444p"
    return name, settings


def degrade_clip(
    rng: np.random.Generator, frames: NDArray[np.uint8], config: VideoConfig
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
    """Encodes and decodes a clip with a random codec, some of them twice.

    Args:
        rng: source of every choice.
        frames: uint8 RGB `(n, height, width, 3)`, height and width multiples of 16 and at least 64.
        config: the ranges.

    Returns:
        `(original, compressed, quantiser_maps)`: two uint8 clips of one shape, 16 pixels smaller each way where a
        misaligned first encode was cropped and the smaller size of a clean one, and the maps, smoothed in time, float32
        `(n, height / 16, width / 16)`: of the last encode unless the configuration says otherwise.
    """
    if config.clean_share and rng.random() < config.clean_share:
        frames = _reduce(frames)
        return (
            frames,
            frames,
            np.zeros((len(frames), *(side // quantiser.BLOCK for side in frames.shape[1:3])), np.float32),
        )
    compressed = frames
    before = None
    if rng.random() < config.double_share:
        first = _encode(rng, frames, config, config.still_first_share)
        compressed, before = first.frames, first.quantisers
        if rng.random() < config.misaligned_share:
            row, column = (int(offset) for offset in rng.integers(1, 16, 2))
            height, width = frames.shape[1] - 16, frames.shape[2] - 16
            frames = frames[:, row : row + height, column : column + width]
            compressed = np.ascontiguousarray(compressed[:, row : row + height, column : column + width])
            before = None if before is None else _shifted(before, row, column)
    result = _encode(rng, compressed, config)
    if result.quantisers is None or rng.random() < config.unknown_share:
        maps = np.stack([quantiser.constant_map(*frames.shape[1:3])] * len(frames))
    else:
        maps = np.stack(list(quantiser.smooth_in_time(result.quantisers)))
    if config.coarser_of_double and before is not None:
        maps = np.maximum(maps, np.stack(list(quantiser.smooth_in_time(before))))
    return frames, result.frames, maps


def _encode(
    rng: np.random.Generator, frames: NDArray[np.uint8], config: VideoConfig, still_share: float = 0.0
) -> codecs.RoundTrip:
    """Encodes and decodes with a random codec, or frame by frame as JPEGs."""
    if still_share and rng.random() < still_share:
        return codecs.jpeg(frames, int(rng.integers(*_STILL_QUALITIES)))
    name, settings = random_encoding(rng, frames.shape, config)
    return codecs.CODECS[name](frames, **settings)


def _reduce(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = (int(side / CLEAN_REDUCTION) // quantiser.BLOCK * quantiser.BLOCK for side in frames.shape[1:3])
    size = width, height
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)) for frame in frames])


def _shifted(maps: NDArray[np.float32], row: int, column: int) -> NDArray[np.float32]:
    """Returns the maps on a grid that begins so many pixels further down and right, a block smaller each way."""
    down, right = (np.float32(offset / quantiser.BLOCK) for offset in (row, column))
    maps = (1 - down) * maps[:, :-1] + down * maps[:, 1:]
    return (1 - right) * maps[:, :, :-1] + right * maps[:, :, 1:]
