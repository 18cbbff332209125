import pytest
from av.codec.codec import Codec

from keras_deartifact import encoders


def test_default():
    assert encoders.default("a.mp4") == "libx264"
    assert encoders.default("a.WEBM") == "libvpx-vp9"
    assert encoders.default("a.mkv", "yuv420p10le") == "libx264"
    assert encoders.default("a.mkv", "yuv420p12le") == "libx265"
    assert encoders.default("a.mkv", "rgb24") == "libx264rgb"
    assert encoders.default("a.mkv", "gbrp12le") == "libx265"


@pytest.mark.parametrize("name", encoders.ENCODERS)
def test_every_encoder_is_there(name):
    assert Codec(name, "w").is_encoder
    encoder = encoders.choose(name)
    assert encoder == encoders.ENCODERS[name]
    assert encoder.preset is None or encoder.preset in encoder.presets


def test_what_is_asked_for_comes_first():
    chosen = encoders.choose("libx264", crf=20, preset="slow")
    assert (chosen.crf, chosen.preset) == (20, "slow")
    assert encoders.ENCODERS["libx264"].crf == 14


def test_large_frames_have_a_short_lookahead():
    def lookahead(*arguments):
        return "rc-lookahead=10" in encoders.choose(*arguments).options.get("x264-params", "").split(":")

    assert lookahead("libx264", None, None, 3840 * 2160) and lookahead("libx264rgb", None, "slow", 3840 * 2160)
    assert not lookahead("libx264", None, None, 1920 * 1080)
    assert not lookahead("libx264", None, "ultrafast", 3840 * 2160)
    assert encoders.choose("libx265", None, None, 3840 * 2160) == encoders.ENCODERS["libx265"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("libnothing",), "expected a codec of .*libx264.*libnothing"),
        (("libx264", 52), "a crf of 0 to 51 for libx264. Received: crf=52"),
        (("ffv1", 10), "no crf for ffv1"),
        (("libx264", None, "warp"), "a preset of ultrafast.*Received: preset='warp'"),
        (("libvpx-vp9", None, "fast"), "no preset for libvpx-vp9"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        encoders.choose(*arguments)
