"""How restored videos are encoded unless told otherwise: which encoder, at what quality and speed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

from av.video.format import VideoFormat

from keras_deartifact import codecs


@dataclass(frozen=True)
class Encoder:
    """How an encoder is run unless told otherwise: at a quality that takes back little of what was gained.

    Attributes:
        crf: constant rate factor in the encoder's own scale, down is better; None for one that has none.
        crf_maximum: the scale's worst end.
        preset: speed against size; None for one that has none.
        presets: all that there are.
        options: further options.
        threads: x264 and x265 decide otherwise by how many they have, so that the number must not be the machine's. It
            also bounds the frames that they hold.
    """

    crf: float | None = None
    crf_maximum: float = 51
    preset: str | None = None
    presets: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    threads: int = 4

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments of `video.VideoWriter`."""
        return {
            "crf": self.crf or 0,
            "preset": self.preset or "",
            "options": self.options,
            "threads": self.threads,
        }


# What the second encode takes back, on the clip of `demo`: 0.02 dB of luma where the source has CRF 40; 0.12 (H.264) or
# 0.06 (H.265) where it has CRF 28, and 0.17 with H.264 at CRF 16. x264's "medium" makes files 5 % smaller than "faster"
# for twice the time on cores that the network wants.
ENCODERS: dict[str, Encoder] = {
    "libx264": Encoder(14, preset="faster", presets=codecs.PRESETS, options=codecs.X264_OPTIONS),
    "libx264rgb": Encoder(14, preset="faster", presets=codecs.PRESETS, options=codecs.X264_OPTIONS),
    "libx265": Encoder(14, preset="faster", presets=codecs.PRESETS),
    "libvpx-vp9": Encoder(10, 63, options={"deadline": "good", "cpu-used": "5", "row-mt": "1"}),
    "libsvtav1": Encoder(10, 63, "9", tuple(map(str, range(14)))),
    "ffv1": Encoder(options={"level": "3", "slicecrc": "1"}),
}


def default(target: str | PathLike[str], pix_fmt: str = "yuv420p") -> str:
    """The encoder for a file name and what the source has.

    Args:
        target: the file to write.
        pix_fmt: the source's pixel format.

    Returns:
        A key of `ENCODERS`: VP9 for .webm, which holds no H.264; FFV1 for alpha in .mkv; otherwise H.264, or H.265
        above 10 bits.
    """
    if Path(target).suffix.lower() == ".webm":
        return "libvpx-vp9"
    if Path(target).suffix.lower() == ".mkv" and any(each.is_alpha for each in VideoFormat(pix_fmt).components):
        return "ffv1"
    if VideoFormat(pix_fmt).components[0].bits > 10:
        return "libx265"
    return "libx264rgb" if VideoFormat(pix_fmt).is_rgb else "libx264"


# Above so many pixels x264 looks fewer frames ahead: at 4K each takes 24 MB. At the same CRF it then gives 13 % fewer
# bits and 0.8 dB less, of 49, on a clip of 720p; quality for bits is nearly the same.
_LARGE_PIXELS, _LARGE_LOOKAHEAD = 4_000_000, 10
# These do so in any case.
_SHORT_SIGHTED = ("ultrafast", "superfast", "veryfast")


def choose(codec: str, crf: float | None = None, preset: str | None = None, pixels: int = 0) -> Encoder:
    """The entry of `ENCODERS`, with what is asked for instead of its defaults.

    Args:
        codec: key of `ENCODERS`.
        crf: see `Encoder`.
        preset: likewise.
        pixels: of a frame, for what large ones have to be spared.

    Raises:
        ValueError: an unknown codec or preset, or a crf that the encoder does not have.
    """
    if codec not in ENCODERS:
        raise ValueError(f"expected a codec of {sorted(ENCODERS)}. Received: codec={codec!r}")
    encoder = ENCODERS[codec]
    if crf is not None and (encoder.crf is None or not 0 <= crf <= encoder.crf_maximum):
        expected = "no crf" if encoder.crf is None else f"a crf of 0 to {encoder.crf_maximum:g}"
        raise ValueError(f"expected {expected} for {codec}. Received: crf={crf:g}")
    # x264 itself would tell of an unknown one, on stderr.
    if preset is not None and preset not in encoder.presets:
        expected = f"a preset of {', '.join(encoder.presets)}" if encoder.presets else "no preset"
        raise ValueError(f"expected {expected} for {codec}. Received: preset={preset!r}")
    preset = preset or encoder.preset
    options = dict(encoder.options)
    if codec in ("libx264", "libx264rgb") and pixels > _LARGE_PIXELS and preset not in _SHORT_SIGHTED:
        options["x264-params"] = ":".join(
            filter(None, [options.get("x264-params"), f"rc-lookahead={_LARGE_LOOKAHEAD}"])
        )
    return replace(encoder, crf=encoder.crf if crf is None else crf, preset=preset, options=options)
