"""Closed captions, which lie in the frames themselves."""

import av

from keras_deartifact.video import carriers


def has_captions(frame: av.VideoFrame) -> bool:
    """Whether a frame holds captions by CEA-608 or 708."""
    return "A53_CC" in carriers.side_data(frame)
