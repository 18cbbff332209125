from fractions import Fraction

import av
import numpy as np
import pytest

from keras_deartifact import encoders, restore, video
from keras_deartifact.restore import journal, plan
from keras_deartifact.video import segments
from keras_deartifact.video.encoding import FrameEncoder

TIMES = [0, 40, 73, 140, 141, 300, 900, *range(940, 2000, 40)]


def changed(frames, quantiser_map):
    """Depends on the frame and its map."""
    return (frames + quantiser_map.mean() / 255).astype(np.float32)


def packets_of(path):
    with av.open(str(path)) as container:
        return [
            (packet.stream_index, packet.pts, packet.dts, packet.duration, packet.is_keyframe, bytes(packet))
            for packet in container.demux()
            if packet.size
        ]


@pytest.mark.parametrize(
    ("pts", "dts"),
    [
        ([0, 1, 2], [0, 1, 2]),
        ([0, 40, 20, 60], [-20, 0, 20, 40]),
        # Two closed segments with a B-frame each; the rate changes at their border.
        ([0, 2, 1, 103, 105, 104], [-1, 0, 1, 2, 103, 104]),
        ([0, 8, 4, 2, 6], [-4, -2, 0, 2, 4]),
        ([5], [5]),
        ([], []),
    ],
)
def test_decoding_times(pts, dts):
    assert segments.decoding_times(pts) == dts
    assert all(decoded <= shown for decoded, shown in zip(dts, pts, strict=True))


@pytest.mark.parametrize(
    ("codec", "suffix"), [("libx264", "mp4"), ("libx264", "ts"), ("libx265", "mkv"), ("ffv1", "mkv")]
)
def test_one_segment_is_what_the_writer_makes(tmp_path, make_video, codec, suffix):
    source = make_video(tmp_path / "in.mkv", times=TIMES)
    encoder = encoders.choose(codec)
    options = {"codec": codec, **encoder.settings}
    paths = [tmp_path / f"{name}.{suffix}" for name in "abc"]
    with video.VideoWriter(paths[0], source, **options) as writer:
        for frame in video.read_frames(source):
            writer.write(frame.image)
    for path in paths[1:]:
        with video.VideoWriter(path, source, **options) as writer:
            made = FrameEncoder(writer.encoding)
            with (tmp_path / "segment").open("wb") as file:
                for frame in video.read_frames(source):
                    segments.append(file, made.encode(frame.image))
                segments.append(file, made.flush())
            writer.write_segments([tmp_path / "segment"])
    assert packets_of(paths[0]) == packets_of(paths[1])
    assert paths[1].read_bytes() == paths[2].read_bytes()


def test_segments_end_after_some_frames_or_some_time(tmp_path, make_video, monkeypatch):
    assert plan.length(1280, 720) == plan.length(64, 48) == 240
    assert plan.length(3840, 2160) == 96
    assert plan.length(7680, 4320) == 48
    monkeypatch.setattr(plan, "FRAMES", 4)
    seconds = [0, 1, 2, 3, 4, 23, 24, 25, 60]
    source = make_video(tmp_path / "in.mkv", times=[1000 * each for each in seconds])
    kept = []

    def stop(self):
        kept.extend(segment.frames for segment in self.segments)
        raise KeyboardInterrupt

    monkeypatch.setattr(journal.Journal, "name", stop)
    with pytest.raises(KeyboardInterrupt):
        restore.restore_video(changed, source, tmp_path / "out.mkv", preset="ultrafast")
    # Four frames; up to 20 seconds; the rest.
    assert kept == [4, 2, 2, 1]


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", "mp4"), ("mpeg4", "mkv"), ("ffv1", "mkv")])
def test_an_interrupted_run_ends_like_another(tmp_path, make_video, monkeypatch, codec, suffix):
    """Stopped at several frames: the maps' smoothing and the predictions go on as if nothing had been."""
    monkeypatch.setattr(plan, "FRAMES", 8)
    monkeypatch.setattr(plan, "PREDICT_EVERY", 3)
    source = make_video(tmp_path / "in.mkv", codec)

    def predictor(frames):
        return np.full((1, *(-(-side // 16) for side in frames.shape[1:3])), 4 + 3 * frames[0, 0, 0, 0], np.float32)

    def run(target, limit=None, **options):
        done = []

        def restorer(frames, quantiser_map):
            done.append(1)
            if limit is not None and len(done) > limit:
                raise KeyboardInterrupt
            return changed(frames, quantiser_map)

        return restore.restore_video(restorer, source, target, predictor=predictor, preset="ultrafast", **options)

    whole = run(tmp_path / f"whole.{suffix}")
    assert (whole.frames, whole.continued) == (30, 0)
    target = tmp_path / f"out.{suffix}"
    for limit in (3, 12, 13, 5):
        with pytest.raises(KeyboardInterrupt):
            run(target, limit)
    # How far the encoder was behind the network, when that was stopped, is a matter of luck.
    assert restore.frames_kept(target) in (8, 16, 24)
    seen = []
    report = run(target, progress=seen.append)
    assert report.frames == 30 and report.continued == seen[0] and seen[1:] == list(range(seen[0] + 1, 31))
    assert report.predicted_log2_step == whole.predicted_log2_step
    assert report.states_quantisers == whole.states_quantisers
    assert target.read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.mkv", f"whole.{suffix}", target.name])


def test_what_has_changed_is_refused(tmp_path, make_video, monkeypatch):
    monkeypatch.setattr(plan, "FRAMES", 8)
    source, target = make_video(tmp_path / "in.mkv"), tmp_path / "out.mp4"

    def interrupted(frames, quantiser_map):
        calls.append(1)
        if len(calls) > 20:
            raise KeyboardInterrupt
        return frames

    calls = []
    with pytest.raises(KeyboardInterrupt):
        restore.restore_video(interrupted, source, target, preset="ultrafast")
    kept = restore.frames_kept(target)
    assert kept in (8, 16)
    for options, message in (
        ({"preset": "superfast"}, r"another preset \(ultrafast then, superfast now\)"),
        ({"preset": "ultrafast", "crf": 20}, r"another crf \(14 then, 20 now\)"),
        ({"preset": "ultrafast", "strength": 0.5}, r"another strength \(None then, 0.5 now\)"),
    ):
        with pytest.raises(ValueError, match=message):
            restore.restore_video(interrupted, source, target, **options)
    with pytest.raises(ValueError, match=r"another model \(.*interrupted then, changed now\)"):
        restore.restore_video(changed, source, target, preset="ultrafast")
    source.write_bytes(source.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"another input \(\d+ bytes"):
        restore.restore_video(interrupted, source, target, preset="ultrafast")
    assert restore.frames_kept(target) == kept
    report = restore.restore_video(changed, source, target, preset="ultrafast", restart=True)
    assert (report.frames, report.continued) == (30, 0)


def test_a_source_that_changes_meanwhile(tmp_path, make_video):
    source = make_video(tmp_path / "in.mkv")

    def meddling(frames, quantiser_map):
        with source.open("ab") as file:
            file.write(b"\0")
        return frames

    with pytest.raises(ValueError, match="must not change while it is restored"):
        restore.restore_video(meddling, source, tmp_path / "out.mkv", preset="ultrafast")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_refused_after_a_segment_leaves_nothing(tmp_path, make_video, monkeypatch):
    monkeypatch.setattr(plan, "FRAMES", 4)
    source, calls = make_video(tmp_path / "in.mkv"), []

    def wrong_at_last(frames, quantiser_map):
        calls.append(1)
        return frames if len(calls) < 25 else frames[:, :8]

    with pytest.raises(ValueError, match="keeps the shape"):
        restore.restore_video(wrong_at_last, source, tmp_path / "out.mkv", preset="ultrafast")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


@pytest.mark.slow
def test_x264_makes_the_same_packets_of_fields_again(tmp_path, make_video):
    """On four threads, about one run in twenty differs."""
    more = {"size": (416, 256), "acodec": None, "times": [40 * index for index in range(120)]}
    source = make_video(tmp_path / "in.mkv", options={"x264-params": "tff=1"}, **more)
    with video.VideoWriter(tmp_path / "out.mkv", source, **encoders.choose("libx264").settings) as writer:
        results = set()
        for _ in range(40):
            encoder, packets = FrameEncoder(writer.encoding), []
            for frame in video.read_frames(source):
                packets += encoder.encode(frame.image)
            packets += encoder.flush()
            results.add(b"".join(map(bytes, packets)))
        writer.write(frame.image)
    assert writer.encoding.interlaced and len(results) == 1


@pytest.mark.slow
@pytest.mark.parametrize("codec", encoders.ENCODERS)
@pytest.mark.parametrize("size", [(350, 262), (718, 406), (854, 480)])
def test_encoders_make_the_same_packets_again(codec, size, photo):
    """At widths that no vector divides."""
    encoder = encoders.choose(codec)
    pix_fmt = "rgb24" if codec == "libx264rgb" else "yuv420p"
    pictures = photo(size[1] + 40, size[0] + 80)
    frames = []
    for index in range(30):
        picture = np.ascontiguousarray(pictures[index : index + size[1], 2 * index : 2 * index + size[0]])
        frames.append(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt))
    results = set()
    for _ in range(4):
        context = av.CodecContext.create(codec, "w")
        context.width, context.height, context.pix_fmt = *size, pix_fmt
        context.time_base, context.framerate, context.thread_count = Fraction(1, 25), 25, encoder.threads
        knobs = {"crf": str(encoder.crf), "preset": str(encoder.preset)}
        known = {option.name for option in context.supported_options.private}
        context.options = {name: value for name, value in knobs.items() if name in known} | dict(encoder.options)
        packets = []
        for index, frame in enumerate(frames):
            frame.pts, frame.time_base = index, Fraction(1, 25)
            packets += context.encode(frame)
        packets += context.encode(None)
        results.add(b"".join(map(bytes, packets)))
    assert len(results) == 1
