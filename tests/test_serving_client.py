"""The client against the test double, or, where TF_SERVING_ADDRESS=HOST:PORT is set, against a real server.

TF_SERVING_SAVED_MODEL is then the folder of the version that it serves, TF_SERVING_MODEL the model's name there, and
TF_SERVING_REST_ADDRESS=http://HOST:PORT its REST. What only the double can do is skipped.
"""

import collections
import logging
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("grpc", reason="grpcio is not installed")
pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")

import serving_server as double

from keras_deartifact import engines, image, quantiser, restore, stills, video
from keras_deartifact.engines.serving.client import Client
from serving import client

ROOT = Path(__file__).resolve().parents[1]
REAL = os.environ.get("TF_SERVING_ADDRESS")

needs_double = pytest.mark.skipif(bool(REAL), reason="a real server does not do this on demand")


Target = collections.namedtuple("Target", "address rest name folder")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Exports of two versions."""
    found = {version: tmp_path_factory.mktemp("export") / str(version) for version in (1, 2)}
    for version, folder in found.items():
        double.write_export(folder, seed=version)
    return found


@pytest.fixture(scope="module")
def target(request):
    if REAL:
        folder = os.environ.get("TF_SERVING_SAVED_MODEL")
        if not folder:
            pytest.skip("needs TF_SERVING_SAVED_MODEL, the folder of the version that the server has")
        name = os.environ.get("TF_SERVING_MODEL", engines.DEFAULT_MODEL)
        yield Target(REAL, os.environ.get("TF_SERVING_REST_ADDRESS"), name, Path(folder))
        return
    folder = request.getfixturevalue("folders")[1]
    with double.Server(double.Model({1: folder})) as server:
        yield Target(server.address, server.rest_address, double.NAME, folder)


class Local:
    """A SavedModel here: what the client's result must be, to the bit."""

    def __init__(self, folder):
        self.restorer = engines.load(folder)

    def expected(self, frames, maps, tile=64, margin=16):
        return restore.restore_frames(self.restorer, frames, maps, tile=tile, margin=margin, whole_pixels=0)


@pytest.fixture(scope="module")
def local(target):
    return Local(target.folder)


def _options(**options):
    return {"tile": 64, "margin": 16, "deadline_seconds": 60.0, **options}


def _inputs(photo, count, height, width):
    frames = np.stack([photo(height, width, seed) for seed in range(count)])
    shape = (count, *quantiser.map_shape(height, width))
    return frames, np.random.default_rng(1).uniform(1, 6, shape).astype(np.float32)


def _assert_same(result, expected):
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    if not REAL:
        np.testing.assert_array_equal(result, expected)
    else:
        # Another build on another processor adds in another order.
        np.testing.assert_allclose(result.astype(float), expected, atol=1 if result.dtype == np.uint8 else 1e-5)


def _assert_one_line(error, *parts):
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("in_flight", [1, 4, 16, 64])
def test_to_the_bit_as_here(target, local, photo, dtype, in_flight):
    frames, maps = _inputs(photo, 3, 112, 176)
    frames = frames if dtype == "uint8" else image.to_float(frames) + np.float32(1 / 3000)
    restorer = client.connect(target.name, target.address, **_options(in_flight=in_flight))
    expected = local.expected(frames, maps)
    assert np.abs(expected - frames.astype(np.float32)).max() > 0
    _assert_same(restorer(frames, maps), expected)


def test_many_threads_share_a_client(target, local, photo):
    restorer = client.connect(target.name, target.address, **_options(in_flight=8))
    given = [_inputs(photo, 1, 48 + 16 * index, 96) for index in range(12)]
    with ThreadPoolExecutor(12) as pool:
        results = list(pool.map(lambda each: restorer(*each), given))
    for (frames, maps), result in zip(given, results, strict=True):
        _assert_same(result, local.expected(frames, maps))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_rest_gives_the_same(target, photo, dtype):
    if target.rest is None:
        pytest.skip("needs TF_SERVING_REST_ADDRESS")
    frames, maps = _inputs(photo, 1, 48, 80)
    frames = frames if dtype == "uint8" else image.to_float(frames)
    by_grpc, by_rest = (client.connect(target.name, address, **_options()) for address in (target.address, target.rest))
    _assert_same(by_rest(frames, maps), by_grpc(frames, maps))


@needs_double
def test_rest_keeps_its_connections(folders, photo):
    model = double.Model({1: folders[1]})
    frames, maps = _inputs(photo, 2, 96, 96)
    with double.Server(model) as server, double.CuttingProxy(server.rest_port, []) as proxy:
        restorer = client.connect(double.NAME, f"http://{proxy.address}", **_options(in_flight=3))
        for _ in range(2):
            restorer(frames, maps)
        assert len(model.requests) == 2 * 2 * len(image.tile_grid(96, 96, 64, 16))
        assert proxy.connections <= 3


def test_it_is_a_restorer(target, local, photo):
    restorer = client.connect(target.name, target.address, **_options())
    assert restorer.engine == engines.SERVING
    assert restorer.notes[0].startswith(f"{target.address} (gRPC) runs {target.name}")
    frames, _ = _inputs(photo, 2, 37, 61)
    default = np.full((2, 2, 3), quantiser.DEFAULT_LOG2_STEP, np.float32)
    cut = np.ascontiguousarray(frames[:, :32, :48])
    _assert_same(restorer(cut), local.expected(cut, default))
    sixteen_bit = frames.astype(np.uint16) * 256 + 77
    _assert_same(
        restore.restore_frames(restorer, sixteen_bit),
        image.to_uint16(local.expected(image.to_float(sixteen_bit), None)),
    )
    with pytest.raises(ValueError, match="Expected sides that divide by 16"):
        restorer(frames)


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_files_by_the_signature_of_files(target, photo, tmp_path, protocol):
    address = target.address if protocol == "grpc" else target.rest
    if address is None:
        pytest.skip("needs TF_SERVING_REST_ADDRESS")
    sizes = ((20, 30), (33, 17))
    for number, size in enumerate(sizes):
        stills.write(tmp_path / f"{number}.png", photo(*size))
    contents = [(tmp_path / f"{number}.png").read_bytes() for number in range(len(sizes))]
    connection = Client(client.Server(address), target.name)
    answers = connection.predict("restore_encoded", {"encoded_bytes": np.array(contents, object)}, np.object_)
    assert len(answers) == len(sizes)
    for size, answer in zip(sizes, answers, strict=True):
        (tmp_path / "answer.png").write_bytes(answer)
        restored = connection.predict("serving_default", {"images": photo(*size)[None]}, np.uint8)
        np.testing.assert_array_equal(stills.read(tmp_path / "answer.png").pixels, restored[0])
    with pytest.raises(client.ServingError) as error:
        connection.predict("restore_encoded", {"encoded_bytes": np.array([b"no picture"], object)}, np.object_)
    _assert_one_line(error, "INVALID_ARGUMENT", "Expected the bytes of a JPEG")
    connection.close()


@needs_double
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_file_by_the_line_of_the_readme(folders, local, photo, tmp_path):
    lines = (ROOT / "serving" / "README.md").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if "restore_encoded" in line and "printf" in line)
    end = next(number for number, line in enumerate(lines) if line.endswith("> new.png"))
    script = "\n".join(line.removeprefix("    ") for line in lines[start : end + 1])
    stills.write(tmp_path / "old.jpg", photo(20, 30), quality=30)
    with double.Server(double.Model(folders, labels={"stable": 1})) as server:
        for old, new in (("http://127.0.0.1:8501", server.rest_address), ("shuffle_nano", double.NAME)):
            assert script.count(old) == 1
            script = script.replace(old, new)
        subprocess.run(["sh", "-euc", script], cwd=tmp_path, check=True)
    still = stills.read(tmp_path / "old.jpg")
    maps = quantiser.constant_map(20, 30, quantiser.jpeg_table_log2_step(still.jpeg_tables[0]))
    expected = restore.restore_frames(local.restorer, still.pixels[None], maps[None])
    np.testing.assert_array_equal(stills.read(tmp_path / "new.png").pixels, expected[0])


@needs_double
def test_a_network_of_luma(tmp_path, photo):
    double.write_export(tmp_path / "1", channels=1)
    frames, maps = _inputs(photo, 1, 64, 80)
    with double.Server(double.Model({1: tmp_path / "1"}, as_content=True)) as server:
        for address in (server.address, server.rest_address):
            restorer = client.connect(double.NAME, address, **_options())
            for given in (frames, image.to_float(frames)):
                np.testing.assert_array_equal(restorer(given, maps), Local(tmp_path / "1").expected(given, maps))


@needs_double
def test_versions_and_labels(folders, photo):
    frames, maps = _inputs(photo, 1, 32, 32)
    expected = {version: Local(folder).expected(frames, maps) for version, folder in folders.items()}
    model = double.Model(folders, labels={"stable": 1})
    with double.Server(model) as server:
        for address in (server.address, server.rest_address):
            for pinned, version in ((None, 2), (1, 1), (2, 2), ("stable", 1)):
                restorer = client.connect(double.NAME, address, **_options(version=pinned))
                np.testing.assert_array_equal(restorer(frames, maps), expected[version])
                assert f"version {version}" in restorer.notes[0]
                assert model.requests[-1].version == version
            for pinned, name in ((3, "version 3"), ("canary", "label canary")):
                with pytest.raises(client.ServingError) as error:
                    client.connect(double.NAME, address, **_options(version=pinned))
                _assert_one_line(error, name, "NOT_FOUND", "check the model's name and version")
    assert not np.array_equal(expected[1], expected[2])


@needs_double
@pytest.mark.parametrize("protocol", ["grpc", "rest"])
@pytest.mark.parametrize("asked", [None, "stable"])
def test_one_version_to_the_end(folders, photo, protocol, asked):
    """A newer one is loaded, and gets the label, while a picture is under way."""
    frames, maps = _inputs(photo, 1, 112, 112)
    tiles = len(image.tile_grid(112, 112, 64, 16))
    model = double.Model(folders, labels={"stable": 1})
    model.loaded, model.loaded_from = {1}, {tiles // 2: {1, 2}}
    old, new = (Local(folders[version]).expected(frames, maps) for version in (1, 2))
    with double.Server(model) as server:
        address = server.address if protocol == "grpc" else server.rest_address
        restorer = client.connect(double.NAME, address, **_options(version=asked, in_flight=2))
        np.testing.assert_array_equal(restorer(frames, maps), old)
        assert model.loaded == {1, 2}
        model.labels["stable"] = 2
        np.testing.assert_array_equal(restorer(frames, maps), old)
        assert {request.version for request in model.requests} == {1}
        another = client.connect(double.NAME, address, **_options(version=asked))
        assert another.notes[0].endswith("version 2")
        np.testing.assert_array_equal(another(frames, maps), new)


@needs_double
@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_a_version_that_goes_away(folders, make_video, tmp_path, protocol):
    model = double.Model(folders)
    model.loaded, model.loaded_from = {1}, {5: {2}}
    source = make_video(tmp_path / "in.mkv", times=[0, 40, 80])
    with double.Server(model) as server:
        address = server.address if protocol == "grpc" else server.rest_address
        restorer = client.connect(double.NAME, address, **_options(in_flight=1, tile=48))
        with pytest.raises(client.ServingError) as error:
            restore.restore_video(restorer, source, tmp_path / "never.mkv", codec="ffv1")
        _assert_one_line(error, f"of the model '{double.NAME}' version 1, failed with NOT_FOUND")
        assert str(error.value).endswith("two are not mixed: start again with one that it has now")
    assert len(model.requests) == 5
    assert [file.name for file in tmp_path.iterdir()] == ["in.mkv"]


@needs_double
def test_servers_that_mix_versions(folders, photo):
    """No TensorFlow Serving, but what speaks its protocol, or lies between."""
    frames, maps = _inputs(photo, 1, 48, 48)
    model = double.Model(folders)
    with double.Server(model) as server:
        model.ignores_version, model.loaded = True, {1}
        for address in (server.address, server.rest_address):
            with pytest.raises(client.ServingError, match="version 2, answers as version 1"):
                client.connect(double.NAME, address, version=2)
        restorer = client.connect(double.NAME, server.address)
        model.loaded = {1, 2}
        with pytest.raises(client.ServingError, match="GARBAGE .an answer of version 2 instead of 1"):
            restorer(frames, maps)
        model.ignores_version, model.hides_version = False, True
        for address in (server.address, server.rest_address):
            with pytest.raises(client.ServingError, match="does not tell its version.*: choose one by its number"):
                client.connect(double.NAME, address)
            assert client.connect(double.NAME, address, version=1)(frames, maps).shape == frames.shape


@needs_double
@pytest.mark.parametrize("in_flight", [1, 5])
def test_no_more_are_under_way_than_allowed(folders, photo, in_flight):
    model = double.Model({1: folders[1]}, every_seconds=0.02)
    frames, maps = _inputs(photo, 1, 160, 160)
    with double.Server(model) as server:
        restorer = client.connect(double.NAME, server.address, **_options(in_flight=in_flight))
        threads = [threading.Thread(target=restorer, args=(frames, maps)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(model.requests) == 3 * len(image.tile_grid(160, 160, 64, 16))
    assert model.most_in_flight == in_flight


def test_nobody_there():
    for address in ("127.0.0.1:1", "http://127.0.0.1:1"):
        with pytest.raises(client.ServingError) as error:
            client.connect("nano", address, patience_seconds=0.5)
        _assert_one_line(error, "127.0.0.1:1 (", "'nano'", "UNAVAILABLE", " tries in ", "check that it runs")


@needs_double
def test_other_models(target, tmp_path):
    for address in (target.address, target.rest):
        with pytest.raises(client.ServingError) as error:
            client.connect("another", address)
        _assert_one_line(error, "'another'", "NOT_FOUND", "check the model's name")
    module = tf.Module()
    double_it = tf.function(lambda x: {"y": 2.0 * x}, [tf.TensorSpec((None,), tf.float32, "x")], autograph=False)
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"network": double_it})
    with double.Server(double.Model({1: tmp_path / "1"})) as server:
        for address in (server.address, server.rest_address):
            with pytest.raises(client.ServingError) as error:
                client.connect(double.NAME, address)
            _assert_one_line(error, "['network']", "not those of an export")


@needs_double
def test_the_wrong_port(target):
    port, rest_port = target.address.split(":")[1], target.rest.split(":")[2]
    for address in (f"127.0.0.1:{rest_port}", f"http://127.0.0.1:{port}"):
        with pytest.raises(client.ServingError) as error:
            client.connect(target.name, address, patience_seconds=0.5)
        _assert_one_line(error, address.removeprefix("http://"), "check that it runs, and that this is the port")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "8500",
        "host",
        "host:",
        "host:port",
        "ftp://host:1",
        "host:1/path",
        "http://",
        "a@host:1",
        "grpc://host",
        "[:1",
    ],
)
def test_no_address(address):
    with pytest.raises(ValueError, match="Expected an address HOST:PORT of gRPC") as error:
        client.Server(address)
    assert str(error.value).endswith(f"Received: {address}")


@pytest.mark.parametrize(
    ("address", "name", "port"),
    [
        ("host:8500", "host:8500 (gRPC)", 8500),
        ("grpcs://[::1]:9", "[::1]:9 (gRPC over TLS)", 9),
        ("http://host", "host:80 (REST)", 80),
        ("https://host/models/", "host:443 (REST over TLS)", 443),
    ],
)
def test_addresses(address, name, port):
    server = client.Server(address)
    assert (server.name, server.port) == (name, port)
    assert server.path in ("", "/models")


def test_digits_are_a_version_and_no_label():
    assert [client.Server("host:1", each).version for each in ("12", 12, "v12", None)] == [12, 12, "v12", None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cert": "file"}, "together with its key"),
        ({"in_flight": 0}, "in_flight of at least 1. Received: in_flight=0"),
        ({"deadline_seconds": 0.0}, "deadline_seconds above 0"),
        ({"patience_seconds": float("inf")}, "patience_seconds above 0"),
        ({"tile": 100}, "tile a multiple of 16"),
        ({"version": -1}, "number or label. Received: version=-1"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        client.Server("host:1", **options)
    with pytest.raises(ValueError, match="Expected an address of grpcs:// or https://"):
        client.Server("http://host:1", ca="file")


def test_what_load_refuses():
    server = client.Server("127.0.0.1:1")
    with pytest.raises(ValueError, match="'serving' needs the address of a server"):
        engines.load("nano", "serving")
    with pytest.raises(ValueError, match="Only the engine 'serving' asks a server. Received: engine='onnx'"):
        engines.load("nano", "onnx", server=server)
    with pytest.raises(ValueError, match="Only the engine 'onnx' has providers"):
        engines.load("nano", provider="cuda", server=server)


def test_without_the_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.raises(client.ServingError, match=r"pip install 'keras_deartifact\[serve\]'; REST"):
        client.connect("nano", "127.0.0.1:1")


@needs_double
def test_rest_needs_no_tensorflow(target, photo, tmp_path):
    frames, maps = _inputs(photo, 1, 48, 48)
    np.savez(tmp_path / "given.npz", frames=frames, maps=maps)
    program = f"""if True:
        import sys
        import numpy as np
        from keras_deartifact import engines
        given = np.load("given.npz")
        restorer = engines.load({target.name!r}, server=engines.Server({target.rest!r}))
        np.save("restored.npy", restorer(given["frames"], given["maps"]))
        loaded = {{name.split(".")[0] for name in sys.modules}}
        assert not loaded & {{"tensorflow", "keras", "grpc", "google", "ai_edge_litert"}}, loaded
    """
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    expected = Local(target.folder).expected(frames, maps, tile=384, margin=64)
    np.testing.assert_array_equal(np.load(tmp_path / "restored.npy"), expected)


@needs_double
def test_nothing_of_a_picture_is_logged(folders, photo, caplog):
    """The marks are numbers that a picture has and nothing else, as they would look in a message."""
    caplog.set_level(logging.DEBUG)
    frames = np.full((1, 48, 48, 3), 0.123456, np.float32)
    model = double.Model({1: folders[1]}, faults={1: "UNAVAILABLE", 2: "UNAVAILABLE", 3: "UNAVAILABLE"})
    with double.Server(model) as server:
        for address in (server.address, server.rest_address):
            client.connect(double.NAME, address, **_options())(frames)
            model.requests.clear()
    assert "UNAVAILABLE at try 1" in caplog.text
    assert "says UNAVAILABLE, and is asked again for up to" in caplog.text
    assert "0.1234" not in caplog.text
    assert repr(frames.tobytes()[:4])[2:-1] not in caplog.text


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """By name, of a server at 127.0.0.1 and of a client, signed by one authority, and of a stranger to it."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments):
        try:
            subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, check=True)
        except FileNotFoundError:
            pytest.skip("openssl is not installed")

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for authority in ("ca", "other"):
        openssl("req", "-x509", *key, "-days", "2", "-subj", f"/CN={authority}", "-keyout", f"{authority}.key",
                "-out", f"{authority}.pem")  # fmt: skip
    for name, authority in (("server", "ca"), ("client", "ca"), ("stranger", "other")):
        openssl("req", "-new", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key",
                "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", f"{name}.pem")  # fmt: skip
    return {
        name: double.Certificates(*(str(folder / f"{each}") for each in (f"{name}.pem", f"{name}.key", "ca.pem")))
        for name in ("server", "client", "stranger", "other")
    }


@needs_double
@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_tls(folders, photo, certificates, protocol):
    frames, maps = _inputs(photo, 1, 32, 32)
    expected = Local(folders[1]).expected(frames, maps)
    mine, stranger = certificates["client"], certificates["stranger"]
    pairs = {"mine": {"cert": mine.cert, "key": mine.key}, "none": {}}
    pairs["stranger's"] = {"cert": stranger.cert, "key": stranger.key}
    model = double.Model({1: folders[1]})
    for wants_client, accepted in ((False, {"mine", "none", "stranger's"}), (True, {"mine"})):
        with double.Server(model, tls=certificates["server"], wants_client=wants_client) as server:
            address = server.address if protocol == "grpc" else server.rest_address
            for name, pair in pairs.items():
                options = _options(ca=mine.ca, patience_seconds=1.0, **pair)
                if name in accepted:
                    np.testing.assert_array_equal(
                        client.connect(double.NAME, address, **options)(frames, maps), expected
                    )
                    continue
                with pytest.raises(client.ServingError) as error:
                    client.connect(double.NAME, address, **options)
                _assert_one_line(error, "over TLS", "check")
            # Who does not know the authority does not trust the server.
            with pytest.raises(client.ServingError) as error:
                client.connect(double.NAME, address, ca=certificates["other"].cert, patience_seconds=1.0)
            _assert_one_line(error, "over TLS", "check the certificates" if protocol == "rest" else "check")
    assert {request.protocol for request in model.requests} == {protocol}


def test_files_that_are_no_certificates(tmp_path):
    (tmp_path / "no.pem").write_text("nothing")
    with pytest.raises(client.ServingError, match="Expected PEM files of certificates and a key"):
        client.connect("nano", "https://127.0.0.1:1", ca=tmp_path / "no.pem")
    for address in ("grpcs://127.0.0.1:1", "https://127.0.0.1:1"):
        with pytest.raises(FileNotFoundError):
            client.connect("nano", address, ca=tmp_path / "missing.pem")


def _frames_of(path):
    return [frame.image.to_ndarray(format="rgb24") for frame in video.read_frames(path)]


def test_the_command_on_a_picture(target, local, photo, run, tmp_path):
    stills.write(tmp_path / "in.jpg", photo(70, 100), quality=20)
    for address in filter(None, (target.address, target.rest)):
        output = tmp_path / f"{len(address)}.png"
        code, _, err = run(
            "restore", tmp_path / "in.jpg", "-o", output, "--engine", "serving", "--server", address,
            "--model", target.name, "--server-tile", 64 + 128, "--server-in-flight", 2,
        )  # fmt: skip
        assert code == 0, err
        assert f"runs {target.name}" in err
        restore.restore_image(local.restorer, tmp_path / "in.jpg", tmp_path / "here.png", overwrite=True,
                              predictor=engines.load_predictor())  # fmt: skip
        _assert_same(stills.read(output).pixels, stills.read(tmp_path / "here.png").pixels)


def test_the_command_on_a_video(target, run, make_video, tmp_path):
    source = make_video(tmp_path / "in.mp4", times=[40 * index for index in range(5)])
    flags = ("--codec", "ffv1", "--model")
    code, _, err = run("restore", source, "-o", tmp_path / "there.mkv", *flags, target.name, "--server", target.address)
    assert code == 0, err
    code, _, err = run("restore", source, "-o", tmp_path / "here.mkv", *flags, target.folder)
    assert code == 0, err
    there, here = _frames_of(tmp_path / "there.mkv"), _frames_of(tmp_path / "here.mkv")
    assert len(there) == 5
    _assert_same(np.stack(there), np.stack(here))
    assert not np.array_equal(np.stack(there), np.stack(_frames_of(source)))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--engine", "serving"), "--engine serving needs --server HOST:PORT."),
        (("--server-ca", "x", "--server-in-flight", 2), "--server-ca, --server-in-flight describes a server"),
        (("--server", "nonsense"), "Expected an address HOST:PORT of gRPC"),
        (("--server", "127.0.0.1:1", "--engine", "litert"), "Only the engine 'serving' asks a server."),
        (("--server", "127.0.0.1:1", "--server-patience", 0.1), "127.0.0.1:1 (gRPC), asked for its signatures"),
        (("--server", "grpcs://127.0.0.1:1", "--server-ca", "missing.pem"), "no file or folder missing.pem"),
    ],
)
def test_errors_of_the_command(run, photo, tmp_path, flags, message):
    stills.write(tmp_path / "in.png", photo(20, 20))
    code, out, err = run("restore", tmp_path / "in.png", "-o", tmp_path / "out.png", *flags)
    assert (code, out) == (2, "")
    assert err.startswith("deartifact: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["in.png"]
