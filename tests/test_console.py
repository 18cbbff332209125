import errno

import av
import pytest

from keras_deartifact import console


def test_progress_without_a_terminal(capfd, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    show = console._plain_progress(2000, "a.mp4", " frames", lambda: f"second {now[0]:.0f}")
    for frames, second in ((10, 101.0), (150, 130.0), (160, 131.0), (1800, 160.0)):
        now[0] = second
        show(frames)
    assert capfd.readouterr().err.splitlines() == [
        "deartifact: a.mp4: 150/2000 frames, 6 min left, 5.0 frames a second, second 130",
        "deartifact: a.mp4: 1800/2000 frames, 7 s left, 30.0 frames a second, second 160",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (3599, "1 h 0 min"), (12000, "3 h 20 min")]
)
def test_durations(seconds, text):
    assert console.duration(seconds) == text


def test_silent_progress(capfd, monkeypatch):
    monkeypatch.setattr(console, "_LINE_SECONDS", -1.0)
    with console.silent_progress(), console.progress(3, "a.mp4") as step_to:
        step_to(1)
    assert capfd.readouterr() == ("", "")
    with console.progress(3, "a.mp4") as step_to:
        step_to(1)
    assert "a.mp4: 1/3 frames" in capfd.readouterr().err


def test_progress_on_a_terminal(capfd, monkeypatch):
    monkeypatch.setattr(console.sys.stderr, "isatty", lambda: True)
    with console.progress(3, "a.mp4", note=lambda: "log2 step 4.00") as step_to:
        for done in (1, 3, 5):
            step_to(done)
        console.show("a line")
    out, err = capfd.readouterr()
    assert out == "a line\n" and "a.mp4" in err and "frames/s" in err and "log2 step 4.00" in err


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


def test_a_name_cannot_make_lines(capfd):
    console.say("a\nb\x1b[31m\udcff é\u2028 日本\xa0c")
    console.show("a\nb")
    assert capfd.readouterr() == ("a\\nb\n", "deartifact: a\\nb\\x1b[31m\\udcff é\\u2028 日本\xa0c\n")
