import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from keras_deartifact.cli import interruption

ROOT = Path(__file__).resolve().parents[1]


def test_sigterm_is_like_ctrl_c():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interruption.terminable():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_leave_signals_alone():
    passed = []

    def work():
        with interruption.terminable(), interruption.prompt(lambda: None):
            passed.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert passed == [True]


def test_a_block_that_ends_in_time_is_not_disturbed(monkeypatch):
    monkeypatch.setattr(interruption, "_GRACE_SECONDS", 0.1)
    said = []
    with pytest.raises(KeyboardInterrupt), interruption.prompt(lambda: said.append("farewell")):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    time.sleep(0.3)
    assert said == []
    with interruption.prompt(lambda: said.append("farewell")):
        pass
    assert said == []


def test_the_process_ends_though_the_main_thread_is_busy_elsewhere():
    """In a function of C that lets other threads run but does not come back for seconds, as a network does."""
    code = """
        import os, zlib
        from keras_deartifact.cli import interruption
        with interruption.prompt(lambda: print("farewell")):
            data = os.urandom(1 << 20) * 300
            print("at work", flush=True)
            zlib.compress(data, 9)
    """
    argv = [sys.executable, "-c", textwrap.dedent(code)]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "at work\n"
    time.sleep(0.2)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "farewell\n")
    assert time.monotonic() - began < 2
