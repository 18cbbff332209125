"""What comes with a frame beside its picture."""

from collections.abc import Mapping
from typing import Any, cast

import av
from av.sidedata.sidedata import SideDataContainer


def of(frame: av.VideoFrame) -> Mapping[str, Any]:
    """The side data of a frame by ffmpeg's names without their prefix.

    `frame.side_data` keeps what it returns, which in turn keeps the frame: a cycle, so that frames of 12 MB would wait
    for the collector of garbage, dozens at a time.
    """
    # The stubs know nothing of the constructor, nor that it is a mapping.
    container: Any = SideDataContainer
    return cast("Mapping[str, Any]", container(frame))
