"""The machine that was measured."""

import contextlib
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from keras_deartifact.engines.speeds import processor

__all__ = ["machine", "machine_lines"]

# ONNX Runtime is another package for every maker's devices.
_ONNX_RUNTIMES = [f"onnxruntime{device}" for device in ("", "-gpu", "-openvino", "-directml", "-qnn")]
_DISTRIBUTIONS = ("numpy", "av", "ai-edge-litert", *_ONNX_RUNTIMES, "keras", "tensorflow")


def machine(threads: int | None = None) -> dict[str, Any]:
    """What the numbers depend on: processors, threads of the engines, versions; as JSON takes it."""
    versions = {}
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    processors = os.cpu_count() or 1
    return {
        "processor": processor(),
        "processors": processors,
        "threads": threads or processors,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions,
    }


def machine_lines(values: Mapping[str, Any]) -> list[str]:
    """Returns what `machine` says, for the reader."""
    versions = ", ".join(f"{name} {version}" for name, version in values["packages"].items())
    return [
        f"{values['processor']}, {values['processors']} processors; {values['system']}",
        f"{values['threads']} threads an engine; Python {values['python']}, {versions}",
    ]
