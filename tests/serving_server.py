"""A test double of TensorFlow Serving, for want of the real one: no package index has `tensorflow_model_server`.

It speaks the official protos of PredictionService and ModelService over gRPC, and the REST API, as TensorFlow Serving's
source has them: answers of gRPC list numbers, an output of bytes is in base64 only where its name ends with `_bytes`,
floats are written with as many digits as they need. It runs a real export by `tf.saved_model.load`. Beyond the real one
it fails on demand, by the number of the request, and counts. It has no batching, and listens on 127.0.0.1 alone.

As a program, `python tests/serving_server.py SAVED_MODEL ...`, it can be killed.
"""

import argparse
import base64
import collections
import contextlib
import http.server
import json
import math
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

HOST = "127.0.0.1"
NAME = "tested"
CODES = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "NOT_FOUND", "INTERNAL")
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(:predict|/metadata)?")

Request = collections.namedtuple("Request", "number seconds protocol signature version")
Certificates = collections.namedtuple("Certificates", "cert key ca")


def seeded_faults(seed, kinds, requests):
    """One of the kinds for about a third of the requests, by their number."""
    random = np.random.default_rng(seed)
    return {number: str(random.choice(kinds)) for number in range(1, requests + 1) if random.random() < 1 / 3}


def write_export(folder, seed=0, **arguments):
    """Writes the SavedModel of a small generator that changes what it is given."""
    from export import saved_model
    from keras_deartifact import models

    generator = models.make_generator("shuffle_pico", filters=8, depth=2, coarse_depth=0, **arguments)
    random = np.random.default_rng(seed)
    for weight in generator.weights:
        weight.assign(weight.numpy() + random.normal(0, 0.03, weight.shape))
    saved_model.write(generator.fold(), folder)


class Refused(Exception):
    def __init__(self, code, details):
        super().__init__(details)
        self.code = code
        self.details = details


class Dropped(Exception):
    """The connection is to be cut in the middle of the answer; REST only, see `CuttingProxy`."""


class Model:
    """Versions of an export, faults by the number of the request, and what was asked.

    Kinds of faults: one of CODES; "slow" by `slow_seconds`; "kill" for the whole process; "shape", "dtype", "nan" and
    "extra" for an answer that is wrong; "drop".
    """

    def __init__(self, folders, labels=None, faults=None, slow_seconds=0.0, every_seconds=0.0, as_content=False):
        self.modules = {version: tf.saved_model.load(str(folder)) for version, folder in folders.items()}
        self.signatures = {version: _signatures(folder) for version, folder in folders.items()}
        self.labels = labels or {}
        self.faults = faults or {}
        self.slow_seconds = slow_seconds
        self.every_seconds = every_seconds
        self.as_content = as_content
        # What a client must not trust.
        self.ignores_version = self.hides_version = False
        # By the number of the request from which on they are loaded, and no others.
        self.loaded_from = {}
        self.loaded = set(folders)
        self.requests = []
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()

    def choose(self, name, version, label):
        if label:
            version = self.labels.get(label)
        if self.ignores_version:
            version = label = None
        chosen = max(self.loaded) if version is None and not label else version
        if name != NAME or chosen not in self.loaded:
            wanted = f"Specific({name}, {version})" if version is not None else f"Latest({name})"
            raise Refused("NOT_FOUND", f"Servable not found for request: {wanted}")
        return chosen

    @contextlib.contextmanager
    def arriving(self, protocol, signature, version):
        """Counts a request; gives its fault."""
        with self._lock:
            number = len(self.requests) + 1
            self.loaded = self.loaded_from.get(number, self.loaded)
            self.requests.append(Request(number, time.monotonic(), protocol, signature, version))
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            yield self.faults.get(number)
        finally:
            with self._lock:
                self.in_flight -= 1

    def predict(self, version, signature, inputs, fault):
        """Outputs by name."""
        if fault in CODES:
            # The real one tells values, too, where it does not like them.
            value = np.ravel(next(iter(inputs.values())))[0]
            raise Refused(fault, f"made by the test. JSON Value: {value}")
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.every_seconds + (self.slow_seconds if fault == "slow" else 0.0))
        if signature not in self.modules[version].signatures:
            raise Refused("INVALID_ARGUMENT", f'Serving signature key "{signature}" not found.')
        function = self.modules[version].signatures[signature]
        try:
            outputs = function(**{name: tf.constant(value) for name, value in inputs.items()})
        except (tf.errors.InvalidArgumentError, TypeError, ValueError) as error:
            raise Refused("INVALID_ARGUMENT", str(error)) from error
        outputs = {name: value.numpy() for name, value in outputs.items()}
        return {name: each for value in outputs.items() for name, each in _spoilt(*value, fault)}


def _signatures(folder):
    saved = saved_model_pb2.SavedModel.FromString((Path(folder) / "saved_model.pb").read_bytes())
    return {
        name: each
        for name, each in saved.meta_graphs[0].signature_def.items()
        if each.method_name == "tensorflow/serving/predict"
    }


def _spoilt(name, value, fault):
    if fault == "shape":
        value = value[:, 1:]
    elif fault == "dtype":
        value = value.astype(np.int64)
    elif fault == "nan":
        value = value.copy()
        value[0, -1, -1, -1] = np.nan if value.dtype == np.float32 else 0
    elif fault == "drop":
        raise Dropped
    yield name, value
    if fault == "extra":
        yield f"{name}_too", value


class Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, model):
        self.model = model

    def Predict(self, request, context):
        response = predict_pb2.PredictResponse()
        spec = request.model_spec
        asked = spec.version_label or (spec.version.value if spec.HasField("version") else None)
        with self.model.arriving("grpc", spec.signature_name, asked) as fault:
            try:
                version = self._choose(spec)
                inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
                outputs = self.model.predict(version, spec.signature_name, inputs, fault)
            except Refused as refused:
                context.abort(grpc.StatusCode[refused.code], refused.details)
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(_as_proto(value, self.model.as_content))
        response.model_spec.name = NAME
        response.model_spec.version.value = version
        return response

    def GetModelMetadata(self, request, context):
        try:
            version = self._choose(request.model_spec)
        except Refused as refused:
            context.abort(grpc.StatusCode[refused.code], refused.details)
        return _metadata(self.model, version)

    def _choose(self, spec):
        version = spec.version.value if spec.HasField("version") else None
        return self.model.choose(spec.name, version, spec.version_label)


def _as_proto(value, as_content):
    proto = tf.make_tensor_proto(value)
    if proto.tensor_content and not as_content:
        proto.ClearField("tensor_content")
        field = proto.float_val if value.dtype == np.float32 else proto.int_val
        (proto.int64_val if value.dtype == np.int64 else field).extend(value.ravel().tolist())
    return proto


def _metadata(model, version):
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = NAME
    if not model.hides_version:
        response.model_spec.version.value = version
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, each in model.signatures[version].items():
        signatures.signature_def[name].CopyFrom(each)
    response.metadata["signature_def"].Pack(signatures)
    return response


class Statuses(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, model):
        self.model = model

    def GetModelStatus(self, request, context):
        response = get_model_status_pb2.GetModelStatusResponse()
        for version in sorted(self.model.loaded, reverse=True):
            state = get_model_status_pb2.ModelVersionStatus.AVAILABLE
            response.model_version_status.add(version=version, state=state).status.error_code = 0
        return response


class Rest(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self._answer(None)

    def do_POST(self):
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body):
        model = self.server.model
        try:
            found = PATH.fullmatch(self.path)
            if found is None or (found[4] == ":predict") != (body is not None):
                raise Refused("NOT_FOUND", "Malformed request")
            version = int(found[2]) if found[2] else None
            if found[4] != ":predict":
                text = self._describe(model, model.choose(found[1], version, found[3]), found[4])
            else:
                asked = json.loads(body)
                with model.arriving("rest", asked["signature_name"], version or found[3]) as fault:
                    chosen = model.choose(found[1], version, found[3])
                    inputs = _json_inputs(model.signatures[chosen], asked)
                    text = _as_json(model.predict(chosen, asked["signature_name"], inputs, fault))
            self._send(200, text)
        except Refused as refused:
            self._send(HTTP_STATUS[refused.code], json.dumps({"error": refused.details}))
        except Dropped:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"outputs": [[')
            self.close_connection = True

    def _describe(self, model, version, what):
        if what is None:
            status = Statuses(model).GetModelStatus(None, None)
            return json_format.MessageToJson(status, preserving_proto_field_name=True)
        spec, signatures = _metadata(model, version).model_spec, get_model_metadata_pb2.SignatureDefMap()
        _metadata(model, version).metadata["signature_def"].Unpack(signatures)
        texts = [json_format.MessageToJson(each, preserving_proto_field_name=True) for each in (spec, signatures)]
        return f'{{"model_spec": {texts[0]}, "metadata": {{"signature_def": {texts[1]}}}}}'

    def _send(self, status, text):
        content = text.encode("utf-8", "surrogateescape")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _json_inputs(signatures, asked):
    name = asked["signature_name"]
    if name not in signatures:
        raise Refused("INVALID_ARGUMENT", f'Serving signature key "{name}" not found.')
    given = asked["inputs"]
    if not isinstance(given, dict) or _is_base64(given):
        # The one input by itself.
        given = dict.fromkeys(signatures[name].inputs, given)
    inputs = {}
    for key, each in signatures[name].inputs.items():
        if key not in given:
            raise Refused("INVALID_ARGUMENT", f"Missing named input: {key} in 'inputs' object.")
        dtype = tf.as_dtype(each.dtype)
        if dtype == tf.string:
            inputs[key] = np.array([_bytes(value) for value in given[key]], object)
        else:
            inputs[key] = np.array(given[key], dtype.as_numpy_dtype)
    return inputs


def _is_base64(value):
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def _bytes(value):
    if isinstance(value, str):
        return value.encode()
    if not _is_base64(value):
        raise Refused("INVALID_ARGUMENT", f"JSON Value: {value} not formatted correctly for base64 data")
    try:
        return base64.b64decode(value["b64"], validate=True)
    except ValueError as error:
        raise Refused("INVALID_ARGUMENT", "Unable to base64 decode") from error


def _as_json(outputs):
    texts = {name: _listed(value, name.endswith("_bytes")) for name, value in outputs.items()}
    if len(texts) == 1:
        return f'{{"outputs": {next(iter(texts.values()))}}}'
    return '{"outputs": {' + ", ".join(f'"{name}": {text}' for name, text in texts.items()) + "}}"


def _listed(value, as_bytes):
    if isinstance(value, np.ndarray):
        return "[" + ", ".join(_listed(each, as_bytes) for each in value) + "]"
    if isinstance(value, bytes):
        if as_bytes:
            return json.dumps({"b64": base64.b64encode(value).decode()})
        return '"' + value.decode("utf-8", "surrogateescape") + '"'
    if isinstance(value, np.floating):
        short = f"{value:.6g}"
        text = short if type(value)(short) == value else f"{value:.9g}"
        return "NaN" if np.isnan(value) else text if {".", "e"} & set(text) else f"{text}.0"
    return str(value)


class RestServer(http.server.ThreadingHTTPServer):
    request_queue_size = 100

    def handle_error(self, request, client_address):
        # Clients that leave are what is tested.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Server:
    """The model behind gRPC and REST, until the block ends."""

    def __init__(self, model, grpc_port=0, rest_port=0, tls=None, wants_client=False, most_bytes=-1):
        self.model = model
        options = [("grpc.max_receive_message_length", most_bytes), ("grpc.so_reuseport", 0)]
        self._grpc = grpc.server(futures.ThreadPoolExecutor(100), options=options)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Predictions(model), self._grpc)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(Statuses(model), self._grpc)
        self._rest = RestServer((HOST, rest_port), Rest)
        self._rest.model = model
        if tls is None:
            self.port = self._grpc.add_insecure_port(f"{HOST}:{grpc_port}")
        else:
            pair = [(Path(tls.key).read_bytes(), Path(tls.cert).read_bytes())]
            ca = Path(tls.ca).read_bytes() if wants_client else None
            self.port = self._grpc.add_secure_port(
                f"{HOST}:{grpc_port}", grpc.ssl_server_credentials(pair, ca, wants_client)
            )
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.ca)
            context.verify_mode = ssl.CERT_REQUIRED if wants_client else ssl.CERT_NONE
            context.load_cert_chain(tls.cert, tls.key)
            # The handshake is the thread's of the request.
            self._rest.socket = context.wrap_socket(self._rest.socket, True, do_handshake_on_connect=False)
        self.rest_port = self._rest.server_port
        self.address = f"{HOST}:{self.port}"
        self.rest_address = f"http{'' if tls is None else 's'}://{HOST}:{self.rest_port}"

    def __enter__(self):
        self._grpc.start()
        threading.Thread(target=self._rest.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._rest.shutdown()
        self._rest.server_close()
        self._grpc.stop(0).wait()


class CuttingProxy:
    """Between a client and a port: cuts the connections, one after another, after so many bytes of the answer."""

    def __init__(self, port, cuts):
        self._target = port
        self._cuts = list(cuts)
        self._listener = socket.create_server((HOST, 0))
        self.address = f"{HOST}:{self._listener.getsockname()[1]}"
        self.connections = self._muted = 0

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def mute(self):
        """The connections that there are stay open, and no answer passes any more."""
        self._muted = self.connections

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                cut = self._cuts.pop(0) if self._cuts else None
                self.connections += 1
                server = socket.create_connection((HOST, self._target))
                threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()
                answers = (server, client, cut, self.connections)
                threading.Thread(target=self._pass_on, args=answers, daemon=True).start()

    def _pass_on(self, source, target, cut=None, number=math.inf):
        passed = 0
        with contextlib.suppress(OSError), source, target:
            while (piece := source.recv(2**14)) and (cut is None or passed < cut):
                if number <= self._muted:
                    continue
                passed += len(piece)
                target.sendall(piece if cut is None else piece[: len(piece) - max(0, passed - cut)])
            for each in (source, target):
                each.shutdown(socket.SHUT_RDWR)


class Process:
    """The server as a process; it is ready for `go` once it has imported TensorFlow and loaded the model."""

    def __init__(self, folder, port=0, faults=None, slow_seconds=0.0):
        command = [sys.executable, __file__, str(folder), f"--port={port}", f"--faults={json.dumps(faults or {})}"]
        command.append(f"--slow_seconds={slow_seconds}")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        self.process = subprocess.Popen(command, **pipes)

    def go(self):
        """Starts to listen; returns the port of gRPC."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("saved_model")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--faults", type=json.loads, default={})
    parser.add_argument("--slow_seconds", type=float, default=0.0)
    arguments = parser.parse_args()
    faults = {int(number): kind for number, kind in arguments.faults.items()}
    model = Model({1: arguments.saved_model}, faults=faults, slow_seconds=arguments.slow_seconds)
    sys.stdin.readline()
    with Server(model, arguments.port) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        # Until it is killed, or whoever started it is gone.
        sys.stdin.read()


if __name__ == "__main__":
    main()
