from fractions import Fraction

import av
import numpy as np
import pytest

from keras_deartifact import video


def test_probe_reads_the_headers(tmp_path, make_video):
    info = video.probe(make_video(tmp_path / "in.mp4", options={"profile": "high"}, setup={"colorspace": 1}))
    assert (info.codec, info.profile, info.width, info.height) == ("h264", "High", 96, 64)
    assert (info.pix_fmt, info.bit_depth, info.frame_rate, info.frame_count) == ("yuv420p", 8, 25, 30)
    assert (info.duration, info.start, info.time_base) == (Fraction(6, 5), 0, Fraction(1, 16000))
    assert {type(each) for each in (info.frame_rate, info.duration, info.time_base)} == {Fraction}
    assert (info.matrix, info.primaries, info.video_streams, info.rotation_degrees) == ("bt709", None, 1, 0)
    assert info.bit_rate_bps > 0
    assert info.interlaced is False
    assert info.others == (video.StreamInfo(1, "audio", "aac", "fra"),)
    assert video.probe(make_video(tmp_path / "ten.mkv", acodec=None, pix_fmt="yuv420p10le")).bit_depth == 10


def test_files_that_are_no_video(tmp_path):
    empty, sound = tmp_path / "empty.mp4", tmp_path / "sound.wav"
    empty.touch()
    with pytest.raises(ValueError, match="complete video file.*empty.mp4"):
        video.read_frames(empty)
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), format="s16", layout="stereo")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    for function in (video.probe, video.read_frames):
        with pytest.raises(ValueError, match="must hold a video stream; it holds audio streams.*sound.wav"):
            function(sound)
        with pytest.raises(FileNotFoundError):
            function(tmp_path / "missing.mp4")


def test_a_cut_before_the_index_cannot_be_opened(tmp_path, make_video):
    source = make_video(tmp_path / "in.mp4")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(source.read_bytes()[:-400])
    with pytest.raises(ValueError, match="cut off before its index"):
        video.probe(cut)
