"""The command as a process of its own, whose libraries crash, hang or are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuzz_samples import PICTURES

from keras_deartifact import bounds
from keras_deartifact.cli import isolation

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the command is one process elsewhere")

# A network is the easiest part to replace; for the command it makes no difference what brings the process down.
COMMAND = """
import ctypes, os, signal, sys, time
from keras_deartifact import bounds, engines
from keras_deartifact.cli import main

def misbehave(*arguments):
    {}

engines.load = misbehave
sys.exit(main())
"""


@pytest.fixture
def start(tmp_path):
    """`start(body)`: the command, restoring `a.jpg`, in which loading the network does what the body says."""
    (tmp_path / "a.jpg").write_bytes(PICTURES["jpeg"][1]())
    started = []

    def call(body, source="a.jpg", target="b.png"):
        program = [sys.executable, "-c", COMMAND.format(body), "restore", source, "-o", target]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            program, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("ctypes.string_at(0)", "reading it crashed (SIGSEGV); the file is broken"),
        ("os.abort()", "reading it crashed (SIGABRT); the file is broken"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "the system ended the work, most likely for want of memory"),
        (
            "bounds.DECODER_SECONDS = 0.2\n    with bounds.decoding():\n        ctypes.CDLL(None).sleep(60)",
            f"its decoder did not come back within {bounds.DECODER_SECONDS} s",
        ),
    ],
)
def test_what_ends_by_a_signal_is_told_in_one_line(body, said, start, tmp_path):
    process = start(body)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert err.startswith(f"deartifact: error: a.jpg: {said}") and len(err.splitlines()) == 1
    assert os.listdir(tmp_path) == ["a.jpg"]


def test_a_folder_goes_on_behind_a_file_that_crashes(start, tmp_path):
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    names = [f"{letter}.png" for letter in "abcde"]
    for name in names:
        (tmp_path / "in" / name).write_bytes(PICTURES["png"][1]())
    # When the temporary file of the copy is there already.
    body = (
        "from keras_deartifact import stills\n"
        "    read = stills.read\n"
        "    def crashing(path, **options):\n"
        "        return ctypes.string_at(0) if path.name in ('b.png', 'd.png') else read(path, **options)\n"
        "    stills.read = crashing\n"
        "    return lambda frames, quantiser_map=None: frames"
    )
    process = start(body, "in", "out")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert [line.split(": ")[0] for line in out.splitlines()] == [
        *(f"[{number}/5] {name}" for number, name in enumerate(names, 1)),
        "out",
    ]
    assert out.splitlines()[-1] == "out: 3 restored, 0 incomplete, 0 skipped, 2 failed"
    assert [line.split(": ", 3)[1:3] for line in err.splitlines()] == [["error", "in/b.png"], ["error", "in/d.png"]]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png", "e.png"]


def test_exit_codes_and_errors_come_through(start):
    process = start("return lambda frames, quantiser_map=None: frames")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "") and out.startswith("b.png: 40x30")
    process = start("pass", "nothing.jpg")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2 and err.startswith("deartifact: error: there is no file")


def children(process):
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


def at_work(process):
    """Waits until the process that works has begun to; returns its number."""
    line = process.stdout.readline()
    assert line == "begun\n"
    (child,) = children(process)
    return child


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_passed_on(number, start):
    process = start(
        "signal.signal(signal.SIGTERM, signal.default_int_handler); print('begun', flush=True); time.sleep(60)"
    )
    at_work(process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("deartifact: interrupted")


def test_a_signal_that_is_no_crash_is_no_error(start):
    process = start("print('begun', flush=True); time.sleep(60)")
    at_work(process)
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 128 + signal.SIGHUP


def test_who_works_does_not_outlive_who_waits(start):
    process = start("print('begun', flush=True); time.sleep(60)")
    child = at_work(process)
    process.kill()
    process.wait(timeout=60)
    until = time.monotonic() + 60
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < until, "still there"
        time.sleep(0.02)


def test_another_programs_process_is_not_split(run):
    assert run("--version")[0] == 0
    assert isolation._shared is None
    isolation.working_on(Path("a.jpg"))
    assert isolation._shared is None


def test_deadlines_of_several_threads_share_a_timer(monkeypatch):
    monkeypatch.setattr(bounds, "_deadlines", {})
    set_to = []
    monkeypatch.setattr(signal, "setitimer", lambda kind, seconds: set_to.append(seconds))
    with bounds.decoding():
        assert set_to == []
    monkeypatch.setattr(bounds, "_ends_if_stuck", True)
    with bounds.decoding():
        assert set_to[-1] == pytest.approx(bounds.DECODER_SECONDS, abs=1)
        bounds._expect(-1, time.monotonic() + 10)
        assert set_to[-1] == pytest.approx(10, abs=1)
        with bounds.decoding():
            pass
        assert set_to[-1] == pytest.approx(10, abs=1)
        bounds._expect(-1, None)
        assert set_to[-1] == pytest.approx(bounds.DECODER_SECONDS, abs=1)
    assert set_to[-1] == 0
