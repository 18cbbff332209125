import http.server
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow_serving")

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from serving import deploy, folders, models_config, versions

ROOT = Path(__file__).resolve().parents[1]
NAME = "nightly"
MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    """A real export of an untrained generator."""
    import keras

    from export import artefacts
    from keras_deartifact import models

    run = tmp_path_factory.mktemp("runs") / "nightly"
    run.mkdir()
    generator = models.make_generator("shuffle_pico", filters=8, depth=2, coarse_depth=0)
    random = np.random.default_rng(0)
    for weight in generator.weights:
        weight.assign(weight.numpy() + random.normal(0, 0.03, weight.shape))
    generator.save(run / "generator.keras")
    out = tmp_path_factory.mktemp("out") / "artefact"
    artefacts.export(run, out, ("saved_model",), tile=32)
    keras.backend.clear_session()
    return out


@pytest.fixture
def store(tmp_path):
    """The folder of all models."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def quick(tmp_path):
    """A folder in memory, where there is one: some tests wait for the disk some thousand times."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture
def damaged(artefact, tmp_path):
    """A copy of the export, to be harmed."""
    shutil.copytree(artefact, tmp_path / "damaged")
    return tmp_path / "damaged"


def _run(store, *arguments, name=NAME, umask=-1):
    names = [] if name is None else [f"--name={name}"]
    return subprocess.run(
        [sys.executable, "-m", "serving.deploy", f"--models={store}", *names, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        umask=umask,
    )


def _done(store, *arguments, name=NAME, umask=-1):
    result = _run(store, *arguments, name=name, umask=umask)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def _refused(store, *arguments, name=NAME):
    """The one line that says why."""
    result = _run(store, *arguments, name=name)
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert result.stdout == ""
    return lines[0]


def _model(store, name=NAME):
    config = text_format.Parse((store / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    return models_config.find(config, name)


def _labels(store):
    return dict(_model(store).version_labels)


def _served(store):
    return list(_model(store).model_version_policy.specific.versions)


def _check_as_a_server_sees_it(store):
    """What must hold at every moment: all that is named is there, and whole."""
    there = set(versions.numbers(store, NAME))
    assert set(_served(store)) <= there
    assert set(_labels(store).values()) <= set(_served(store))
    lines = list(versions.describe(store))
    assert len(lines) == len(there)
    assert not [line for line in lines if "DAMAGED" in line]


def test_the_first_version(artefact, store):
    lines = _done(store, f"--artefact={artefact}", "--version=1", "--label=stable", umask=0o077)
    assert lines == ["nightly: version 1 is served", "nightly: stable is 1"]
    model = _model(store)
    assert (model.name, model.base_path, model.model_platform) == (NAME, "/models/nightly", "tensorflow")
    assert _labels(store) == {"stable": 1}
    assert _served(store) == [1]
    source = artefact / "saved_model" / "1"
    files = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    assert Path("assets.extra/tf_serving_warmup_requests") in files
    for path in files:
        assert (store / NAME / "1" / path).read_bytes() == (source / path).read_bytes()
    assert (store / NAME / "1" / "assets.extra" / "manifest.json").read_bytes() == (
        artefact / "manifest.json"
    ).read_bytes()
    # For the user that the server runs as.
    for path in [store / "models.config", *(store / NAME).rglob("[!.]*")]:
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


def test_tensorflow_loads_what_was_deployed(artefact, store, photo):
    import tensorflow as tf

    versions.add(artefact, store, NAME, 1, "/models")
    signature = tf.saved_model.load(str(store / NAME / "1")).signatures["serving_default"]
    original = tf.saved_model.load(str(artefact / "saved_model" / "1")).signatures["serving_default"]
    images = tf.constant(photo(37, 61)[None])
    np.testing.assert_array_equal(signature(images=images)["restored"], original(images=images)["restored"])


def test_from_artefact_to_rollback(artefact, store):
    source = f"--artefact={artefact}"
    _done(store, source, "--version=1", "--label=stable")
    # Under its number first, then for some, then for all.
    _done(store, source, "--version=2")
    assert (_labels(store), _served(store)) == ({"stable": 1}, [1, 2])
    _done(store, "--version=2", "--label=canary")
    assert (_labels(store), _served(store)) == ({"stable": 1, "canary": 2}, [1, 2])
    assert "pass --server=HOST:PORT" in _refused(store, "--version=2", "--label=stable")
    assert _labels(store)["stable"] == 1
    _done(store, "--version=2", "--label=stable", "--offline")
    # What was stable before stays loaded, for the way back.
    assert (_labels(store), _served(store)) == ({"stable": 2, "canary": 2}, [1, 2])
    _done(store, source, "--version=3", "--label=stable", "--offline")
    assert (_labels(store), _served(store)) == ({"stable": 3, "canary": 2}, [2, 3])
    assert _done(store, "--rollback", "--offline") == ["nightly: stable is 2 again"]
    assert _labels(store) == {"stable": 2, "canary": 2}
    assert _done(store, "--rollback", "--offline") == ["nightly: stable is 1 again"]
    assert "No version of nightly was stable before" in _refused(store, "--rollback", "--offline")
    # Not to the version that was bad.
    _done(store, "--version=3", "--label=stable", "--offline")
    assert _done(store, "--rollback", "--offline") == ["nightly: stable is 1 again"]
    _check_as_a_server_sees_it(store)


def test_old_versions_go_but_never_one_in_use(artefact, store):
    source = f"--artefact={artefact}"
    _done(store, source, "--version=1", "--label=canary")
    for version in range(2, 7):
        lines = _done(store, source, f"--version={version}", "--label=stable", "--offline", "--keep=1")
    # 1 is the canary, 5 was stable before, 4 might still be loaded; of the others the newest stays.
    assert versions.numbers(store, NAME) == [1, 3, 4, 5, 6]
    assert lines[-1] == "nightly: version 2 is removed"
    _done(store, source, "--version=7", "--keep=0")
    assert versions.numbers(store, NAME) == [1, 5, 6, 7]
    _done(store, source, "--version=8", "--keep=9")
    assert versions.numbers(store, NAME) == [1, 5, 6, 7, 8]
    assert _done(store, "--rollback", "--offline") == ["nightly: stable is 5 again"]
    _check_as_a_server_sees_it(store)


def test_the_list(artefact, store):
    assert _done(store, "--list", name=None) == []
    _done(store, f"--artefact={artefact}", "--version=1", "--label=stable")
    _done(store, f"--artefact={artefact}", "--version=20")
    _done(store, f"--artefact={artefact}", "--version=3", name="other")
    lines = _done(store, "--list", name=None)
    assert [line.split("  ")[:3] for line in lines] == [
        ["nightly", "1", "stable"],
        ["nightly", "20", "served"],
        ["other", "3", "served"],
    ]
    folder = store / NAME / "1"
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    sums = subprocess.run(["sha256sum", *files], cwd=folder, capture_output=True, check=True).stdout
    total = subprocess.run(["sha256sum"], input=sums, capture_output=True, check=True).stdout.decode().split()[0]
    size = sum((folder / path).stat().st_size for path in files)
    assert lines[0].endswith(f"  {size} bytes  sha256 {total}")
    (folder / "fingerprint.pb").write_bytes(b"something else")
    (store / NAME / "20" / "assets.extra" / "manifest.json").unlink()
    lines = _done(store, "--list")
    assert [line.endswith("  DAMAGED: not as exported") for line in lines] == [True, True]


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _break_manifest(text):
    return lambda artefact: (artefact / "manifest.json").write_text(text)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda at: _flip(at / "saved_model/1/saved_model.pb"),
            "saved_model/1/saved_model.pb differs from its manifest",
        ),
        (lambda at: (at / "saved_model/1/fingerprint.pb").unlink(), "saved_model/1/fingerprint.pb is missing"),
        (lambda at: (at / "saved_model/1/more").write_bytes(b""), "saved_model/1/more is not in the manifest"),
        (lambda at: shutil.rmtree(at / "saved_model"), "saved_model/1/assets.extra/.* is missing"),
        (lambda at: (at / "manifest.json").unlink(), "is no export, which would hold manifest.json"),
        (_break_manifest('{"artefacts": ['), "manifest.json is damaged"),
        (_break_manifest('{"artefacts": []}'), "tells of no SavedModel"),
        (_break_manifest('{"artefacts": [{"path": 3}]}'), "manifest.json is damaged"),
        (_break_manifest("[]"), "manifest.json is damaged"),
    ],
)
def test_a_damaged_export_leaves_nothing(damaged, store, harm, message):
    harm(damaged)
    with pytest.raises(ValueError, match=message), folders.locked(store):
        versions.add(damaged, store, NAME, 1, "/models")
    assert versions.numbers(store, NAME) == []
    assert not (store / "models.config").exists()
    assert not list(store.rglob(".deploy-*"))


def test_a_manifest_cannot_point_elsewhere(damaged, store):
    manifest = json.loads((damaged / "manifest.json").read_text())
    entry = next(each for each in manifest["artefacts"] if each["path"].startswith("saved_model/"))
    entry["files"]["saved_model/1/../../../escaped"] = {"sha256": "0" * 64, "size_bytes": 0}
    (damaged / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="is missing"):
        versions.add(damaged, store, NAME, 1, "/models")
    assert not list(store.rglob("escaped"))


def test_wrong_calls_are_one_line(artefact, store, damaged):
    source = f"--artefact={artefact}"
    _done(store, source, "--version=1", "--label=stable")
    (store / NAME / "2").mkdir()
    before = (store / "models.config").read_bytes()
    assert "Version 1 of nightly is there already" in _refused(store, source, "--version=1")
    assert "Version 2 of nightly is there already" in _refused(store, source, "--version=2")
    assert "There is no version 7 of nightly" in _refused(store, "--version=7", "--label=canary")
    assert "There is no model other" in _refused(store, "--version=1", "--label=canary", name="other")
    assert "Expected a name of letters" in _refused(store, source, "--version=3", name="../other")
    assert "Expected --list, --rollback, or --version=N" in _refused(store, "--version=3")
    assert "Expected --rollback without" in _refused(store, "--rollback", "--version=3")
    assert "not both" in _refused(store, "--rollback", "--offline", "--server=127.0.0.1:1")
    assert "There is no folder" in _refused(store / "nowhere", source, "--version=3")
    assert "is no export" in _refused(store, f"--artefact={store}", "--version=3")
    _flip(damaged / "saved_model/1/saved_model.pb")
    assert "differs from its manifest" in _refused(store, f"--artefact={damaged}", "--version=3")
    assert (store / "models.config").read_bytes() == before
    assert versions.numbers(store, NAME) == [1, 2]


def test_what_others_wrote_into_the_config_stays(artefact, store):
    (store / "models.config").write_text(
        'model_config_list { config { name: "other" base_path: "/elsewhere/other" model_platform: "tensorflow"'
        " logging_config { sampling_config { sampling_rate: 0.5 } } } }"
    )
    versions.add(artefact, store, NAME, 1, "/srv")
    other = _model(store, "other")
    assert other.base_path == "/elsewhere/other"
    assert other.logging_config.sampling_config.sampling_rate == 0.5
    assert _model(store).base_path == "/srv/nightly"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_config_list { config { nme:", "is no text of a ModelServerConfig"),
        ("custom_model_config {}", "Received: a custom_model_config"),
        (
            'model_config_list { config { name: "other" model_version_policy { all {} } } }',
            "Expected specific versions of other .*. Received: the policy all",
        ),
    ],
)
def test_a_config_that_cannot_be_kept_is_refused_before_anything_is_copied(artefact, store, text, message):
    (store / "models.config").write_text(text)
    with pytest.raises(ValueError, match=message):
        versions.add(artefact, store, NAME, 1, "/models")
    assert (store / "models.config").read_text() == text
    assert not (store / NAME).exists()


def test_another_run_at_work(artefact, store):
    with folders.locked(store):
        assert "Another deployment is at work" in _refused(store, f"--artefact={artefact}", "--version=1")
    assert sorted(path.name for path in store.iterdir()) == [".lock"]
    _done(store, f"--artefact={artefact}", "--version=1")


def test_another_file_system(artefact, store, quick):
    if not MEMORY.is_dir() or MEMORY.stat().st_dev == store.stat().st_dev:
        pytest.skip("There is one file system only.")
    elsewhere = quick / "artefact"
    shutil.copytree(artefact, elsewhere)
    versions.add(elsewhere, store, NAME, 1, "/models")
    _check_as_a_server_sees_it(store)


class Server:
    """The rules by which TensorFlow Serving 2.21 reads models.config (server_core.cc): labels first, then versions.

    Stands in for the binary, which no registry offers.
    """

    def __init__(self, store, poll_seconds=0.02):
        self.store, self.loaded, self.labels, self.refusals = store, set(), {}, []
        self._stopped = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                version = int(self.path.rsplit("/", 1)[1])
                known = self.path == f"/v1/models/{NAME}/versions/{version}" and version in outer.loaded
                self.send_response(200 if known else 404)
                self.end_headers()
                status = {"version": str(version), "state": "AVAILABLE", "status": {"error_message": ""}}
                self.wfile.write(json.dumps({"model_version_status": [status]} if known else {}).encode())

            def log_message(self, *arguments):
                """Says nothing."""

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._http.server_port}"
        self._threads = [
            threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}),
            threading.Thread(target=self._poll, args=(poll_seconds,)),
        ]

    def _poll(self, seconds):
        while not self._stopped.wait(seconds):
            self.read()

    def read(self):
        model = _model(self.store)
        for label, version in model.version_labels.items():
            if self.labels.get(label, version) != version and version not in self.loaded:
                self.refusals.append((label, version))
                return
        self.labels = dict(model.version_labels)
        wanted = set(model.model_version_policy.specific.versions)
        for version in wanted:
            assert (self.store / NAME / str(version) / "saved_model.pb").is_file()
        self.loaded = wanted

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception):
        self._stopped.set()
        self._http.shutdown()
        for thread in self._threads:
            thread.join()
        self._http.server_close()


def test_a_label_in_use_moves_when_the_server_has_loaded_the_version(artefact, store):
    _done(store, f"--artefact={artefact}", "--version=1", "--label=stable")
    with Server(store) as server:
        for version in (2, 3):
            _done(
                store,
                f"--artefact={artefact}",
                f"--version={version}",
                "--label=stable",
                f"--server={server.address}",
                "--timeout_seconds=60",
            )
        server.read()
        assert server.labels == {"stable": 3}
        assert server.loaded == {2, 3}
        assert _done(store, "--rollback", f"--server={server.address}", "--timeout_seconds=60") == [
            "nightly: stable is 2 again"
        ]
        server.read()
        assert server.labels == {"stable": 2}
    assert server.refusals == []


def test_in_one_step_the_server_would_never_load_it(artefact, store):
    """Why there are two: the rule that `Server` follows, for a config that a hand would write."""
    versions.add(artefact, store, NAME, 1, "/models")
    versions.point(store, NAME, "stable", 1, None)
    server = Server(store)
    server.read()
    versions.add(artefact, store, NAME, 2, "/models")
    versions.point(store, NAME, "stable", 2, None)
    for _ in range(3):
        server.read()
    assert server.refusals == [("stable", 2)] * 3
    assert (server.labels, server.loaded) == ({"stable": 1}, {1})
    server._http.server_close()


def test_a_server_that_does_not_load_it(artefact, store):
    _done(store, f"--artefact={artefact}", "--version=1", "--label=stable")
    result = _run(
        store,
        f"--artefact={artefact}",
        "--version=2",
        "--label=stable",
        "--server=127.0.0.1:9",
        "--timeout_seconds=0.5",
    )
    assert result.returncode == 1
    assert "Version 2 of nightly is served, but 127.0.0.1:9 has not loaded it, and no label has moved" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert (_labels(store), _served(store)) == ({"stable": 1}, [1, 2])


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ({"model_version_status": [{"state": "AVAILABLE", "status": {"error_message": ""}}]}, "AVAILABLE"),
        ({"model_version_status": [{"state": "END", "status": {"error_message": "no\n file"}}]}, "END no file"),
        ({"model_version_status": []}, "list index out of range"),
        ([], "list indices must be integers"),
    ],
)
def test_what_a_server_says(answer, state):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *arguments):
            """Says nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert deploy._state(f"127.0.0.1:{server.server_port}", NAME, 1).startswith(state)
        thread.join()


# Runs one change again and again, killed by a real SIGKILL before the first of its lines and file operations, before a
# later one, and so on, and prints the folder's state after each.
_KILLER = """
    import json, os, shutil, signal, sys
    from pathlib import Path
    from serving import deploy, folders, models_config, versions

    template, store, artefact = map(Path, sys.argv[1:4])
    action, stride = sys.argv[4], int(sys.argv[5])
    name = "nightly"

    def change():
        with folders.locked(store):
            if action == "rollback":
                versions.rollback(store, name, lambda name, version: None)
                return
            before = versions.served(store, name)
            versions.add(artefact, store, name, 4, "/models")
            versions.point(store, name, "stable", 4, lambda name, version: None)
            versions.prune(store, name, 0, before)

    def killed_at(point):
        left = point

        def count():
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        def trace(frame, event, argument):
            if Path(frame.f_code.co_filename).parent.name != "serving":
                return None
            if event == "line":
                count()
            return trace

        def hear(event, arguments):
            if event == "open" or event.startswith(("os.", "shutil.")):
                count()

        sys.addaudithook(hear)
        sys.settrace(trace)
        change()
        os._exit(0)

    point = 1 - stride
    while True:
        point += stride
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(template, store)
        child = os.fork()
        if child == 0:
            killed_at(point)
        _, status = os.waitpid(child, 0)
        ended = os.WIFEXITED(status)
        assert not ended or os.WEXITSTATUS(status) == 0
        lines = list(versions.describe(store))
        model = models_config.find(models_config.read(store), name)
        state = {
            "labels": dict(model.version_labels),
            "served": sorted(models_config.served(model)),
            "there": versions.numbers(store, name),
            "damaged": [line for line in lines if "DAMAGED" in line],
        }
        # And the next run has to find its way.
        with folders.locked(store):
            left = [str(path) for path in store.rglob(".deploy-*")]
            back = versions.rollback(store, name, None)
        print(json.dumps({**state, "left": left, "back": back, "ended": ended}))
        if ended:
            break
"""


@pytest.mark.parametrize("stride", [9, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("action", "stable"), [("deploy", 4), ("rollback", 2)])
def test_killed_at_any_moment(artefact, quick, action, stable, stride):
    old, new = {"stable": 3, "canary": 2}, {"stable": stable, "canary": 2}
    template = quick / "template"
    template.mkdir()
    for version in (1, 2, 3):
        versions.add(artefact, template, NAME, version, "/models")
        versions.point(template, NAME, "stable", version, None)
    versions.point(template, NAME, "canary", 2, None)
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_KILLER), template, quick / "store", artefact, action, str(stride)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    states = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(states) > 150 / stride
    seen = []
    for state in states:
        assert state["labels"] in (old, new)
        assert state["damaged"] == []
        assert set(state["labels"].values()) <= set(state["served"]) <= set(state["there"])
        # 1 is old, and goes at the end of a deployment.
        assert state["there"] in ([1, 2, 3], [1, 2, 3, 4], [2, 3, 4])
        assert state["left"] == []
        assert state["back"] == state["labels"]["stable"] - 1
        seen.append(state["labels"] == new)
    # Old until some moment, new ever after.
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (False, True)
    assert [state["ended"] for state in states] == [False] * (len(states) - 1) + [True]
    assert states[-1]["there"] == ([2, 3, 4] if action == "deploy" else [1, 2, 3])


def test_the_program_killed_at_random(artefact, store):
    _done(store, f"--artefact={artefact}", "--version=1", "--label=stable")
    generator = random.Random(0)
    for version in range(2, 8):
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.deploy", f"--models={store}", f"--name={NAME}", f"--artefact={artefact}"]
            + [f"--version={version}", "--label=stable", "--offline"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(generator.uniform(0.1, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        _check_as_a_server_sees_it(store)
    _done(store, f"--artefact={artefact}", "--version=9", "--label=stable", "--offline")
    assert _labels(store) == {"stable": 9}
    assert not list(store.rglob(".deploy-*"))
