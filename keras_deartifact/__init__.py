"""Takes compression artefacts out of images and video, at any quality, without being told the quality.

Importing this package imports neither TensorFlow nor Keras: the public names below load their module when they are
first used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "restore_image": "restore",
    "restore_video": "restore",
    "load": "engines",
    "psnr": "metrics",
    "ssim": "metrics",
    "GENERATORS": "models",
    "CODECS": "codecs",
    "LOSSES": "losses",
    "METRICS": "metrics",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
