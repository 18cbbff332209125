"""8-bit integers for LiteRT, calibrated after training: integers within, floating point at the ends.

A network names its `integer_layers`. These and what lies between them compute in integers; what comes before and after
stays float32, where a picture's own precision goes through. Images and result are uint8 all the same, a level 1/255.

Integers all through do not hold: `shuffle_nano` loses 1.2 dB, which is all that it gains, because coefficients in units
of a fine quantiser step span more than 8 bits.

Reference: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", CVPR 2018 (the scheme: a scale and a zero point for each tensor, for weights one scale a filter).
"""

import contextlib
import copy
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

__all__ = ["Example", "quantise", "quantise_weights"]

Example = tuple[np.ndarray, np.ndarray]
"""Images `(1, height, width, channels)` in `[0, 1]` and map `(1, height / 16, width / 16, 1)`, float32."""

_LEVEL = 1.0 / 255.0
_Operator = schema.BuiltinOperator
_CONVOLUTIONS = (_Operator.CONV_2D, _Operator.DEPTHWISE_CONV_2D)
# Of a convolution's weights, the axis of its filters; and the operator's first version that takes floats beside weights
# of 8 bits with a scale for each filter.
_WEIGHTS = {_Operator.CONV_2D: (0, 5), _Operator.DEPTHWISE_CONV_2D: (3, 6)}
# What goes on with integers where all that comes in is. No additions: each would round the sum that goes through a
# whole network once more.
_FOLLOWING = {
    _Operator.CONCATENATION,
    _Operator.DEPTH_TO_SPACE,
    _Operator.LEAKY_RELU,
    _Operator.RELU,
    _Operator.RELU6,
}


def quantise(concrete: Any, integer_layers: Sequence[str], examples: Iterable[Example]) -> bytes:
    """Returns a LiteRT model with 8-bit integers of a frozen function of `images` and `quantiser_map`.

    Args:
        concrete: the function.
        integer_layers: names of the convolutions that become integers, each of one layer alone.
        examples: what the ranges are taken from.

    Raises:
        ValueError: there are no examples, or a layer could not be made of integers.
    """
    data = list(examples)
    if not data:
        raise ValueError("8-bit integers are calibrated on pictures: none was given.")
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    in_floats = flatbuffer_utils.convert_bytearray_to_object(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([images, quantiser_map] for images, quantiser_map in data)
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=_kept_in_float(in_floats, integer_layers))
    with _quiet():
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=converter.representative_dataset, debug_options=options
        )
        model = flatbuffer_utils.convert_bytearray_to_object(debugger.get_nondebug_quantized_model())
    _check_layers(model, integer_layers)
    _make_edges_uint8(model)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def quantise_weights(concrete: Any, integer_layers: Sequence[str]) -> bytes:
    """Returns a LiteRT model with 8-bit weights; what goes into their layers is scaled to its own range as it comes.

        integer = round(weight / scale), scale = largest |weight| of the filter / 127

    Everything but these weights is float32. The converter's own way takes all weights, and costs `shuffle_nano` up to
    0.05 dB where a picture is hardly compressed.

    Args:
        concrete: the frozen function.
        integer_layers: names of the convolutions, each of one layer alone.

    Raises:
        ValueError: a layer could not be found.
    """
    model = flatbuffer_utils.convert_bytearray_to_object(
        tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()
    )
    tensors = model.subgraphs[0].tensors
    for code, operator in _operators(model):
        if code in _CONVOLUTIONS and _layer_of(_name(model, operator.outputs[0]), integer_layers):
            axis, version = _WEIGHTS[code]
            _make_int8(model, tensors[operator.inputs[1]], axis)
            operator.opcodeIndex = _operator_code(model, code, version)
    _check_layers(model, integer_layers)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _make_int8(model: Any, tensor: Any, axis: int) -> None:
    weights = np.frombuffer(model.buffers[tensor.buffer].data.tobytes(), np.float32).reshape(tensor.shape)
    largest = np.abs(weights).max(axis=tuple(each for each in range(4) if each != axis), keepdims=True)
    # A filter of zeros has no scale of its own.
    scale = np.where(largest > 0.0, largest, 1.0) / 127.0
    model.buffers[tensor.buffer].data = np.rint(weights / scale).astype(np.int8).view(np.uint8).ravel()
    tensor.type = schema.TensorType.INT8
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = scale.ravel().astype(np.float32)
    tensor.quantization.zeroPoint = np.zeros(scale.size, np.int64)
    tensor.quantization.quantizedDimension = axis


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # The converter's own debugger uses TensorFlow's interpreter.
        warnings.filterwarnings("ignore", r"\s*Warning: tf.lite.Interpreter is deprecated", UserWarning)
        # Statistics of inputs belong to training with quantisation.
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected", UserWarning)
        yield


def _operators(model: Any) -> list[tuple[int, Any]]:
    """Returns the operators of the one graph with their codes, in the order in which they run."""
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return [(codes[operator.opcodeIndex], operator) for operator in model.subgraphs[0].operators]


def _name(model: Any, index: int) -> str:
    name: bytes = model.subgraphs[0].tensors[index].name
    return name.decode()


def _layer_of(name: str, layers: Iterable[str]) -> str | None:
    """Returns the layer that a tensor's name is of; TensorFlow numbers names that it has seen before."""
    return next((layer for layer in layers if re.search(rf"(^|/){re.escape(layer)}(_\d+)?/", name)), None)


def _kept_in_float(model: Any, layers: Sequence[str]) -> list[str]:
    """Returns the names of the results, in a model of floats, of all operators that are to keep computing in floats."""
    graph, operators = model.subgraphs[0], _operators(model)
    produced = {index for _, operator in operators for index in operator.outputs}
    integers: set[int] = set()
    for code, operator in operators:
        # Constants have no operator that makes them.
        given = [index for index in operator.inputs if index in produced or index in graph.inputs]
        of_layer = code in _CONVOLUTIONS and _layer_of(_name(model, operator.outputs[0]), layers)
        if of_layer or (code in _FOLLOWING and given and integers.issuperset(given)):
            integers.update(operator.outputs)
    # The file numbers what shares a name with a constant; the converter goes by the name before that.
    existing = {tensor.name.decode() for tensor in graph.tensors}
    chosen, others = (
        {name for index in indices for name in _spellings(_name(model, index), existing)}
        for indices in (integers, produced - integers)
    )
    return sorted(others - chosen)


def _spellings(name: str, existing: set[str]) -> Iterator[str]:
    yield name
    while name[-1:].isdigit():
        name = name[:-1]
        if name in existing:
            yield name


def _check_layers(model: Any, layers: Sequence[str]) -> None:
    """A name that matched nothing would leave its layer in floating point without a word."""
    tensors = model.subgraphs[0].tensors
    convolutions = [operator for code, operator in _operators(model) if code in _CONVOLUTIONS]
    integers = [
        _name(model, operator.outputs[0])
        for operator in convolutions
        if tensors[operator.inputs[1]].type == schema.TensorType.INT8
    ]
    missing = [layer for layer in layers if not any(_layer_of(name, [layer]) for name in integers)]
    if missing:
        raise ValueError(f"These layers could not be made of integers: {missing}")


def _make_edges_uint8(model: Any) -> None:
    """Puts an operator after the images and one before the result that turn uint8 into floats and floats into uint8."""
    graph = model.subgraphs[0]
    images, result = graph.inputs[0], graph.outputs[0]
    for index in (images, result):
        # The rest of the graph goes on with the floats, under another name.
        edge = copy.copy(graph.tensors[index])
        edge.buffer, edge.type = 0, schema.TensorType.UINT8
        edge.quantization = schema.QuantizationParametersT()
        edge.quantization.scale, edge.quantization.zeroPoint = [_LEVEL], [0]
        graph.tensors[index] = copy.copy(graph.tensors[index])
        graph.tensors[index].name = edge.name + b"_float"
        graph.tensors.append(edge)
    levels, restored_levels = len(graph.tensors) - 2, len(graph.tensors) - 1
    graph.inputs, graph.outputs = [levels, *graph.inputs[1:]], [restored_levels]
    into = _operator(model, _Operator.DEQUANTIZE, schema.BuiltinOptions.DequantizeOptions, levels, images)
    out_of = _operator(model, _Operator.QUANTIZE, schema.BuiltinOptions.QuantizeOptions, result, restored_levels)
    graph.operators = [into, *graph.operators, out_of]


def _operator(model: Any, code: int, options: int, given: int, made: int) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex = _operator_code(model, code)
    operator.inputs, operator.outputs = [given], [made]
    operator.builtinOptionsType = options
    return operator


def _operator_code(model: Any, code: int, version: int = 1) -> int:
    """Returns the index of an operator's code in a version, or a later one, and adds it where there is none."""
    for index, each in enumerate(model.operatorCodes):
        if max(each.builtinCode, each.deprecatedBuiltinCode) == code and each.version >= version:
            return index
    made = schema.OperatorCodeT()
    made.builtinCode, made.deprecatedBuiltinCode, made.version = code, code, version
    model.operatorCodes.append(made)
    return len(model.operatorCodes) - 1
