"""How fast each engine runs each model on this machine: measured once, remembered in the user's cache folder.

`engines.json` there holds frames a second, by all that would change them: the model's digest, the engine and its
version, the provider, the number of threads and the machine. What cannot be read counts as empty, what cannot be
written is not remembered. Delete the file to have all measured anew.
"""

import contextlib
import functools
import json
import math
import os
import platform
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "SIDE",
    "Sizes",
    "cache_file",
    "frames_a_second",
    "machine",
    "processor",
    "read",
    "read_providers",
    "size_name",
    "write",
]

Sizes = dict[str, float]
"""Frames a second by "WIDTHxHEIGHT"; 0 where the engine did not load."""

SIDE = 256
"""Of the frame that is measured, in pixels."""

_SECONDS = 0.2
_MOST_RUNS = 25
_FORMAT = 1


def cache_file() -> Path:
    """Returns where the speeds are remembered."""
    folder = os.environ.get("XDG_CACHE_HOME", "")
    # The specification has relative ones ignored.
    base = Path(folder if os.path.isabs(folder) else os.path.expanduser("~/.cache"))
    if not base.is_absolute():
        # Of a user without a home, nothing is remembered.
        base = Path(os.devnull)
    return base / "keras_deartifact" / "engines.json"


def size_name(height: int, width: int) -> str:
    """Returns the key of a size."""
    return f"{width}x{height}"


def processor() -> str:
    """Returns the processor's name as far as the system tells it, or else its architecture."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, UnicodeDecodeError), open("/proc/cpuinfo", encoding="utf-8") as stream:
        name = next((line.split(":", 1)[1].strip() for line in stream if line.startswith("model name")), name)
    return name


@functools.cache
def machine() -> str:
    """Returns the processor, how many there are, and NVIDIA's devices."""
    devices = []
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            devices.append(" ".join(file.read_text("utf-8").split("\n", 1)[0].split()))
    return ", ".join([f"{os.cpu_count()} x {processor()}", *devices])


def frames_a_second(action: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Returns how often an action runs in a second: by the median of a few runs, the first left out."""
    action()
    seconds: list[float] = []
    started = clock()
    while len(seconds) < 3 or (clock() - started < _SECONDS and len(seconds) < _MOST_RUNS):
        before = clock()
        action()
        seconds.append(clock() - before)
    return 1.0 / max(float(np.median(seconds)), 1e-9)


def read() -> dict[str, Sizes]:
    """Returns what is remembered, by key."""
    found = _contents().get("speeds")
    if not isinstance(found, dict):
        return {}
    return {key: sizes for key, sizes in found.items() if _are_sizes(sizes)}


def read_providers(version: str) -> list[str] | None:
    """Returns the providers of a version of ONNX Runtime, None where they are not remembered."""
    known = _contents().get("providers")
    names = known.get(version) if isinstance(known, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return names


def write(
    speeds: Mapping[str, Sizes], providers: Mapping[str, list[str]] | None = None, replace: bool = False
) -> dict[str, Sizes]:
    """Adds speeds to what is remembered, as far as the cache can be written.

    Args:
        speeds: by key.
        providers: of versions of ONNX Runtime.
        replace: whether they replace older ones. Where two processes measure at a time, the first that writes is right
            for both.

    Returns:
        What counts for the keys that were given, by key.
    """
    known = read()
    for key, sizes in speeds.items():
        older = known.get(key, {})
        known[key] = older | sizes if replace else sizes | older
    there = _contents().get("providers")
    there = {**(there if isinstance(there, dict) else {}), **(providers or {})}
    text = json.dumps({"format": _FORMAT, "speeds": known, "providers": there}, indent=1, allow_nan=False) + "\n"
    file = cache_file()
    temporary: Path | None = None
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".engines-{os.getpid()}-{threading.get_ident()}")
        temporary.write_text(text, "utf-8")
        os.replace(temporary, file)
        temporary = None
    if temporary is not None:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return {key: known[key] for key in speeds}


def _contents() -> dict[str, Any]:
    """What the cache holds if it is one, else nothing."""
    try:
        contents = json.loads(cache_file().read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(contents, dict) or contents.get("format") != _FORMAT:
        return {}
    return contents


def _are_sizes(sizes: Any) -> bool:
    return isinstance(sizes, dict) and all(
        isinstance(name, str) and isinstance(fps, int | float) and math.isfinite(fps) and fps >= 0
        for name, fps in sizes.items()
    )
