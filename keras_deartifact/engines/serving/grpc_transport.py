"""gRPC: the official stubs of TensorFlow Serving's PredictionService.

Their messages are built on TensorFlow's, and importing them imports all of TensorFlow. A request carries an array's
bytes as they are; what answers may list the numbers instead, which is what TensorFlow Serving does by itself.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_deartifact.engines.serving.errors import Cancelled, Failure, ServingError
from keras_deartifact.engines.serving.retries import Cancellation
from keras_deartifact.engines.serving.server import Server
from keras_deartifact.engines.serving.transport import OUTPUT, Description

__all__ = ["GrpcTransport"]

# Of a message, in either direction. A tile is far below; it keeps a server that is none from filling the memory.
_MOST_BYTES = 64 * 2**20

_OPTIONS = [
    ("grpc.max_send_message_length", _MOST_BYTES),
    ("grpc.max_receive_message_length", _MOST_BYTES),
    # `retries.py` does it. Between two attempts to connect gRPC lets requests fail without trying, for minutes unless
    # it is told otherwise, so that a server that is back would not be noticed.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


class GrpcTransport:
    """A `Transport`."""

    def __init__(self, server: Server, model: str) -> None:
        try:
            import grpc  # type: ignore[import-untyped]
            from tensorflow_serving.apis import prediction_service_pb2_grpc
        except ImportError as error:
            raise ServingError(
                f"gRPC needs a package that is not installed ({error.name or error}): "
                "pip install 'keras_deartifact[serve]'; REST, http://HOST:PORT, needs none"
            ) from error
        self._model = model
        self._version = server.version
        target = f"[{server.host}]:{server.port}" if ":" in server.host else f"{server.host}:{server.port}"
        if server.is_secure:
            credentials = grpc.ssl_channel_credentials(server.read("ca"), server.read("key"), server.read("cert"))
            self._channel = grpc.secure_channel(target, credentials, _OPTIONS)
        else:
            self._channel = grpc.insecure_channel(target, _OPTIONS)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, NDArray[Any]],
        dtype: type[np.generic],
        seconds: float,
        cancellation: Cancellation,
    ) -> NDArray[Any]:
        """See `Transport`."""
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        self._specify(request.model_spec)
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            _fill(request.inputs[name], array)
        response = self._call(self._stub.Predict, request, seconds, cancellation)
        answered = _version(response)
        if isinstance(self._version, int) and answered not in (None, self._version):
            raise Failure("GARBAGE", f"an answer of version {answered} instead of {self._version}")
        if len(response.outputs) != 1:
            raise Failure("GARBAGE", f"{len(response.outputs)} outputs instead of {OUTPUT!r} alone")
        return _array(next(iter(response.outputs.values())))

    def describe(self, seconds: float, cancellation: Cancellation) -> Description:
        """See `Transport`."""
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._specify(request.model_spec)
        response = self._call(self._stub.GetModelMetadata, request, seconds, cancellation)
        found = get_model_metadata_pb2.SignatureDefMap()
        if not response.metadata["signature_def"].Unpack(found):
            raise Failure("GARBAGE", "metadata without signatures")
        shapes = {name: each.inputs["images"].tensor_shape.dim for name, each in found.signature_def.items()}
        return Description(
            version=_version(response),
            channels={name: int(shape[-1].size) for name, shape in shapes.items() if len(shape)},
            outputs={name: sorted(each.outputs) for name, each in found.signature_def.items()},
        )

    def pin(self, version: int) -> None:
        """See `Transport`."""
        self._version = version

    def close(self) -> None:
        """See `Transport`."""
        self._channel.close()

    def _specify(self, spec: Any) -> None:
        spec.name = self._model
        version = self._version
        if isinstance(version, int):
            spec.version.value = version
        elif version is not None:
            spec.version_label = version

    def _call(self, method: Any, request: Any, seconds: float, cancellation: Cancellation) -> Any:
        import grpc

        call = method.future(request, timeout=seconds)
        with cancellation.on_cancel(call.cancel):
            try:
                return call.result()
            except grpc.FutureCancelledError as error:
                raise Cancelled from error
            except grpc.RpcError as error:
                raise Failure(call.code().name, call.details() or "") from error


def _version(response: Any) -> int | None:
    spec = response.model_spec
    return int(spec.version.value) if spec.HasField("version") else None


def _fill(proto: Any, array: NDArray[Any]) -> None:
    from tensorflow.core.framework import types_pb2

    for side in array.shape:
        proto.tensor_shape.dim.add(size=side)
    if array.dtype == object:
        proto.dtype = types_pb2.DT_STRING
        proto.string_val.extend(array.ravel().tolist())
    else:
        proto.dtype = {"float32": types_pb2.DT_FLOAT, "uint8": types_pb2.DT_UINT8}[array.dtype.name]
        proto.tensor_content = np.ascontiguousarray(array).tobytes()


def _array(proto: Any) -> NDArray[Any]:
    """A message's array, whichever of its fields holds the numbers.

    `tensorflow.make_ndarray` does it too, and takes 26 ms for the float32 numbers of a tile.
    """
    from tensorflow.core.framework import types_pb2

    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if proto.dtype == types_pb2.DT_STRING:
        values: NDArray[Any] = np.array(list(proto.string_val), object)
    elif proto.dtype not in (types_pb2.DT_FLOAT, types_pb2.DT_UINT8):
        raise Failure("GARBAGE", f"an answer of {types_pb2.DataType.Name(proto.dtype)}")
    else:
        is_float = proto.dtype == types_pb2.DT_FLOAT
        dtype = np.dtype(np.float32 if is_float else np.uint8)
        content = proto.tensor_content
        if content:
            values = np.frombuffer(content[: len(content) // dtype.itemsize * dtype.itemsize], dtype)
        elif is_float:
            values = np.array(proto.float_val, dtype)
        else:
            numbers = np.array(proto.int_val, np.int32)
            values = numbers.astype(dtype)
            if not np.array_equal(values, numbers):
                raise Failure("GARBAGE", "an answer of uint8 with numbers beyond 255")
    if values.size != math.prod(shape):
        raise Failure("GARBAGE", f"{values.size} numbers for the shape {shape}")
    return values.reshape(shape)
