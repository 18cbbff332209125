"""What is known of a file: `describe` gives it as plain values that JSON can hold, for `deartifact probe`."""

import dataclasses
import os
from fractions import Fraction
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_deartifact import files, quantiser, stills, video

FRAMES = 50
"""So many frames of a video are decoded for its quantisers."""

_JPEG_STATES = "the file's own tables"
_UNKNOWN = "unknown: the file does not tell; restoring judges it by the pixels"


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Describes a picture or a video.

    Args:
        path: the file.

    Returns:
        Names and values, in an order to print them. The first are `file`, `kind` (`image` or `video`) and `size_bytes`,
        the last ones tell the compression: `compression_from`, and where the file tells it `log2_step` (the luma
        quantiser step that the network is told; one number for a JPEG, `mean`, `minimum` and `maximum` over the first
        `FRAMES` frames for a video) with the codec's own number (`estimated_quality`, `qp`). None is "not stated". Of
        several pages all but their number is about the first.

    Raises:
        ValueError: neither a picture nor a video, or a broken one.
        OSError: the file system does not give it.
    """
    kind = files.kind(path)
    common = {"file": os.fspath(path), "kind": kind, "size_bytes": os.path.getsize(path)}
    return common | (_image(path) if kind == "image" else _video(path))


def _image(path: str | os.PathLike[str]) -> dict[str, Any]:
    found = stills.series(path)
    still = stills.read(path, inks=True) if found is None else next(stills.read_each(path, found, inks=True))
    height, width = still.pixels.shape[:2]
    values: dict[str, Any] = {
        "format": still.format,
        "mode": still.mode,
        "width": width,
        "height": height,
        "bit_depth": 8 * still.pixels.itemsize,
        "alpha": still.alpha is not None,
        "subsampling": still.subsampling,
        "dpi": still.dpi,
        "exif_bytes": len(still.exif or b""),
        "xmp_bytes": len(still.xmp or b""),
        "icc_profile_bytes": len(still.icc_profile or b""),
    }
    if found is not None and found.kind == stills.PAGES:
        values["page_count"] = found.count
    elif found is not None:
        shortest, longest = min(found.durations), max(found.durations)
        values |= {
            "frame_count": found.count,
            "duration_seconds": float(sum(found.durations)) / 1000,
            "frame_milliseconds": float(longest) if shortest == longest else [float(shortest), float(longest)],
            "plays": found.plays or "without end",
        }
    if not still.jpeg_tables:
        return values | {"compression_from": _UNKNOWN, "log2_step": None}
    luma = still.jpeg_tables[0]
    quality = quantiser.estimated_jpeg_quality(luma)
    return values | {
        "compression_from": _JPEG_STATES,
        "quantisation_tables": still.jpeg_tables,
        "estimated_quality": quality,
        "standard_table": bool((quantiser.jpeg_quality_table(quality).ravel() == np.ravel(luma)).all()),
        "log2_step": round(quantiser.jpeg_table_log2_step(luma), 2),
    }


def _video(path: str | os.PathLike[str]) -> dict[str, Any]:
    info = video.probe(path)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(info):
        value = getattr(info, field.name)
        if field.name in ("start", "duration"):
            values[f"{field.name}_seconds"] = None if value is None else float(value)
        elif isinstance(value, Fraction):
            values[field.name] = str(value)
        elif field.name == "others":
            values["other_streams"] = [dataclasses.asdict(stream) for stream in value]
        else:
            values[field.name] = dict(value) if field.name == "metadata" else value
    return values | _quantisers(path, info.codec)


def _quantisers(path: str | os.PathLike[str], codec: str) -> dict[str, Any]:
    maps: list[npt.NDArray[np.float32]] = []
    count = 0
    broken = None
    try:
        for frame in islice(video.read_frames(path), FRAMES):
            count += 1
            if frame.qp is not None:
                maps.append(frame.qp)
    except video.BrokenVideoError as error:
        broken = str(error)
    values: dict[str, Any] = {"frames_looked_at": count}
    if broken is not None:
        values["broken"] = broken
    if not maps or codec not in quantiser.STEP_FROM_QP:
        return values | {"compression_from": _UNKNOWN, "log2_step": None}
    qp = np.concatenate([each.ravel() for each in maps])
    return values | {
        "compression_from": "the bitstream's quantiser of every macroblock",
        "qp": _range(qp),
        "log2_step": _range(quantiser.log2_step_from_qp(qp, codec)),
    }


def _range(numbers: npt.NDArray[np.float32]) -> dict[str, float]:
    return {
        "mean": round(float(numbers.mean()), 2),
        "minimum": round(float(numbers.min()), 2),
        "maximum": round(float(numbers.max()), 2),
    }
