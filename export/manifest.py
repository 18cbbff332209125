"""What an export says of itself: `manifest.json` beside the artefacts."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import onnx
import tensorflow as tf

import keras_deartifact
from export.device import operators
from export.verify import Parity
from keras_deartifact import engines, quantiser

__all__ = ["NAME", "as_text", "describe", "entry", "source", "source_name"]

NAME = "manifest.json"


def source_name(path: Path) -> str:
    """Returns what a .keras file is known by: in a run's folder, the run's name."""
    return path.resolve().parent.name if path.name == "generator.keras" else path.stem


def source(network: keras.Model, path: Path) -> dict[str, Any]:
    """Returns what all artefacts of an export have in common.

    Args:
        network: the generator, as it is exported.
        path: its .keras file.
    """
    return {
        "keras_deartifact_version": keras_deartifact.__version__,
        "source": {"name": source_name(path), "file": path.name, "sha256": engines.digest(path)},
        "network": {"class": type(network).__name__, "config": network.get_config()},
        "size_multiple": network.size_multiple,
        "channels": network.channels,
        "quantiser_map": {
            "unit": "log2 of the luma quantiser step",
            "minimum": quantiser.MINIMUM_LOG2_STEP,
            "maximum": quantiser.MAXIMUM_LOG2_STEP,
            "default": quantiser.DEFAULT_LOG2_STEP,
            "block": quantiser.BLOCK,
        },
    }


def entry(root: Path, path: Path, precision: str, parity: Parity) -> dict[str, Any]:
    """Returns what there is to say of one artefact; of a LiteRT file also which accelerators refuse operators of it.

    Args:
        root: the export's folder.
        path: a file below it, or the folder of a SavedModel.
        precision: key of `tflite.PRECISIONS`.
        parity: as measured.
    """
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return {
        "path": path.relative_to(root).as_posix(),
        "precision": precision,
        "size_bytes": sum(each.stat().st_size for each in files),
        "files": {
            each.relative_to(root).as_posix(): {"sha256": engines.digest(each), "size_bytes": each.stat().st_size}
            for each in files
        },
        "signatures": describe(path),
        **({"refused_by": operators.unsupported(path)} if path.suffix == ".tflite" else {}),
        "measured": asdict(parity),
    }


def describe(path: Path) -> dict[str, Any]:
    """Returns the inputs and outputs of a model, by signature.

    Args:
        path: a SavedModel's folder, a .onnx or a .tflite file; the files have one signature, `network`.

    Returns:
        `{signature: {"inputs": {name: {"dtype": ..., "shape": [...]}}, "outputs": ...}}`; None is a free dimension.
    """
    if path.is_dir():
        return _of_saved_model(path)
    return {"network": _of_onnx(path) if path.suffix == ".onnx" else _of_litert(path)}


def _of_saved_model(path: Path) -> dict[str, Any]:
    signatures = tf.saved_model.load(str(path)).signatures
    return {
        name: {
            "inputs": _specs(signatures[name].structured_input_signature[1]),
            "outputs": _specs(signatures[name].structured_outputs),
        }
        for name in sorted(signatures)
    }


def _specs(specs: dict[str, tf.TensorSpec]) -> dict[str, Any]:
    return {name: {"dtype": spec.dtype.name, "shape": spec.shape.as_list()} for name, spec in sorted(specs.items())}


def _of_onnx(path: Path) -> dict[str, Any]:
    graph = onnx.load(path).graph
    return {"inputs": _values(graph.input), "outputs": _values(graph.output)}


def _values(values: Any) -> dict[str, Any]:
    return {
        value.name: {
            "dtype": onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            "shape": [dimension.dim_value or None for dimension in value.type.tensor_type.shape.dim],
        }
        for value in values
    }


def _of_litert(path: Path) -> dict[str, Any]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    return {
        "inputs": _details(interpreter.get_input_details()),
        "outputs": _details(interpreter.get_output_details()),
    }


def _details(details: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        each["name"]: {
            "dtype": each["dtype"].__name__,
            "shape": [None if side < 0 else int(side) for side in each["shape_signature"]],
        }
        for each in details
    }


def as_text(values: dict[str, Any]) -> dict[str, str]:
    """Returns `source`'s values as ONNX's metadata hold them: texts by one name each."""
    quantiser_map = values["quantiser_map"]
    return {
        "keras_deartifact_version": values["keras_deartifact_version"],
        "source_name": values["source"]["name"],
        "source_sha256": values["source"]["sha256"],
        "size_multiple": str(values["size_multiple"]),
        **{f"quantiser_map_{name}": str(quantiser_map[name]) for name in ("minimum", "maximum", "default")},
    }
