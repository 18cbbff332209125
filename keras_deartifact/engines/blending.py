"""A model between two that ships: the weights of one network between those of two of the same architecture.

    weights = (1 - perception) weights_faithful + perception weights_perceptual

The second one was trained on from the first, or from what that was before, so that what lies between them restores,
too, and goes from one to the other smoothly, at the cost of one network. LiteRT's files only.

Reference: Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", ECCV Workshops 2018,
section 3.4 (network interpolation).
"""

from typing import Any

import numpy as np

__all__ = ["blended"]


def blended(first: bytes, second: bytes, share: float) -> bytes:
    """Returns a .tflite file between two.

    Args:
        first: contents of a file.
        second: contents of a file of the same architecture.
        share: of the second, 0 to 1.

    Raises:
        ValueError: they are of different architectures.
    """
    from ai_edge_litert import schema_py_generated as schema

    result = bytearray(first)
    ours, theirs = (schema.Model.GetRootAs(contents, 0) for contents in (result, second))
    if _architecture(ours) != _architecture(theirs):
        raise ValueError("Expected two models of the same architecture.")
    for mine, other in zip(_tensors(ours), _tensors(theirs), strict=True):
        weights = ours.Buffers(mine.Buffer()).DataAsNumpy()
        if mine.Type() == schema.TensorType.FLOAT32 and isinstance(weights, np.ndarray):
            # A view into `result`.
            values = weights.view(np.float32)
            values += np.float32(share) * (theirs.Buffers(other.Buffer()).DataAsNumpy().view(np.float32) - values)
    return bytes(result)


def _tensors(model: Any) -> list[Any]:
    graph = model.Subgraphs(0)
    return [graph.Tensors(index) for index in range(graph.TensorsLength())]


def _architecture(model: Any) -> list[tuple[Any, ...]]:
    """What has to be the same: every operator with its tensors, and their shapes, types and sizes."""
    graph = model.Subgraphs(0)
    operators = [graph.Operators(index) for index in range(graph.OperatorsLength())]
    return [
        (
            model.OperatorCodes(each.OpcodeIndex()).BuiltinCode(),
            *map(int, each.InputsAsNumpy()),
            -1,
            *map(int, each.OutputsAsNumpy()),
        )
        for each in operators
    ] + [
        (each.Type(), model.Buffers(each.Buffer()).DataLength(), *map(int, np.atleast_1d(each.ShapeAsNumpy())))
        for each in _tensors(model)
    ]
