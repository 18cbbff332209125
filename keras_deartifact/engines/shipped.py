"""The models that ship with the package: their names, their files, one form for each engine, and their cards."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

__all__ = [
    "DEFAULT_MODEL",
    "PREDICTOR",
    "card",
    "digest",
    "forms",
    "general_models",
    "is_as_shipped",
    "perceptual_variant",
    "predictor_path",
    "pretrained_models",
    "pretrained_path",
]

DEFAULT_MODEL = "shuffle_nano"
PREDICTOR = "quality_predictor"

# One network at several costs, from the cheapest to the best.
_SIZES = ("shuffle_pico", "shuffle_nano", "shuffle_small", "shuffle_base")

FOLDER = Path(__file__).resolve().parents[1] / "pretrained"

# Every model ships as the first; the others may be missing.
_SUFFIXES = {"litert": ".tflite", "onnx": ".onnx", "keras": ".keras"}


def pretrained_models() -> list[str]:
    """Returns the names of the restoring models that ship with the package, sorted."""
    return sorted(card.stem for card in FOLDER.glob("*.json") if card.stem != PREDICTOR)


def general_models(has_variant: bool = False) -> list[str]:
    """Returns the models that ship and restore anything, from the cheapest to the best.

    Args:
        has_variant: only those with a perceptual variant.
    """
    names = pretrained_models()
    return [name for name in _SIZES if name in names and (not has_variant or f"{name}_perceptual" in names)]


def perceptual_variant(name: str) -> str:
    """Returns the name of the model of the same architecture that was trained for sharp pictures.

    Raises:
        ValueError: there is none.
    """
    names = pretrained_models()
    if f"{name}_perceptual" not in names:
        having = [each for each in names if f"{each}_perceptual" in names]
        raise ValueError(
            f"A perception above 0 needs a model that has a perceptual variant: {', '.join(having)}. "
            f"Received: model={name!r}"
        )
    return f"{name}_perceptual"


def forms(name: str) -> dict[str, Path]:
    """Returns the files of a model that ships, by the engine that takes them.

    Raises:
        ValueError: there is no such model.
    """
    if name not in pretrained_models():
        raise ValueError(f"Expected a model file or one of {pretrained_models()}. Received: model={name!r}")
    files = {engine: FOLDER / f"{name}{suffix}" for engine, suffix in _SUFFIXES.items()}
    return {engine: file for engine, file in files.items() if engine == "litert" or file.exists()}


def pretrained_path(name: str, engine: str = "litert") -> Path:
    """Returns the file of a model that ships with the package.

    Raises:
        ValueError: there is no such model, or it does not ship in the form that the engine takes.
    """
    found = forms(name)
    if engine not in found:
        raise ValueError(
            f"{name} does not ship for the engine {engine!r}, only for {', '.join(found)}: choose one of these, or "
            "give a model file."
        )
    return found[engine]


def card(name: str) -> dict[str, Any]:
    """Returns the card of a model that ships: what it is, how it was trained, its measured numbers.

    Raises:
        ValueError: there is no such model.
    """
    values: dict[str, Any] = json.loads(pretrained_path(name).with_suffix(".json").read_text("utf-8"))
    return values


def predictor_path() -> Path:
    """Returns the file of the quality predictor that ships with the package."""
    return FOLDER / f"{PREDICTOR}.tflite"


def is_as_shipped(path: Path) -> bool:
    """Whether a LiteRT file is one that ships with the package, to the bit."""
    if path.parent != FOLDER:
        return False
    try:
        stated = json.loads(path.with_suffix(".json").read_text("utf-8"))["sha256"]
    except (OSError, ValueError, KeyError):
        return False
    return bool(stated == digest(path))


def digest(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of a model file, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
