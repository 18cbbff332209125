import errno

import av
import pytest

from keras_deartifact import console


def test_progress_without_a_terminal(capfd, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    show = console._plain_progress(200, "a.mp4", " frames")
    for frames, second in ((10, 101.0), (50, 110.0), (60, 111.0), (100, 120.0)):
        now[0] = second
        show(frames)
    assert capfd.readouterr().err.splitlines() == [
        "deartifact: a.mp4: 50/200 frames, 30 s left, 5.0 frames a second",
        "deartifact: a.mp4: 100/200 frames, 20 s left, 5.0 frames a second",
    ]


def test_progress_on_a_terminal(capfd, monkeypatch):
    monkeypatch.setattr(console.sys.stderr, "isatty", lambda: True)
    with console.progress(3, "a.mp4") as step_to:
        for done in (1, 3, 5):
            step_to(done)
        console.show("a line")
    out, err = capfd.readouterr()
    assert out == "a line\n" and "a.mp4" in err and "frames/s" in err


def test_what_can_be_expected():
    for error in (ValueError("x"), OSError(5, "x"), MemoryError(), av.error.ExternalError(1, "x")):
        assert console.is_expected(error)
    for error in (RuntimeError("x"), KeyError("x"), TypeError("x"), AssertionError()):
        assert not console.is_expected(error)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("two\n lines"), "two lines"),
        (FileExistsError(errno.EEXIST, "x", "a.mp4"), "a.mp4 exists already; pass --overwrite"),
        (FileNotFoundError(errno.ENOENT, "x", "a.mp4"), "there is no file or folder a.mp4"),
        (OSError(errno.ENOSPC, "No space left", "a.mp4"), "No space left: a.mp4; free some space"),
        (OSError("odd"), "odd: odd; check the path"),
        (MemoryError(), "not enough memory"),
        (KeyError("a bug"), "KeyError: 'a bug'"),
    ],
)
def test_sentences(error, expected):
    assert console.sentence(error).startswith(expected)
