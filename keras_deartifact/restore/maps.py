"""The quantiser maps of a video's frames: all that restoring carries from one frame to the next."""

import functools
import hashlib
import zlib
from collections import deque
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
import numpy.typing as npt

from keras_deartifact import colour, fields, quantiser, video
from keras_deartifact.engines import Predictor
from keras_deartifact.restore.frames import known_map, predicted_map
from keras_deartifact.restore.plan import PREDICTED_MAPS, STATED_MAPS

Floats = npt.NDArray[np.float32]

VIDEO_MARGIN = 1.25
"""How much coarser a video's frame has to look than its bitstream states, in log2 steps.

1.1 % of frames that were compressed once exceed it."""

EARLIER_LOG2_STEP = 4.25
"""How coarse a video's frame has to look to count as compressed harder before: up to here, soft optics look the same.

It is the step of H.264's QP 29 to 30."""

# Rows of a picture from one to the next that counts where frames are compared.
_ROWS_APART = 4


@dataclass
class _Look:
    """What the predictor sees in a frame.

    Attributes:
        number: of the look.
        mark: of the frame.
        frame: until the predictor was asked; None afterwards.
        predicted: what it said.
    """

    number: int
    mark: int
    frame: av.VideoFrame | None
    predicted: Floats | None = None


class Maps:
    """The maps of successive frames.

    The bitstream's are smoothed over `STATED_MAPS` frames; one without a map takes its predecessor's. The predictor's
    are smoothed over `PREDICTED_MAPS` looks, those of whole frames and of interlaced ones by themselves, for they may
    take turns. So what a frame's map depends on lies a fixed number of frames back, unless frames have no maps.

    Attributes:
        stated: whether the bitstream gave the last frame a map.
    """

    def __init__(self, predictor: Predictor | None, codec: str) -> None:
        """Begins without a past.

        Args:
            predictor: see `restore_video`.
            codec: decoder of the video.
        """
        self.stated = False
        self._predictor = predictor
        self._codec = codec if codec in quantiser.STEP_FROM_QP else None
        self._stated: deque[Floats] = deque(maxlen=STATED_MAPS)
        self._looks = {kind: deque[_Look](maxlen=PREDICTED_MAPS) for kind in (False, True)}
        self._marks: deque[int] = deque(maxlen=STATED_MAPS)

    def see(self, frame: video.Frame, look: int) -> None:
        """Takes the next frame.

        Args:
            frame: as it was decoded; not changed before `of`.
            look: number of the look that it belongs to.
        """
        self._marks.append(_mark(frame.image))
        self.stated = frame.qp is not None and self._codec is not None
        if frame.qp is not None and self._codec is not None:
            self._stated.append(quantiser.log2_step_from_qp(frame.qp, self._codec))
        elif self._stated:
            self._stated.append(self._stated[-1])
        looks = self._looks[frame.image.interlaced_frame]
        if self._predictor is not None and not (looks and looks[-1].number == look):
            looks.append(_Look(look, self._marks[-1], frame.image))

    def of(self, frame: av.VideoFrame, pictures: tuple[av.VideoFrame, ...], look: int) -> tuple[Floats, float | None]:
        """Returns the map of the frame that was seen last, and the median of what the predictor says if it looks at it.

        Args:
            frame: the frame.
            pictures: it, or its fields, whose map is wanted.
            look: number of the look that it belongs to.
        """
        looks = self._looks[frame.interlaced_frame]
        looked = bool(looks) and looks[-1].frame is frame
        recent = [self._predicted(each) for each in looks if look - each.number < PREDICTED_MAPS]
        steps = functools.reduce(quantiser.smoothed, self._stated) if self._stated else None
        if steps is not None and len(pictures) > 1:
            steps = fields.field_map(steps)
        size = pictures[0].height, pictures[0].width
        predicted = functools.reduce(quantiser.smoothed, recent) if recent else None
        known = known_map(steps, predicted, size, VIDEO_MARGIN, EARLIER_LOG2_STEP)
        return known, float(np.median(recent[-1])) if looked else None

    def digest(self, look: int) -> str:
        """Returns a mark of all that the next frames depend on, as far as it comes from the decoder.

        Args:
            look: number of the look that the next frame belongs to.
        """
        looks = [each for kind in (False, True) for each in self._looks[kind] if look - each.number < PREDICTED_MAPS]
        numbers = [*self._marks, *(value for each in looks for value in (look - each.number, each.mark))]
        digest = hashlib.sha256(np.array(numbers, np.int64).tobytes())
        for stated in self._stated:
            digest.update(stated.tobytes())
        return digest.hexdigest()[:16]

    def _predicted(self, look: _Look) -> Floats:
        if look.predicted is None:
            rgb = colour.to_rgb(fields.pictures(cast(av.VideoFrame, look.frame))[0])
            look.predicted = predicted_map(cast(Predictor, self._predictor), rgb[None])
            look.frame = None
        return look.predicted


def _mark(frame: av.VideoFrame) -> int:
    """A number that tells a frame from others by its time and its picture."""
    plane = frame.planes[0]
    rows = video.lines(plane)[::_ROWS_APART, : plane.width]
    return zlib.crc32(rows.tobytes(), zlib.crc32(b"%d" % (frame.pts or 0)))
