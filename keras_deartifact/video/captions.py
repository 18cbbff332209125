"""Closed captions, which lie in the frames themselves."""

import av

from keras_deartifact.video import side_data


def has_captions(frame: av.VideoFrame) -> bool:
    """Whether a frame holds captions by CEA-608 or 708."""
    return side_data.of(frame).get("A53_CC") is not None
