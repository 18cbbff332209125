"""`deartifact restore` of a video by a server in another process, which is killed again and again."""

import hashlib
import signal
import threading
import time

import av
import pytest

pytest.importorskip("grpc", reason="grpcio is not installed")
pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")

import serving_server as double

FRAMES = 24
SIZE = (320, 176)
TILES = FRAMES * 2
"""With tiles of 256 and margins of 64 a frame takes two."""

DEATHS = {
    "at its first request, in the middle, at the last": ({1: "kill"}, {TILES // 2: "kill"}, {TILES // 2: "kill"}, {}),
    "while others are slow": ({2: "slow", 3: "slow", 5: "kill"}, {1: "slow", 9: "kill"}, {4: "slow"}),
    "between refusals": (
        {1: "UNAVAILABLE", 3: "DEADLINE_EXCEEDED", 7: "kill"},
        {1: "UNAVAILABLE", 2: "UNAVAILABLE", 20: "kill"},
        {5: "DEADLINE_EXCEEDED"},
    ),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory, make_video):
    times = [40 * index for index in range(FRAMES)]
    return make_video(tmp_path_factory.mktemp("video") / "in.mp4", times=times, size=SIZE)


class Relay:
    """Servers one after another on one port: each takes the place of the one that died."""

    def __init__(self, exported, lives):
        self.processes = [double.Process(exported, faults=lives[0], slow_seconds=2.0)]
        self.port = self.processes[0].go()
        self.processes += [double.Process(exported, self.port, each, slow_seconds=2.0) for each in lives[1:]]
        self.thread = threading.Thread(target=self._take_turns)

    def _take_turns(self):
        for dying, following in zip(self.processes, self.processes[1:], strict=False):
            dying.process.wait()
            time.sleep(0.5)
            following.go()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exception):
        # Where the client gave up early some still wait for their turn.
        while self.thread.is_alive():
            for each in self.processes:
                each.process.kill()
            self.thread.join(0.1)
        for each in self.processes:
            each.close()


def _framemd5(path):
    with av.open(str(path)) as container:
        return [
            (frame.pts * frame.time_base, hashlib.md5(frame.to_ndarray().tobytes()).hexdigest())
            for frame in container.decode(video=0)
        ]


def _served(port):
    flags = ("--codec", "ffv1", "--engine", "serving", "--server", f"127.0.0.1:{port}", "--model", double.NAME)
    return (*flags, "--server-tile", 256, "--server-in-flight", 4, "--server-patience", 300)


@pytest.mark.slow
@pytest.mark.parametrize("lives", DEATHS.values(), ids=DEATHS)
def test_a_server_that_is_killed_only_delays_a_video(exported, source, run, tmp_path, lives):
    code, _, err = run("restore", source, "-o", tmp_path / "here.mkv", "--codec", "ffv1", "--model", exported)
    assert code == 0, err
    with Relay(exported, lives) as relay:
        code, _, err = run("restore", source, "-o", tmp_path / "there.mkv", *_served(relay.port))
        assert code == 0, err
        died = [each.process.poll() for each in relay.processes]
    assert died == [-signal.SIGKILL] * (len(lives) - 1) + [None]
    here, there = _framemd5(tmp_path / "here.mkv"), _framemd5(tmp_path / "there.mkv")
    assert len(here) == FRAMES
    assert there == here
    assert {digest for _, digest in here}.isdisjoint(digest for _, digest in _framemd5(source))


@pytest.mark.slow
def test_what_is_not_tried_again_leaves_no_video(exported, source, run, tmp_path):
    with Relay(exported, [{3: "slow", 7: "RESOURCE_EXHAUSTED"}]) as relay:
        code, out, err = run("restore", source, "-o", tmp_path / "never.mkv", *_served(relay.port))
    assert (code, out) == (2, "")
    errors = [line for line in err.splitlines() if "error: " in line]
    assert len(errors) == 1
    assert "version 1, failed with RESOURCE_EXHAUSTED" in errors[0]
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())
