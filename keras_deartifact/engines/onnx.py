"""ONNX Runtime: runs .onnx files, on the processor or on what its package brings beside (its execution providers)."""

import contextlib
import os
import re
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from keras_deartifact.engines.network import Network, fixed_shape

__all__ = ["PROVIDERS", "ProviderError", "load", "providers", "version"]

# In the order in which they are tried.
PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cpu": "CPUExecutionProvider",
}

_PACKAGES = {
    "tensorrt": "onnxruntime-gpu",
    "cuda": "onnxruntime-gpu",
    "directml": "onnxruntime-directml",
    "qnn": "onnxruntime-qnn",
    "openvino": "onnxruntime-openvino",
}

# It compiles a model for every size of frames, which takes minutes: only by name.
_NOT_BY_ITSELF = {"tensorrt"}


class ProviderError(ValueError):
    """A provider that was asked for is not there; that is no fault of the file."""


def providers() -> list[str]:
    """Returns the short names of the providers that the installed package has and that are tried unasked, in order."""
    return [name for name in _there() if name not in _NOT_BY_ITSELF]


def _there() -> list[str]:
    import onnxruntime

    available = onnxruntime.get_available_providers()
    return [name for name, full in PROVIDERS.items() if full in available]


def version() -> str | None:
    """Returns the name and version of the installed package without importing it, which takes 0.1 s; None without."""
    spec = util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return None
    try:
        text = (Path(spec.origin).parent / "capi/build_and_package_info.py").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    return " ".join(re.findall(r"^\w+ = '(.*)'", text, re.MULTILINE)) or "onnxruntime"


def load(path: Path, threads: int | None, provider: str | None = None) -> Network:
    """Loads a generator; see `ENGINES`.

    Args:
        path: the file.
        threads: of the processor; one for each by default.
        provider: key of `PROVIDERS`; None for the first that loads.

    Raises:
        ProviderError: the provider is not there, or does not load.
    """
    there = _there()
    if provider is not None and provider not in there:
        package = _PACKAGES.get(provider)
        advice = f" (pip install {package} for the other)" if package else ""
        raise ProviderError(
            f"Expected a provider that the installed onnxruntime has, one of {', '.join(there)}{advice}. "
            f"Received: provider={provider!r}"
        )
    tried = []
    for name in [provider] if provider is not None else providers():
        session = _session(path, threads, name)
        if session is not None:
            break
        tried.append(name)
    else:
        raise ProviderError(
            f"The provider {' and '.join(tried)} of onnxruntime does not load: its driver, its libraries or its device "
            f"is missing. There are: {', '.join(name for name in there if name not in tried)}"
        )
    notes = (f"{' and '.join(tried)} of onnxruntime does not load, so that the model runs on {name}",) if tried else ()
    shapes = {entry.name: entry.shape for entry in session.get_inputs()}
    if sorted(shapes) != ["images", "quantiser_map"]:
        raise ValueError(f"Expected the inputs 'images' and 'quantiser_map'. Received: {sorted(shapes)}")
    batch, tile = fixed_shape(shapes["images"], shapes["quantiser_map"])

    def run(images: NDArray[Any], quantiser_map: NDArray[Any]) -> NDArray[Any]:
        result: NDArray[Any] = session.run(None, {"images": images, "quantiser_map": quantiser_map})[0]
        return result

    return Network(run, shapes["images"][-1], batch, tile, provider=name, notes=notes)


def _session(path: Path, threads: int | None, provider: str) -> Any:
    """A session on a provider, None where that does not load.

    Fallback is switched off: ONNX Runtime's own tries the processor again and prints that to stdout.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count = threads or os.cpu_count() or 1
    if provider == "cpu":
        return onnxruntime.InferenceSession(str(path), options, providers=[PROVIDERS["cpu"]], enable_fallback=0)
    # It computes on the processor where there is no device of its maker, with threads of its own.
    its_options = {"num_of_threads": str(count)} if provider == "openvino" else {}
    names = [(PROVIDERS[provider], its_options), PROVIDERS["cpu"]]
    # The rest of the model runs on the processor. Without this it would say so for every part.
    options.log_severity_level = 4
    with _quiet():
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=names, enable_fallback=0)
        except (ValueError, RuntimeError):
            # Where it is the file's fault, the processor is going to say so.
            return None
    return session if session.get_providers()[0] == PROVIDERS[provider] else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps a library that is not found from being told in ten lines of C++; `load` says it in one."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(2)
