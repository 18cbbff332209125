"""A call in a process of its own, and the memory that it took."""

import contextlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["in_own_process", "peak_memory_bytes", "run_pickled"]

_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from keras_deartifact import bench; "
    "bench.run_pickled(sys.stdin.buffer.read())"
)


def peak_memory_bytes() -> int | None:
    """The most physical memory that this process ever held; None where the system does not tell.

    Linux: VmHWM of /proc/self/status. Not `ru_maxrss`, which a new process takes over from the one that started it:
    beside a parent of 2.5 GB a Python of 9 MB claims 2.5 GB. macOS: `ru_maxrss`, which is in bytes there and in KiB
    elsewhere. Windows has neither.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return None
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_own_process(function: Callable[..., Any], *arguments: Any) -> tuple[Any, int | None]:
    """Calls a function in a new Python.

    Args:
        function: importable, because it is pickled; what it returns has to have a form in JSON.
        arguments: pickled likewise.

    Returns:
        What it returned, and the peak memory of that process in bytes.

    Raises:
        ValueError: the process failed or was killed, as a system does that runs out of memory.
    """
    # In a session of its own, so that Ctrl-C reaches this process alone, which then kills it.
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, json.dumps(sys.path)],
        input=pickle.dumps((function, arguments)),
        capture_output=True,
        start_new_session=True,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        if done.returncode < 0:
            lines = [f"killed by signal {-done.returncode}; is there enough memory?"]
        raise ValueError(f"a run in a process of its own failed: {lines[-1] if lines else done.returncode}")
    result, peak_bytes = json.loads(done.stdout.splitlines()[-1])
    return result, peak_bytes


def run_pickled(task: bytes) -> None:
    """The other end of `in_own_process`: the last line of stdout is the result and the peak memory."""
    function, arguments = pickle.loads(task)
    result = function(*arguments)
    sys.stdout.write("\n" + json.dumps([result, peak_memory_bytes()], allow_nan=False) + "\n")
