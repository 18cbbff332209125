"""Runs of the command that are killed, stopped, or run out of disk, and go on."""

import hashlib
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from keras_deartifact import restore

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-c", "import sys; from keras_deartifact.cli import main; sys.exit(main())", "restore"]


def long_clip(path, frames, size=(64, 48), rate=25, codec="libx264"):
    """A video that moves, with a tone; of H.264 with B-frames and scene cuts."""
    generator = np.random.default_rng(3)
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"threads": "1", "crf": "30"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        tone = container.add_stream("aac", rate=8000)
        for index in range(frames):
            if index % 97 == 0:
                blocks = generator.integers(40, 216, (height // 8 + 1, width // 4, 3)).astype(np.uint8)
            picture = np.roll(blocks.repeat(8, 0).repeat(8, 1), index % 97, 1)[:height, :width]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format="yuv420p")
            frame.time_base, frame.pts = Fraction(1, rate), index
            container.mux(stream.encode(frame))
            wave = 8000 * np.sin(np.arange(index * (8000 // rate), (index + 1) * (8000 // rate)) / 16)
            sound = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
            sound.sample_rate, sound.time_base, sound.pts = 8000, Fraction(1, 8000), index * (8000 // rate)
            container.mux(tone.encode(sound))
        container.mux(stream.encode(None))
        container.mux(tone.encode(None))
    return path


def packets(path):
    with av.open(str(path)) as container:
        return [
            (packet.stream_index, packet.pts, packet.dts, packet.duration, packet.is_keyframe, bytes(packet))
            for packet in container.demux()
        ]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def start(source, target, *options, **settings):
    argv = [*COMMAND, source, "-o", target, "--engine", "litert", *options]
    return subprocess.Popen(
        list(map(str, argv)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "frames", "options"), [("a.mp4", 1500, ()), ("a.mkv", 1500, ()), ("a.mkv", 1000, ("--codec", "libx265"))]
)
def test_killed_at_random_points(tmp_path, name, frames, options):
    """50 kills in all: the file is the one of a run that nobody disturbed."""
    source, target = long_clip(tmp_path / "source.mp4", frames), tmp_path / name
    began = time.monotonic()
    finish(start(source, tmp_path / f"whole{target.suffix}", *options))
    duration = time.monotonic() - began
    chance = random.Random(len(options))
    kills, continued = 0, 0
    while kills < 17:
        process = start(source, target, *options)
        try:
            out, err = process.communicate(timeout=chance.uniform(0.1, 1.1) * duration)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            if target.exists():
                # It had its name already, and the next run has nothing to do but to clean up.
                assert digest(target) == digest(tmp_path / f"whole{target.suffix}")
                _, err = start(source, target, *options).communicate()
                assert "exists already" in err and target.parent.joinpath(".deartifact-" + name).exists() is False
                target.unlink()
            continue
        assert process.returncode == 0, err
        continued += "of an earlier run" in out
        assert digest(target) == digest(tmp_path / f"whole{target.suffix}")
        target.unlink()
    if names(tmp_path) != sorted(["source.mp4", f"whole{target.suffix}"]):
        assert "of an earlier run" in finish(start(source, target, *options)) or continued
    else:
        finish(start(source, target, *options))
    assert packets(target) == packets(tmp_path / f"whole{target.suffix}")
    assert digest(target) == digest(tmp_path / f"whole{target.suffix}")
    assert names(tmp_path) == sorted(["source.mp4", name, f"whole{target.suffix}"])


KILLED = """
    import os, signal, sys
    from keras_deartifact import restore
    from keras_deartifact.restore import plan
    plan.FRAMES, point = 10, int(sys.argv[3])
    calls = 0

    def deadly(function):
        def call(*arguments, **options):
            global calls
            calls += 1
            if calls == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)
        return call

    for name in ("fsync", "replace", "unlink", "rmdir", "mkdir"):
        setattr(os, name, deadly(getattr(os, name)))
    restore.restore_video(lambda frames, quantiser_map: frames, sys.argv[1], sys.argv[2], preset="ultrafast")
    print(calls)
"""


@pytest.mark.slow
def test_killed_at_every_step_on_the_disk(tmp_path):
    """Before each call that makes something last."""
    source, target = long_clip(tmp_path / "source.mp4", 35), tmp_path / "a.mp4"

    def run(path, point):
        argv = [sys.executable, "-c", textwrap.dedent(KILLED), str(source), str(path), str(point)]
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)

    points = int(run(tmp_path / "whole.mp4", 0).stdout)
    assert points > 20
    for point in range(1, points + 1):
        assert run(target, point).returncode == -signal.SIGKILL
        if target.exists():
            # It had its name already.
            assert digest(target) == digest(tmp_path / "whole.mp4")
            restore.clean(target)
            assert names(tmp_path) == ["a.mp4", "source.mp4", "whole.mp4"]
            target.unlink()
        result = run(target, 0)
        assert result.returncode == 0, result.stderr
        assert digest(target) == digest(tmp_path / "whole.mp4")
        assert names(tmp_path) == ["a.mp4", "source.mp4", "whole.mp4"]
        target.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("size", [(64, 48), (1920, 1080)])
def test_a_signal_ends_it_within_a_second(tmp_path, number, size):
    source, target = long_clip(tmp_path / "source.mp4", 6000 if size[0] == 64 else 60, size), tmp_path / "a.mp4"
    process = start(source, target)
    time.sleep(1)
    while not list(tmp_path.glob(".deartifact-a.mp4/*.part")):
        time.sleep(0.05)
    time.sleep(1)
    began = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 1.0
    assert process.returncode == 130
    lines = err.splitlines()
    assert lines[-1] == "deartifact: interrupted; what was not finished is not kept"
    if size[0] == 64:
        assert re.fullmatch(r"deartifact: \d+ frames are done and kept; the same command goes on after them", lines[-2])
        assert "of an earlier run" in finish(start(source, target))
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_full_disk(tmp_path):
    """A file system of its own where that can be had."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("nothing can be mounted")
    try:
        source = long_clip(tmp_path / "source.mp4", 1500)
        finish(start(source, tmp_path / "whole.mp4"))
        ballast = disk / "ballast"
        ballast.write_bytes(bytes((1 << 20) - 200_000))
        process = start(source, disk / "a.mp4")
        _, err = process.communicate(timeout=300)
        assert process.returncode == 2
        assert err.splitlines()[-1].startswith("deartifact: error: No space left on device: ")
        assert "frames are done and kept; the same command goes on after them" in err
        ballast.unlink()
        assert "of an earlier run" in finish(start(source, disk / "a.mp4"))
        assert digest(disk / "a.mp4") == digest(tmp_path / "whole.mp4")
        assert names(disk) == ["a.mp4"]
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path):
    """Tens of thousands of small frames."""
    source = long_clip(tmp_path / "source.mp4", 24000)
    process = start(source, tmp_path / "a.mkv")
    sizes = []
    while process.poll() is None:
        time.sleep(0.5)
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        if found and list(tmp_path.glob(".deartifact-a.mkv/000002.packets")):
            sizes.append(int(found[1]) / 1024)
    finish(process)
    third = len(sizes) // 3
    assert third > 5
    # In MiB. The muxer's index and the list of times grow by some bytes a frame.
    assert max(sizes[-third:]) - max(sizes[:third]) < 24
