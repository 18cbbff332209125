"""REST: JSON over HTTP, with nothing but Python's own library.

It is there where gRPC is not: numbers travel as text, so that a float32 tile takes 9 MB instead of 1.8, and seconds of
both processors. Text as TensorFlow Serving and Python write it gives back the same float32, so that the results are the
same. Bytes travel in base64, as `{"b64": ...}`; TensorFlow Serving answers so only where an output's name ends in
`_bytes`, which those of an export do.
"""

import base64
import contextlib
import http.client
import json
import socket
import ssl
import time
import weakref
from collections import deque
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from keras_deartifact.engines.serving.errors import Cancelled, Failure, ServingError
from keras_deartifact.engines.serving.retries import Cancellation
from keras_deartifact.engines.serving.server import Server
from keras_deartifact.engines.serving.transport import Description

__all__ = ["RestTransport"]

# gRPC's names of what TensorFlow Serving and proxies answer.
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

_MOST_BYTES = 256 * 2**20


class RestTransport:
    """A `Transport`."""

    def __init__(self, server: Server, model: str) -> None:
        self._server = server
        self._tls = _tls(server) if server.is_secure else None
        self._model_path = f"{server.path}/v1/models/{quote(model, safe='')}"
        self._path = self._model_path
        if server.version is not None:
            kind = "versions" if isinstance(server.version, int) else "labels"
            self._path += f"/{kind}/{quote(str(server.version), safe='')}"
        self._idle: deque[http.client.HTTPConnection] = deque()
        self._finalizer = weakref.finalize(self, _close_all, self._idle)

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, NDArray[Any]],
        dtype: type[np.generic],
        seconds: float,
        cancellation: Cancellation,
    ) -> NDArray[Any]:
        """See `Transport`."""
        values = {name: _listed(array) for name, array in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": values}, separators=(",", ":")).encode()
        answer = self._call("POST", f"{self._path}:predict", body, seconds, cancellation)
        if "outputs" not in answer:
            raise Failure("GARBAGE", "an answer without outputs")
        return _array(answer["outputs"], dtype)

    def describe(self, seconds: float, cancellation: Cancellation) -> Description:
        """See `Transport`."""
        answer = self._call("GET", f"{self._path}/metadata", None, seconds, cancellation)
        try:
            signatures = answer["metadata"]["signature_def"]["signature_def"]
            version = answer["model_spec"].get("version")
            channels = {
                name: int(each["inputs"]["images"]["tensor_shape"]["dim"][-1]["size"])
                for name, each in signatures.items()
                if "images" in each.get("inputs", {})
            }
            outputs = {name: sorted(each["outputs"]) for name, each in signatures.items() if "outputs" in each}
            return Description(None if version is None else int(version), channels, outputs)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise Failure("GARBAGE", "metadata without signatures") from error

    def pin(self, version: int) -> None:
        """See `Transport`. That it is this one which answers is the server's word: REST does not tell."""
        self._path = f"{self._model_path}/versions/{version}"

    def close(self) -> None:
        """See `Transport`."""
        self._finalizer()

    def _call(
        self, method: str, path: str, body: bytes | None, seconds: float, cancellation: Cancellation
    ) -> dict[str, Any]:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connection()
        ends = time.monotonic() + seconds
        connection.timeout = seconds
        reusable = False
        try:
            _limit(connection, ends)
            with cancellation.on_cancel(lambda: _shut_down(connection)):
                if connection.sock is None:
                    connection.connect()
                    # Before, there was nothing to shut down.
                    if cancellation.is_cancelled:
                        raise Cancelled
                    # What connecting took is gone.
                    _limit(connection, ends)
                connection.request(method, path, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                content = _read(response, connection, ends)
                reusable = not response.will_close
        except TimeoutError as error:
            raise Failure("DEADLINE_EXCEEDED", f"no answer within {seconds:.1f} s") from error
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise Failure("UNAVAILABLE", str(error)) from error
        except ssl.SSLError as error:
            raise Failure("UNAUTHENTICATED", str(error)) from error
        except (OSError, http.client.HTTPException) as error:
            if cancellation.is_cancelled:
                raise Cancelled from error
            raise Failure("UNAVAILABLE", str(error) or type(error).__name__) from error
        finally:
            if reusable and self._finalizer.alive:
                self._idle.append(connection)
            else:
                connection.close()
        return _parsed(response.status, content)

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._server.host, self._server.port
        if self._tls is None:
            return http.client.HTTPConnection(host, port)
        return http.client.HTTPSConnection(host, port, context=self._tls)


def _tls(server: Server) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=server.ca)
        if server.cert is not None and server.key is not None:
            context.load_cert_chain(server.cert, server.key)
    except ssl.SSLError as error:
        given = ", ".join(str(file) for file in (server.ca, server.cert, server.key) if file is not None)
        raise ServingError(f"Expected PEM files of certificates and a key. Received: {given} ({error})") from error
    return context


def _limit(connection: http.client.HTTPConnection, ends: float) -> None:
    """Gives the socket, if there is one yet, what is left of the time."""
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError
    if connection.sock is not None:
        connection.sock.settimeout(left)


def _read(response: http.client.HTTPResponse, connection: http.client.HTTPConnection, ends: float) -> bytes:
    """The answer; the socket's own limit counts from one piece to the next."""
    pieces: list[bytes] = []
    total = 0
    while piece := response.read1(2**20):
        total += len(piece)
        if total > _MOST_BYTES:
            raise Failure("RESOURCE_EXHAUSTED", f"an answer of more than {_MOST_BYTES} bytes")
        _limit(connection, ends)
        pieces.append(piece)
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    # `read1` leaves it open at its end, and the connection would take no other request.
    response.close()
    return b"".join(pieces)


def _parsed(status: int, content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError) as error:
        if status == 200:
            raise Failure("GARBAGE", "an answer that is no JSON") from error
        answer = None
    if status != 200:
        details = str(answer.get("error", "")) if isinstance(answer, dict) else ""
        raise Failure(_CODES.get(status, "INTERNAL"), f"HTTP status {status}. {details}".strip())
    if not isinstance(answer, dict):
        raise Failure("GARBAGE", "an answer that is no JSON object")
    return answer


def _listed(array: NDArray[Any]) -> Any:
    if array.dtype == object:
        return [{"b64": base64.b64encode(each).decode()} for each in array.ravel()]
    return array.tolist()


def _array(values: Any, dtype: type[np.generic]) -> NDArray[Any]:
    try:
        if dtype is np.object_:
            return np.array([base64.b64decode(each["b64"], validate=True) for each in values], object)
        array = np.array(values, np.float64)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise Failure("GARBAGE", "outputs that are no numbers in rows of one length") from error
    with np.errstate(invalid="ignore", over="ignore"):
        typed = array.astype(dtype)
    if dtype is np.uint8 and not np.array_equal(typed, array):
        raise Failure("GARBAGE", "outputs that are no whole numbers from 0 to 255")
    return cast(NDArray[Any], typed)


def _shut_down(connection: http.client.HTTPConnection) -> None:
    """Wakes the thread that waits for the answer."""
    if connection.sock is not None:
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)


def _close_all(connections: deque[http.client.HTTPConnection]) -> None:
    while connections:
        connections.pop().close()
