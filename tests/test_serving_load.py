import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("grpc", reason="grpcio is not installed")
pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")

import serving_server as double

from keras_deartifact.engines import Server
from keras_deartifact.engines.serving.client import Client
from serving import load

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def server(exported):
    with double.Server(double.Model({1: exported})) as running:
        yield running


@pytest.fixture
def connection(server):
    server.model.requests.clear()
    server.model.faults = {}
    client = Client(Server(server.address), double.NAME)
    yield client
    client.close()


@pytest.mark.parametrize(("as_float", "signature", "size"), [(True, "network", 4), (False, "restore_with_map", 1)])
def test_what_is_sent_and_counted(server, connection, as_float, signature, size):
    server.model.every_seconds = 0.02
    server.model.most_in_flight = 0
    found = load.measure(connection, 4, 20, 32, as_float, 60.0)
    assert len(server.model.requests) == 20
    assert {request.signature for request in server.model.requests} == {signature}
    assert server.model.most_in_flight <= 4
    assert (found.concurrency, found.requests, found.errors) == (4, 20, {})
    assert found.tiles_per_second == pytest.approx(20 / found.seconds)
    assert found.megabytes_per_second == pytest.approx(20 * 32 * 32 * 3 * size / found.seconds / 1e6)
    # The server sleeps for 20 ms.
    assert 20 <= found.milliseconds[0] <= found.milliseconds[1] <= found.milliseconds[2]
    assert found.milliseconds[2] <= found.seconds * 1e3


def test_errors_by_kind(server, connection):
    server.model.every_seconds = 0.0
    server.model.faults = {2: "UNAVAILABLE", 3: "UNAVAILABLE", 5: "RESOURCE_EXHAUSTED", 6: "shape"}
    found = load.measure(connection, 1, 8, 32, True, 60.0)
    assert len(server.model.requests) == 8
    assert found.errors == {"UNAVAILABLE": 2, "RESOURCE_EXHAUSTED": 1, "GARBAGE": 1}
    assert found.tiles_per_second == pytest.approx(4 / found.seconds)
    lines = load.table([found, found._replace(milliseconds=None, errors={})])
    assert lines[1].endswith("  1 GARBAGE, 1 RESOURCE_EXHAUSTED, 2 UNAVAILABLE")
    assert lines[2].split()[3:] == ["-", "-", "-", "none"]


def test_it_is_bounded_in_time(server, connection):
    server.model.every_seconds = 0.05
    found = load.measure(connection, 2, 10_000, 32, False, 0.3)
    assert 0 < found.requests < 10_000
    assert len(server.model.requests) == found.requests


def test_the_program(server):
    server.model.every_seconds = 0.0
    server.model.faults = {}
    command = [sys.executable, "-m", "serving.load", f"--model={double.NAME}", "--requests=6", "--tile=32"]

    def run(*flags):
        return subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True, check=False)

    result = run(f"--server={server.rest_address}", "--concurrency=1,3", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert [each["concurrency"] for each in found] == [1, 3]
    assert [each["requests"] for each in found] == [6, 6]
    assert all(len(each["milliseconds"]) == 3 and not each["errors"] for each in found)
    for flags, message in (
        (("--server=127.0.0.1:1", "--concurrency=0"), "Expected --concurrency of 1 to 1024. Received: 0"),
        (("--server=nonsense",), "Expected an address HOST:PORT of gRPC"),
        ((f"--server={server.rest_address}", "--version=7"), "NOT_FOUND"),
    ):
        result = run(*flags)
        assert result.returncode == 1
        assert result.stderr.startswith("error: ")
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
