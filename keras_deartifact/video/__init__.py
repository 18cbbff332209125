"""Video files in and out: what a file holds, its frames in order, and a new file with everything but the pictures kept.

`probe` describes a file. `read_frames` streams decoded frames with the quantiser the encoder chose for every
macroblock, which the bitstream holds and PyAV exports. `VideoWriter` encodes frames at the source's exact presentation
times, with its fields, colour and HDR description, pixel shape, rotation, chapters and metadata, and copies the packets
of all other streams unchanged.

Time is integer ticks of a `Fraction` time base, never a float. Nothing holds more than a few frames or packets.
"""

from keras_deartifact.video.carriers import lines, with_picture
from keras_deartifact.video.containers import TooLargeError
from keras_deartifact.video.info import StreamInfo, VideoInfo, probe
from keras_deartifact.video.interlacing import Chain
from keras_deartifact.video.places import LostError, Packets, Place, read_packets
from keras_deartifact.video.reader import BrokenVideoError, Frame, macroblock_qp, read_frames, shows_at_dts
from keras_deartifact.video.writer import VideoWriter

__all__ = [
    "BrokenVideoError",
    "Chain",
    "Frame",
    "LostError",
    "Packets",
    "Place",
    "StreamInfo",
    "TooLargeError",
    "VideoInfo",
    "VideoWriter",
    "lines",
    "macroblock_qp",
    "probe",
    "read_frames",
    "read_packets",
    "shows_at_dts",
    "with_picture",
]
