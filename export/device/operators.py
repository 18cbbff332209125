"""Says which accelerators take a LiteRT file: `python -m export.device.operators FILE.tflite`.

An operator that an accelerator does not take runs on the CPU, with a copy of its tensors each way; Samsung's compiler
refuses the whole file. The lists are those of what compiles a file, not of any one chip, and they check names, versions
and tensors, not every option: a compiler on the device has the last word.

Read at their sources, which are parts of LiteRT (github.com/google-ai-edge/LiteRT):

- gpu: `tflite/delegates/gpu/common/model_builder.cc` at 34ec5ba (names, types, ranks) and
  `tflite/tools/versioning/gpu_compatibility.cc` at 007226f (what each operator must look like). LiteRT 2's own
  accelerators (OpenCL, WebGPU, Metal) come as binaries, without a list.
- qualcomm: `litert/vendors/qualcomm/compiler/Qualcomm_QNN_Compiler.md` at 08c8bf6.
- mediatek: `kSupportedOps` of `litert/vendors/mediatek/compiler/compiler_plugin.cc`, as ai-edge-litert 2.3.0 ships it.
- google_tensor: `kUnSupportedOps` of `litert/vendors/google_tensor/compiler/compiler_plugin.cc`, as 2.3.0 ships it.
- samsung: the switch of `litert/vendors/samsung/compiler/create_model.cc`, the longest of three versions read (2026).
- nnapi: `NNAPIDelegateKernel::Validate` of `tflite/delegates/nnapi/nnapi_delegate.cc` at 5c8a6d4, Android 11 and newer.
  Android 15 deprecates NNAPI.

The Edge TPU (Coral) is left out: its list, coral.ai/docs/edgetpu/models-intro, could not be read to the end. Its
compiler says of each operator where it runs, and takes none that is not of 8-bit integers.
"""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

__all__ = ["LISTS", "Operator", "operators", "refusals", "sizes_are_open", "unsupported"]

# What each takes. NNAPI's have the newest version of the operator that it takes; 9 where it takes any.
_GPU = """ABS ADD ADD_N AVERAGE_POOL_2D BATCH_MATMUL CAST CONCATENATION CONV_2D COS CUMSUM DENSIFY DEPTHWISE_CONV_2D
DEPTH_TO_SPACE DEQUANTIZE DIV ELU EQUAL EXP FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GELU GREATER GREATER_EQUAL
HARD_SWISH LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGISTIC LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG
NOT_EQUAL ONE_HOT PACK PAD PADV2 POW PRELU QUANTIZE REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RELU6 RELU_0_TO_1
RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SELECT SELECT_V2 SIGN SIN SLICE SOFTMAX
SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE STRIDED_SLICE SUB SUM TANH TILE TRANSPOSE TRANSPOSE_CONV
UNPACK"""
_QUALCOMM = """ABS ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_MATMUL BROADCAST_TO CAST CEIL CONCATENATION CONV_2D CONV_3D
COS CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP FLOOR
FLOOR_DIV FULLY_CONNECTED GATHER GATHER_ND GELU GREATER GREATER_EQUAL HARD_SWISH L2_NORMALIZATION L2_POOL_2D LEAKY_RELU
LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG
NOT_EQUAL PACK PAD PADV2 POW PRELU QUANTIZE REDUCE_ALL REDUCE_ANY REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_0_TO_1
RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT SELECT_V2 SIGN SIN SLICE
SOFTMAX SPACE_TO_DEPTH SPLIT SQRT SQUARE SQUARED_DIFFERENCE STRIDED_SLICE SUB SUM TANH TILE TOPK_V2 TRANSPOSE
TRANSPOSE_CONV UNPACK STABLEHLO_COMPOSITE"""
_MEDIATEK = """ABS ADD AVERAGE_POOL_2D BATCH_MATMUL CAST CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEQUANTIZE DIV
FULLY_CONNECTED GELU GREATER HARD_SWISH L2_NORMALIZATION LEAKY_RELU LESS LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL
PAD PADV2 PRELU QUANTIZE REDUCE_MAX RELU RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX SPLIT SQRT
SQUARED_DIFFERENCE STABLEHLO_COMPOSITE STRIDED_SLICE SUB SUM TANH TILE TRANSPOSE TRANSPOSE_CONV UNPACK"""
_SAMSUNG = """ABS ADD ARG_MAX AVERAGE_POOL_2D BATCH_MATMUL BROADCAST_TO CAST CEIL CONCATENATION CONV_2D CONV_3D COS
CUMSUM DEPTHWISE_CONV_2D DEQUANTIZE DIV EMBEDDING_LOOKUP EQUAL EXP FLOOR FLOOR_DIV FULLY_CONNECTED GATHER GATHER_ND GELU
GREATER GREATER_EQUAL HARD_SWISH L2_NORMALIZATION LEAKY_RELU LESS LOG LOGICAL_AND LOGISTIC MAXIMUM MAX_POOL_2D MEAN
MINIMUM MIRROR_PAD MUL NOT_EQUAL PAD PADV2 POW QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1
RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 RSQRT SELECT SELECT_V2 SIN SLICE SOFTMAX SPACE_TO_DEPTH SPLIT
SQRT SQUARED_DIFFERENCE STABLEHLO_COMPOSITE STRIDED_SLICE SUB SUM TANH TRANSPOSE TRANSPOSE_CONV"""
_NNAPI = """ABS=1 ADD=2 ARG_MAX=2 ARG_MIN=2 AVERAGE_POOL_2D=2 BATCH_MATMUL=2 BATCH_TO_SPACE_ND=2
BIDIRECTIONAL_SEQUENCE_LSTM=1 CAST=1 CONCATENATION=2 CONV_2D=5 COS=1 DENSIFY=1 DEPTHWISE_CONV_2D=3 DEPTH_TO_SPACE=9
DEQUANTIZE=2 DIV=1 ELU=1 EMBEDDING_LOOKUP=1 EQUAL=2 EXP=1 EXPAND_DIMS=1 FILL=1 FLOOR=1 FULLY_CONNECTED=5 GATHER=2
GREATER=2 GREATER_EQUAL=2 HARD_SWISH=9 HASHTABLE_LOOKUP=1 L2_NORMALIZATION=2 L2_POOL_2D=1 LEAKY_RELU=1 LESS=2
LESS_EQUAL=2 LOCAL_RESPONSE_NORMALIZATION=1 LOG=1 LOGICAL_AND=1 LOGICAL_NOT=1 LOGICAL_OR=1 LOGISTIC=2 LOG_SOFTMAX=1
LSH_PROJECTION=1 LSTM=3 MAXIMUM=3 MAX_POOL_2D=2 MEAN=2 MINIMUM=3 MIRROR_PAD=2 MUL=2 NEG=2 NOT_EQUAL=2 PACK=2 PAD=2
PADV2=2 POW=1 PRELU=1 QUANTIZE=2 REDUCE_ANY=2 REDUCE_MAX=2 REDUCE_MIN=2 REDUCE_PROD=1 RELU=2 RELU6=2 RELU_N1_TO_1=2
RESHAPE=1 RESIZE_BILINEAR=3 RESIZE_NEAREST_NEIGHBOR=3 REVERSE_V2=3 RNN=1 RSQRT=2 SELECT=2 SIN=1 SLICE=2 SOFTMAX=2
SPACE_TO_BATCH_ND=2 SPACE_TO_DEPTH=2 SPLIT=3 SPLIT_V=2 SQRT=1 SQUARED_DIFFERENCE=2 SQUEEZE=1 STRIDED_SLICE=2 SUB=3 SUM=1
SVDF=1 TANH=2 TILE=1 TOPK_V2=2 TRANSPOSE=2 TRANSPOSE_CONV=4 UNIDIRECTIONAL_SEQUENCE_LSTM=2 UNIDIRECTIONAL_SEQUENCE_RNN=1
UNPACK=2"""
# What Google Tensor does not take; of the others its compiler tries each.
_NOT_GOOGLE_TENSOR = """ASSIGN_VARIABLE BIDIRECTIONAL_SEQUENCE_LSTM BROADCAST_ARGS BUCKETIZE CALL_ONCE COMPLEX_ABS
CONV_3D_TRANSPOSE CUSTOM DENSIFY FAKE_QUANT HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE IMAG
LOCAL_RESPONSE_NORMALIZATION MATRIX_DIAG MATRIX_SET_DIAG MULTINOMIAL NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5
RANDOM_STANDARD_NORMAL RANDOM_UNIFORM RANK READ_VARIABLE REAL REDUCE_PROD REVERSE_SEQUENCE RFFT2D SEGMENT_SUM SHAPE
SPARSE_TO_DENSE STABLEHLO_REDUCE_WINDOW STABLEHLO_SCATTER SVDF UNIDIRECTIONAL_SEQUENCE_RNN UNIQUE UNSORTED_SEGMENT_MAX
UNSORTED_SEGMENT_MIN UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_SUM VAR_HANDLE WHERE"""


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


_OPERATORS = _names(schema.BuiltinOperator)
_TYPES = _names(schema.TensorType)
_NNAPI_VERSIONS = {name: int(version) for name, version in (entry.split("=") for entry in _NNAPI.split())}

LISTS: dict[str, frozenset[str]] = {
    "gpu": frozenset(_GPU.split()),
    "qualcomm": frozenset(_QUALCOMM.split()),
    "mediatek": frozenset(_MEDIATEK.split()),
    "google_tensor": frozenset(_OPERATORS.values()) - frozenset(_NOT_GOOGLE_TENSOR.split()),
    "samsung": frozenset(_SAMSUNG.split()),
    "nnapi": frozenset(_NNAPI_VERSIONS),
}
"""Names of the operators that each takes, as the LiteRT schema spells them."""

# GPU: these may have tensors of integers or of truth values.
_GPU_OTHER_TYPES = frozenset(
    "CAST EQUAL GATHER GREATER GREATER_EQUAL LESS LESS_EQUAL LOGICAL_AND NOT_EQUAL ONE_HOT SELECT SELECT_V2".split()
)
_NNAPI_FLOAT = frozenset("ABS COS DIV ELU EXP LOG LOG_SOFTMAX POW REDUCE_PROD SIN SQRT SUM".split())

_ADVICE = {
    "DEPTH_TO_SPACE": "a TRANSPOSE_CONV of stride and kernel N with a kernel of zeros and ones gives the same values",
    "SPACE_TO_DEPTH": "a CONV_2D of stride and kernel N with a kernel of zeros and ones gives the same values",
    "EXP": "LOGISTIC(x) / LOGISTIC(-x) is the same value; or make the power an input of the file",
    "SHAPE": "export with a fixed size",
    "WHERE": "choose by arithmetic or by SELECT_V2",
}
_DEFAULT_ADVICE = "runs on the CPU there, with a copy each way: write the network without it, or keep to the CPU"


@dataclass(frozen=True)
class Operator:
    """One operator of a file.

    Attributes:
        name: as the LiteRT schema has it, `CONV_2D`; of a custom one `CUSTOM` and its own name.
        version: of the operator.
        inputs: types of its inputs, without those that are left out, as `float32`.
        outputs: types of its outputs.
        refused: what is wrong with it for a list, by the list's name.
    """

    name: str
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    refused: dict[str, str]


def operators(model: bytes | Path) -> list[Operator]:
    """Returns the operators of a LiteRT file, in its order, over all of its subgraphs.

    Args:
        model: the file, or its bytes.

    Raises:
        ValueError: it is no whole LiteRT model.
    """
    root = _root(model)
    try:
        return [
            _operator(root, subgraph, subgraph.Operators(index))
            for subgraph in map(root.Subgraphs, range(root.SubgraphsLength()))
            for index in range(subgraph.OperatorsLength())
        ]
    except Exception as error:  # The reader follows whatever the bytes say, out of the file's end if need be.
        raise ValueError(_damaged(model)) from error


def refusals(model: bytes | Path) -> dict[str, dict[str, str]]:
    """Returns what each of `LISTS` does not take of a file: the operators' names, and why.

    Raises:
        ValueError: it is no whole LiteRT model.
    """
    result: dict[str, dict[str, str]] = {name: {} for name in LISTS}
    for operator in operators(model):
        for name, reason in operator.refused.items():
            result[name].setdefault(operator.name, reason)
    return result


def unsupported(model: bytes | Path) -> dict[str, list[str]]:
    """Returns the names of the operators that each of `LISTS` does not take, sorted; an empty list where it takes all.

    Raises:
        ValueError: it is no whole LiteRT model.
    """
    return {name: sorted(found) for name, found in refusals(model).items()}


def sizes_are_open(model: bytes | Path) -> bool:
    """Returns whether a file leaves a size of an input to whoever runs it; accelerators take fixed sizes alone.

    Raises:
        ValueError: it is no whole LiteRT model.
    """
    root = _root(model)
    try:
        subgraph = root.Subgraphs(0)
        shapes = [_shape(subgraph.Tensors(subgraph.Inputs(index))) for index in range(subgraph.InputsLength())]
    except Exception as error:  # As above.
        raise ValueError(_damaged(model)) from error
    return any(side < 0 for shape in shapes for side in shape)


def _damaged(model: bytes | Path) -> str:
    return f"{model if isinstance(model, Path) else 'This'} is no whole LiteRT model."


def _root(model: bytes | Path) -> Any:
    if isinstance(model, Path):
        try:
            content = model.read_bytes()
        except OSError as error:
            raise ValueError(f"{model} cannot be read: {error.strerror}") from error
    else:
        content = model
    if content[4:8] != b"TFL3":
        raise ValueError(_damaged(model))
    try:
        root = schema.Model.GetRootAs(content)
        # Weights lie towards the file's end: of a truncated one they are what is missing.
        for index in range(root.BuffersLength()):
            if root.Buffers(index).DataLength():
                root.Buffers(index).DataAsNumpy()
    except Exception as error:  # As above.
        raise ValueError(_damaged(model)) from error
    return root


def _shape(tensor: Any) -> tuple[int, ...]:
    """Sides of a tensor; -1 where one is open."""
    if tensor.ShapeSignatureLength():
        return tuple(int(side) for side in tensor.ShapeSignatureAsNumpy())
    return tuple(int(side) for side in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()


def _operator(root: Any, subgraph: Any, operator: Any) -> Operator:
    code = root.OperatorCodes(operator.OpcodeIndex())
    # Files before the 128th operator have their code in the older field, which is of 8 bits.
    kind = _OPERATORS.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "UNKNOWN")
    name = f"CUSTOM {code.CustomCode().decode()}" if kind == "CUSTOM" else kind
    inputs = [subgraph.Tensors(index) for index in operator.InputsAsNumpy() if index >= 0]
    outputs = [subgraph.Tensors(index) for index in operator.OutputsAsNumpy()]
    refused = {each: "not on its list" for each, taken in LISTS.items() if kind not in taken}
    # A constant is what its buffer holds; what has none is computed.
    computed = [tensor for tensor in inputs if not root.Buffers(tensor.Buffer()).DataLength()]
    types = {_type(tensor) for tensor in computed + outputs}
    for each, reason in (
        ("gpu", _gpu_limit(kind, operator, inputs, outputs, types)),
        ("nnapi", _nnapi_limit(kind, code.Version(), inputs, types)),
    ):
        if reason:
            refused.setdefault(each, reason)
    return Operator(
        name, code.Version(), tuple(map(_type, inputs)), tuple(map(_type, outputs)), dict(sorted(refused.items()))
    )


def _type(tensor: Any) -> str:
    return _TYPES[tensor.Type()].lower()


def _gpu_limit(kind: str, operator: Any, inputs: list[Any], outputs: list[Any], types: set[str]) -> str:
    shapes = [_shape(tensor) for tensor in inputs]
    if any(len(shape) > 4 for shape in shapes + [_shape(tensor) for tensor in outputs]):
        return "a tensor of more than 4 dimensions"
    if kind not in _GPU_OTHER_TYPES and types - {"float32", "float16", "int8", "uint8"}:
        return f"tensors of {', '.join(sorted(types))}"
    if kind == "STRIDED_SLICE":
        options = schema.StridedSliceOptions()
        options.Init(operator.BuiltinOptions().Bytes, operator.BuiltinOptions().Pos)
        if options.EllipsisMask() or options.NewAxisMask() or options.ShrinkAxisMask():
            return "an axis that goes or comes"
    if kind in ("STRIDED_SLICE", "SLICE") and len(shapes[0]) not in (3, 4):
        return "a tensor of not 3 or 4 dimensions"
    if kind in ("PAD", "PADV2", "MIRROR_PAD") and shapes[1][0] not in (3, 4):
        return "a tensor of not 3 or 4 dimensions"
    if kind in ("ADD", "MUL"):
        short, long = sorted(shapes, key=len)
        fits = len(long) == 4 and (
            (len(short) == 3 and long[0] == 1)
            or (len(short) == 2 and (long[0], *short) == (1, 1, 1))
            or (len(short) == 2 and (long[0], long[3]) == short)
        )
        if 1 < len(short) < len(long) and not fits:
            return f"shapes {list(short)} and {list(long)}"
    return ""


def _nnapi_limit(kind: str, version: int, inputs: list[Any], types: set[str]) -> str:
    if version > _NNAPI_VERSIONS.get(kind, version):
        return f"version {version}, where it takes up to {_NNAPI_VERSIONS[kind]}"
    if kind in _NNAPI_FLOAT and types - {"float32", "float16"}:
        return f"tensors of {', '.join(sorted(types))}"
    if kind == "CONV_2D" and len(inputs) < 3:
        return "no bias"
    return ""


def _counted(types: tuple[str, ...]) -> str:
    """`2 float32, int32`, in the order in which they come first."""
    return ", ".join(f"{count} {each}" if count > 1 else each for each, count in Counter(types).items())


def _report(path: Path) -> str:
    """The lines that the program prints of one file."""
    found = operators(path)
    counts = Counter((each.name, each.version, each.inputs, each.outputs) for each in found)
    lines = [f"{path}: {len(found)} operators"]
    for (name, version, inputs, outputs), count in sorted(counts.items()):
        lines.append(f"  {count:3d} {name} version {version}: {_counted(inputs)} -> {_counted(outputs)}")
    if sizes_are_open(path):
        lines.append("An input's size is open: accelerators take fixed sizes alone, so export with one.")
    advice: dict[str, None] = {}
    for name, refused in refusals(path).items():
        lines.append(f"{name}: " + ("; ".join(f"not {each} ({why})" for each, why in refused.items()) or "takes all"))
        advice |= dict.fromkeys(refused)
    lines += [f"{each}: {_ADVICE.get(each, _DEFAULT_ADVICE)}" for each in advice]
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Prints what the accelerators take of the files that the arguments name."""
    if not argv or any(each.startswith("-") for each in argv):
        raise SystemExit("usage: python -m export.device.operators FILE.tflite...")
    for each in argv:
        try:
            sys.stdout.write(_report(Path(each)) + "\n")
        except ValueError as error:
            raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main(sys.argv[1:])
