"""Restoring: frames, picture files and video files through a `Restorer`, whatever runs it (`engines`).

`restore_frames` pads and tiles. `restore_image` and `restore_video` make a restored copy of a file that keeps all but
the pixels. The copy is written under a hidden temporary name beside its target and gets its name when it is complete.
A run that fails leaves nothing behind but what is finished of a video, and what is refused not even that. The source is
only ever read. `plan_video`, `restore_segment` and `join_segments` make what `restore_video` makes, in parts;
`image_steps` and `together` make what `restore_image` makes, of several files at a time.
"""

from keras_deartifact.restore.frames import MARGIN, TILE, WHOLE_PIXELS, margin_of_tile, restore_frames
from keras_deartifact.restore.journal import Segment, clean, frames_kept
from keras_deartifact.restore.maps import EARLIER_LOG2_STEP, VIDEO_MARGIN
from keras_deartifact.restore.pictures import (
    JPEG_EARLIER_LOG2_STEP,
    JPEG_MARGIN,
    LOSSLESS_LOG2_STEP,
    PREDICTED_FRAMES,
    STILL_SHARE,
    SUBSAMPLED_SHARE,
    ImageReport,
    image_steps,
    restore_image,
)
from keras_deartifact.restore.plan import PREDICT_EVERY, SegmentPlan, VideoOptions, VideoPlan, plan_video
from keras_deartifact.restore.preview import preview_image, preview_video
from keras_deartifact.restore.ranges import join_segments, restore_segment, seams
from keras_deartifact.restore.run import MPEG_SHARE, VIDEO_SHARE
from keras_deartifact.restore.together import Steps, together
from keras_deartifact.restore.trial import trial
from keras_deartifact.restore.videos import VideoReport, restore_video

__all__ = [
    "EARLIER_LOG2_STEP",
    "JPEG_EARLIER_LOG2_STEP",
    "JPEG_MARGIN",
    "LOSSLESS_LOG2_STEP",
    "MARGIN",
    "MPEG_SHARE",
    "PREDICTED_FRAMES",
    "PREDICT_EVERY",
    "STILL_SHARE",
    "SUBSAMPLED_SHARE",
    "TILE",
    "VIDEO_MARGIN",
    "VIDEO_SHARE",
    "WHOLE_PIXELS",
    "ImageReport",
    "Segment",
    "SegmentPlan",
    "Steps",
    "VideoOptions",
    "VideoPlan",
    "VideoReport",
    "clean",
    "frames_kept",
    "image_steps",
    "join_segments",
    "margin_of_tile",
    "plan_video",
    "preview_image",
    "preview_video",
    "restore_frames",
    "restore_image",
    "restore_segment",
    "restore_video",
    "seams",
    "together",
    "trial",
]
