"""How fast a video is restored on this machine, decoding and encoding included: a few of its frames are."""

import tempfile
import time
from pathlib import Path
from typing import Any

from keras_deartifact import files
from keras_deartifact.engines import Restorer
from keras_deartifact.restore.preview import cut
from keras_deartifact.restore.videos import restore_video

__all__ = ["trial"]

_PART_SECONDS = 2.0
_MOST_SECONDS = 4.0

# While the stages fill up, nothing waits.
_FIRST = 4
_LEAST = 4


class _Enough(Exception):
    """Enough is known."""


def trial(restorer: Restorer, source: files.StrPath, suffix: str, **options: Any) -> float | None:
    """Returns frames a second of a whole run, or None where the video is too short to tell.

    Args:
        restorer: see `engines`.
        source: a video file.
        suffix: of the target's name.
        options: of `restore_video`.

    Raises:
        ValueError: what `restore_video` raises.
        OSError: likewise.
    """
    if options.get("strength") is None:
        # Otherwise what is black or drawn would not be put through the network, and any network be fast.
        options = {**options, "strength": 1.0}
    times: list[float] = []
    started = time.perf_counter()

    def watch(frames: int) -> None:
        times.append(time.perf_counter())
        if len(times) >= _FIRST + _LEAST and times[-1] - started > _MOST_SECONDS:
            raise _Enough

    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "part.mkv"
        cut(source, part, _PART_SECONDS)
        try:
            restore_video(restorer, part, Path(folder) / f"trial{suffix}", progress=watch, **options)
        except _Enough:
            pass
    counted = times[_FIRST - 1 :]
    if len(counted) <= _LEAST:
        return None
    return (len(counted) - 1) / (counted[-1] - counted[0])
