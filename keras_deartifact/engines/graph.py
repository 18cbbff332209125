"""Whether the operators of a .tflite file belong together.

LiteRT verifies that a file's tables lie within it, but not that they make sense: one flipped bit lets an operator take
the wrong tensors, and the interpreter of Python crashes with it.
"""

import math
from typing import Any

import numpy as np

__all__ = ["check"]

# The weights' axis of the output channels, of those operators that have weights and a bias.
_CHANNELS_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}


# Of one tensor: four times what 64 channels of a 4K frame take. LiteRT would ask for whatever a file states.
_MOST_NUMBERS = 2**31


def check(contents: bytes) -> None:
    """Checks the graph of a model that LiteRT has opened.

    Every operator takes what is there before it: inputs, constants and results of operators above it. No result is
    given twice, all outputs are given, biases fit their weights, and no tensor is beyond all memory.

    Args:
        contents: of the file.

    Raises:
        ValueError: that does not hold.
    """
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    model = schema.Model.GetRootAs(contents, 0)
    for number in range(model.SubgraphsLength()):
        graph = model.Subgraphs(number)
        tensors = [graph.Tensors(index) for index in range(graph.TensorsLength())]
        if any(math.prod(map(abs, _indices(tensor.ShapeAsNumpy()))) > _MOST_NUMBERS for tensor in tensors):
            raise ValueError("The file is damaged: a tensor is larger than any of a network for pictures.")
        there = {index for index, tensor in enumerate(tensors) if tensor.IsVariable() or _is_constant(model, tensor)}
        there.update(_indices(graph.InputsAsNumpy()))
        for position in range(graph.OperatorsLength()):
            operator = graph.Operators(position)
            inputs = [index for index in _indices(operator.InputsAsNumpy()) if index >= 0]
            outputs = _indices(operator.OutputsAsNumpy())
            if not there.issuperset(inputs) or there.intersection(outputs) or not outputs:
                raise ValueError(f"The file is damaged: operator {position} is not connected as it should be.")
            there.update(outputs)
            code = model.OperatorCodes(operator.OpcodeIndex())
            name = names.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))
            if name in _CHANNELS_AXIS and not _fits(tensors, inputs, _CHANNELS_AXIS[name]):
                raise ValueError(f"The file is damaged: the weights of operator {position} do not fit.")
        if not there.issuperset(_indices(graph.OutputsAsNumpy())):
            raise ValueError("The file is damaged: an output is not connected.")


def _indices(array: Any) -> list[int]:
    # flatbuffers gives 0 for an array that is absent.
    return [int(index) for index in np.atleast_1d(array)] if isinstance(array, np.ndarray) else []


def _is_constant(model: Any, tensor: Any) -> bool:
    if tensor.Buffer() >= model.BuffersLength():
        return False
    buffer = model.Buffers(tensor.Buffer())
    return bool(buffer.DataLength() or buffer.Offset() > 1 or 0 in _indices(tensor.ShapeAsNumpy()))


def _fits(tensors: list[Any], inputs: list[int], axis: int) -> bool:
    if len(inputs) < 2 or max(inputs) >= len(tensors):
        return False
    weights = _indices(tensors[inputs[1]].ShapeAsNumpy())
    if len(weights) <= axis:
        return False
    return len(inputs) < 3 or _indices(tensors[inputs[2]].ShapeAsNumpy()) == [weights[axis]]
