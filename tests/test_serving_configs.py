import http.server
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from concurrent import futures
from pathlib import Path

import pytest

pytest.importorskip("tensorflow_serving")

import grpc
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving import models_config

SERVING = Path(__file__).resolve().parents[1] / "serving"
CONFIG = SERVING / "config"

_TYPES = descriptor_pb2.FieldDescriptorProto
_KINDS = {"bool": _TYPES.TYPE_BOOL, "int64": _TYPES.TYPE_INT64, "string": _TYPES.TYPE_STRING}

# Of tensorflow/serving, where tensorflow-serving-api leaves them out: session_bundle_config.proto, ssl_config.proto and
# monitoring_config.proto. A name with a capital is a message.
_MESSAGES = {
    "BatchingParameters": [
        ("max_batch_size", 1, "google.protobuf.Int64Value"),
        ("batch_timeout_micros", 2, "google.protobuf.Int64Value"),
        ("max_enqueued_batches", 3, "google.protobuf.Int64Value"),
        ("num_batch_threads", 4, "google.protobuf.Int64Value"),
        ("thread_pool_name", 5, "google.protobuf.StringValue"),
        ("allowed_batch_sizes", 6, "int64*"),
        ("pad_variable_length_inputs", 7, "bool"),
    ],
    "SSLConfig": [
        ("server_key", 1, "string"),
        ("server_cert", 2, "string"),
        ("custom_ca", 3, "string"),
        ("client_verify", 4, "bool"),
    ],
    "PrometheusConfig": [("enable", 1, "bool"), ("path", 2, "string")],
    "MonitoringConfig": [("prometheus_config", 1, "check.PrometheusConfig")],
}


@pytest.fixture(scope="module")
def messages():
    file = descriptor_pb2.FileDescriptorProto(name="check.proto", package="check", syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            field = message.field.add(name=field_name, number=number, label=_TYPES.LABEL_OPTIONAL)
            if kind.endswith("*"):
                field.label = _TYPES.LABEL_REPEATED
            field.type = _KINDS.get(kind.rstrip("*"), _TYPES.TYPE_MESSAGE)
            if field.type == _TYPES.TYPE_MESSAGE:
                field.type_name = f".{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"check.{name}")) for name in _MESSAGES}


def _yaml(path):
    return yaml.safe_load((SERVING / path).read_text())


@pytest.fixture(scope="module")
def compose():
    return _yaml("compose.yaml")


@pytest.fixture(scope="module")
def kubernetes():
    """The manifests by kind."""
    manifests = [_yaml(path) for path in (SERVING / "kubernetes" / "base").glob("*.yaml")]
    return {each["kind"]: each for each in manifests}


@pytest.fixture(scope="module")
def container(kubernetes):
    return kubernetes["Deployment"]["spec"]["template"]["spec"]["containers"][0]


def _arguments(lines):
    return dict(line.removeprefix("--").split("=", 1) for line in lines)


def _all_arguments(compose, container):
    named = {
        name: _arguments(each["command"]) for name, each in compose["services"].items() if name.startswith("serving")
    }
    return {**named, "kubernetes": _arguments(container["args"])}


def _model():
    text = (CONFIG / "models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    return model


def test_the_sample_is_what_deploy_writes(tmp_path):
    (tmp_path / "models.config").write_text((CONFIG / "models.config").read_text())
    models_config.write(tmp_path, models_config.read(tmp_path))
    assert (tmp_path / "models.config").read_text() == (CONFIG / "models.config").read_text()
    model = _model()
    assert dict(model.version_labels) == {"stable": 1, "canary": 2}
    assert list(model.model_version_policy.specific.versions) == [1, 2]


def test_batching(messages):
    parameters = text_format.Parse((CONFIG / "batching.config").read_text(), messages["BatchingParameters"]())
    sizes = list(parameters.allowed_batch_sizes)
    # As the server asks for.
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == parameters.max_batch_size.value
    assert parameters.num_batch_threads.value >= 1
    assert not parameters.pad_variable_length_inputs
    # The queue's histogram ends at a second.
    assert parameters.batch_timeout_micros.value < 1e6


def test_batching_only_where_it_is_said(compose, container):
    for name, arguments in _all_arguments(compose, container).items():
        batches = arguments.get("enable_batching") == "true"
        assert batches == ("batching_parameters_file" in arguments) == (name == "serving-gpu")
        threads = int(arguments["grpc_max_threads"])
        assert threads == 2 * 16 if batches else threads == 8


def test_flags_agree(compose, container):
    flags = _all_arguments(compose, container)
    assert set(flags) == {"serving", "serving-gpu", "serving-tls", "kubernetes"}
    for arguments in flags.values():
        assert arguments["port"] == "8500"
        assert arguments["rest_api_port"] == "8501"
        assert arguments["model_config_file"] == "/models/models.config"
        assert int(arguments["model_config_file_poll_wait_seconds"]) > 0
        # Or no label holds when the server starts.
        assert arguments["allow_version_labels_for_unavailable_models"] == "true"
        assert arguments["monitoring_config_file"] == "/config/monitoring.config"
    cores = compose["services"]["serving"]["cpus"]
    for name in ("serving", "serving-tls", "kubernetes"):
        assert flags[name]["tensorflow_intra_op_parallelism"] == str(cores)
    assert container["resources"]["limits"]["cpu"] == str(cores)


def test_paths_agree(compose, container):
    assert _model().base_path == f"/models/{_model().name}"
    assert _model().name == "shuffle_nano"
    for name, arguments in _all_arguments(compose, container).items():
        if name == "kubernetes":
            mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
            assert all(mounts[path]["readOnly"] for path in ("/models", "/config", "/tls"))
        else:
            volumes = [each.rsplit(":", 2) for each in compose["services"][name]["volumes"]]
            mounts = {target: source for source, target, mode in volumes if mode == "ro"}
            assert mounts["/config"] == "./config"
        for flag, path in arguments.items():
            if flag.endswith("_file"):
                folder, file = path.rsplit("/", 1)
                assert folder in mounts or folder == "/run/secrets"
                assert folder != "/config" or (CONFIG / file).is_file()


def test_kubernetes_finds_what_it_mounts(kubernetes, container):
    pod = kubernetes["Deployment"]["spec"]["template"]["spec"]
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    claim = next(each["persistentVolumeClaim"] for each in pod["volumes"] if each["name"] == "models")
    assert claim == {"claimName": kubernetes["PersistentVolumeClaim"]["metadata"]["name"], "readOnly": True}
    labels = kubernetes["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert kubernetes["Service"]["spec"]["selector"] == labels
    assert kubernetes["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert kubernetes["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert kubernetes["PodDisruptionBudget"]["spec"]["minAvailable"] < kubernetes["Deployment"]["spec"]["replicas"]
    files = {path.name for path in (SERVING / "kubernetes" / "base").iterdir()} - {"kustomization.yaml"}
    assert set(kubernetes["Kustomization"]["resources"]) == files
    space = kubernetes["Namespace"]["metadata"]["name"]
    assert all(
        each["metadata"]["namespace"] == space
        for kind, each in kubernetes.items()
        if kind not in ("Namespace", "Kustomization")
    )


def test_images_are_pinned_and_the_same(compose, container):
    images = {name: each["image"] for name, each in compose["services"].items()}
    for image in [*images.values(), container["image"]]:
        assert re.search(r":v?\d+\.\d+\.\d+(-gpu)?$", image)
    assert images["serving"] == images["serving-tls"] == container["image"]
    assert images["serving-gpu"] == f"{images['serving']}-gpu"
    patches = _yaml("kubernetes/gpu/kustomization.yaml")["patches"][0]["patch"]
    assert f"value: {images['serving-gpu']}\n" in patches
    version = images["serving"].rsplit(":", 1)[1]
    assert json.loads((CONFIG / "metrics.json").read_text())["server"] == f"TensorFlow Serving {version}"


def test_the_gpu_patch_replaces_what_it_names(container):
    patch = yaml.safe_load(_yaml("kubernetes/gpu/kustomization.yaml")["patches"][0]["patch"])
    (replaced,) = [each for each in patch if each["op"] == "replace" and "/args/" in each["path"]]
    assert container["args"][int(replaced["path"].rsplit("/", 1)[1])].startswith("--grpc_max_threads=")
    assert replaced["value"] == "--grpc_max_threads=32"


def test_only_tls_listens_to_other_machines(compose, kubernetes, container):
    for name, service in compose["services"].items():
        open_ports = [port for port in map(str, service["ports"]) if not port.startswith("127.0.0.1:")]
        if name == "serving-tls":
            assert open_ports == ["8500:8500"]
            assert _arguments(service["command"])["ssl_config_file"] == f"/run/secrets/{service['secrets'][0]}"
        else:
            assert open_ports == []
        assert "network_mode" not in service
    assert _arguments(container["args"])["ssl_config_file"] == "/tls/ssl.config"
    (port,) = kubernetes["Service"]["spec"]["ports"]
    assert port["port"] == 8500
    rules = kubernetes["NetworkPolicy"]["spec"]["ingress"]
    assert {rule["ports"][0]["port"]: list(rule["from"][0]) for rule in rules} == {
        8500: ["namespaceSelector"],
        8501: ["namespaceSelector"],
    }


def test_no_rights(compose, kubernetes, container):
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        if name.startswith("serving"):
            assert service["read_only"]
            assert not service["user"].startswith(("0", "root"))
    pod = kubernetes["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_probes_ask_for_the_model(kubernetes, container):
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": f"/v1/models/{_model().name}", "port": "rest"}
    assert container["livenessProbe"]["tcpSocket"] == {"port": "grpc"}
    notes = kubernetes["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert notes["prometheus.io/port"] == str(ports["rest"])


@pytest.mark.parametrize("status", [200, 404])
def test_the_healthcheck_of_compose(compose, status):
    """Runs it, in the shell that the image has, too."""
    test = compose["services"]["serving"]["healthcheck"]["test"]
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *arguments):
            """Says nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        command = [part.replace("/8501", f"/{server.server_port}") for part in test[1:]]
        result = subprocess.run(command, capture_output=True, check=False, timeout=20)
        thread.join()
    assert asked == [f"/v1/models/{_model().name}"]
    assert (result.returncode == 0) == (status == 200)
    # Nobody answers.
    assert subprocess.run(command, capture_output=True, check=False, timeout=20).returncode != 0


def test_monitoring(messages, compose, kubernetes):
    config = text_format.Parse((CONFIG / "monitoring.config").read_text(), messages["MonitoringConfig"]())
    assert config.prometheus_config.enable
    path = config.prometheus_config.path
    assert path == "/monitoring/prometheus/metrics"
    (scrape,) = _yaml("config/prometheus.yml")["scrape_configs"]
    assert scrape["metrics_path"] == path
    assert scrape["static_configs"] == [{"targets": ["serving:8501"]}]
    notes = kubernetes["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert notes["prometheus.io/path"] == path
    # Whichever of the three runs has that name.
    for name in ("serving-gpu", "serving-tls"):
        assert compose["services"][name]["networks"] == {"inside": {"aliases": ["serving"]}}
    for name in ("prometheus", "grafana"):
        for volume in compose["services"][name]["volumes"]:
            source = volume.split(":")[0]
            assert (SERVING / source).exists() if source.startswith(".") else source in compose["volumes"]
    rules = [volume.split(":")[1] for volume in compose["services"]["prometheus"]["volumes"]]
    assert f"/etc/prometheus/{_yaml('config/prometheus.yml')['rule_files'][0]}" in rules
    assert _yaml("config/grafana_datasource.yml")["datasources"][0]["url"] == "http://prometheus:9090"


def _dashboard():
    return json.loads((SERVING / "grafana" / "serving.json").read_text())


def _queries():
    """Every query of the dashboard and of the alerts, by what it is for."""
    queries = {
        f"{panel['title']} {each['refId']}": each["expr"]
        for panel in _dashboard()["panels"]
        for each in panel["targets"]
    }
    for group in _yaml("config/alerts.yml")["groups"]:
        queries |= {rule["alert"]: rule["expr"] for rule in group["rules"]}
    return queries


# The words of PromQL that the queries use.
_WORDS = frozenset("by histogram_quantile increase le max on or rate sum unless".split())


def test_every_query_asks_for_metrics_that_the_server_has():
    metrics = json.loads((CONFIG / "metrics.json").read_text())["metrics"]
    kept = _yaml("config/prometheus.yml")["scrape_configs"][0]["metric_relabel_configs"][0]["regex"]
    suffixes = {"histogram": ("_bucket", "_sum", "_count"), "percentiles": ("_sum", "_count")}
    known = {f"{name}{end}": each for name, each in metrics.items() for end in suffixes.get(each["kind"], ("",))}
    used = set()
    for title, query in _queries().items():
        bare = re.sub(r'"[^"]*"|\[[^\]]*\]|\{\{.*?\}\}', "", query)
        names = set(re.findall(r"(?<![\w:.$])[:a-z][\w:]*", re.sub(r"\{[^}]*\}|by \([^)]*\)", "", bare))) - _WORDS
        assert names, title
        assert names <= set(known), title
        labels = {"le", "instance", "job"}.union(*(known[name]["labels"] for name in names))
        asked = set(re.findall(r"(\w+) *(?:=~|!~|!=|=)", " ".join(re.findall(r"\{[^}]*\}", bare))))
        asked |= {label for group in re.findall(r"by \(([^)]*)\)", bare) for label in re.split(r",\s*", group)}
        assert asked <= labels, title
        used |= names
        for name in names - {"up"}:
            assert re.fullmatch(kept, name), title
    assert {known[name]["source"] for name in used} == {each["source"] for each in metrics.values()}


def test_the_dashboard_has_its_source():
    uid = _yaml("config/grafana_datasource.yml")["datasources"][0]["uid"]
    dashboard = _dashboard()
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": uid}
    boxes = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(boxes)) == len(boxes)
    assert {each["name"] for each in dashboard["templating"]["list"]} == {"model"}


def test_prometheus_takes_rules_and_queries(tmp_path):
    """With Prometheus's own tool, where it is installed."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("There is no promtool.")
    for name in ("prometheus.yml", "alerts.yml"):
        shutil.copy(CONFIG / name, tmp_path)
    queries = [
        {"record": f"q{index}", "expr": query.replace("$__rate_interval", "5m").replace("$model", ".*")}
        for index, query in enumerate(_queries().values())
    ]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": queries}]}))
    failed = (
        ':tensorflow:cc:saved_model:load_attempt_count{instance="a", model_path="/models/shuffle_nano/%d", status="%s"}'
    )
    requests = ':tensorflow:serving:request_count{model_name="shuffle_nano", status="%s"}'
    series = [
        {"series": failed % (1, "success"), "values": "1x20"},
        {"series": failed % (2, "fail"), "values": "1x20"},
        # It succeeded when it was tried again.
        {"series": failed % (3, "fail"), "values": "1x20"},
        {"series": failed % (3, "success"), "values": "1x20"},
        {"series": requests % "OK", "values": "0+600x20"},
        {"series": requests % "UNAVAILABLE", "values": "0+30x20"},
        {"series": requests % "INVALID_ARGUMENT", "values": "0+30x20"},
    ]
    firing = [
        {"labels": '{alertname="ModelLoadFailed", model_path="/models/shuffle_nano/2"}', "value": 1},
        {"labels": '{alertname="ServingErrors", model_name="shuffle_nano"}', "value": 1},
    ]
    expression = 'count by (alertname, model_path, model_name) (ALERTS{alertstate="firing"})'
    expected = {"expr": expression, "eval_time": "19m", "exp_samples": firing}
    test = {"interval": "1m", "input_series": series, "promql_expr_test": [expected]}
    case = {"rule_files": ["alerts.yml"], "tests": [test]}
    (tmp_path / "case.yml").write_text(yaml.safe_dump(case))
    for command in (
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "queries.yml"],
        ["test", "rules", "case.yml"],
    ):
        result = subprocess.run([promtool, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("folder", ["base", "gpu"])
def test_kubernetes_schemas(folder):
    """Of Kubernetes itself, after kubectl has put them together, where both are installed."""
    validate = pytest.importorskip("kubernetes_validate")
    if shutil.which("kubectl") is None:
        pytest.skip("There is no kubectl.")
    result = subprocess.run(
        ["kubectl", "kustomize", SERVING / "kubernetes" / folder], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    manifests = list(yaml.safe_load_all(result.stdout))
    assert len(manifests) == 6
    for manifest in manifests:
        validate.validate(manifest, "1.33", strict=True)
    limits = next(each for each in manifests if each["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"][
        0
    ]["resources"]["limits"]
    assert ("nvidia.com/gpu" in limits) == (folder == "gpu")


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """What tls.sh makes."""
    if shutil.which("openssl") is None:
        pytest.skip("There is no openssl.")
    folder = tmp_path_factory.mktemp("tls") / "made"
    command = ["sh", CONFIG / "tls.sh", folder, "localhost", "127.0.0.1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr) == (1, f"error: {folder} exists already\n")
    return folder


def test_the_server_takes_only_clients_with_a_certificate(tls, messages):
    """With gRPC as TensorFlow Serving calls it (server.cc), and the texts of ssl.config."""
    config = text_format.Parse((tls / "ssl.config").read_text(), messages["SSLConfig"]())
    assert config.server_key == (tls / "server.key").read_text()
    assert config.client_verify
    for name in ("ssl.config", "server.key", "ca.key", "client.key"):
        assert (tls / name).stat().st_mode & 0o077 == 0
    credentials = grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())], config.custom_ca.encode(), config.client_verify
    )
    server = grpc.server(futures.ThreadPoolExecutor(1))
    echo = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("check", {"Echo": echo})])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    authority, key, certificate = ((tls / name).read_bytes() for name in ("ca.crt", "client.key", "client.crt"))

    def answer(credentials, host="localhost"):
        channel = f"{host}:{port}"
        with grpc.insecure_channel(channel) if credentials is None else grpc.secure_channel(channel, credentials) as to:
            return to.unary_unary("/check/Echo")(b"picture", timeout=10)

    try:
        known = grpc.ssl_channel_credentials(authority, key, certificate)
        assert answer(known) == answer(known, "127.0.0.1") == b"picture"
        for unknown in (
            None,
            grpc.ssl_channel_credentials(authority),
            grpc.ssl_channel_credentials(certificate, key, certificate),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                answer(unknown)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    finally:
        server.stop(None).wait()


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_nginx_lets_clients_with_a_certificate_predict(tls, tmp_path):
    """Runs it, where it is installed."""
    nginx = shutil.which("nginx")
    if nginx is None:
        pytest.skip("There is no nginx.")
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"answer")

        def log_message(self, *arguments):
            """Says nothing."""

    port = _free_port()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as upstream:
        text = (CONFIG / "nginx.conf").read_text()
        for old, new in (
            ("serving:8501", f"127.0.0.1:{upstream.server_port}"),
            ("listen 8443", f"listen 127.0.0.1:{port}"),
            ("/tmp/", f"{tmp_path}/"),
            ("/tls/", f"{tls}/"),
        ):
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "nginx.conf").write_text(f"user root;\n{text}")
        thread = threading.Thread(target=upstream.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        process = subprocess.Popen([nginx, "-c", tmp_path / "nginx.conf", "-e", "stderr", "-g", "daemon off;"])
        context = ssl.create_default_context(cafile=tls / "ca.crt")
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

        def status(path):
            try:
                with opener.open(f"https://localhost:{port}{path}", timeout=10) as answer:
                    return answer.status
            except urllib.error.HTTPError as error:
                with error:
                    return error.code

        try:
            deadline = time.monotonic() + 20
            while not _listens(port) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert status("/v1/models/shuffle_nano") == 400
            assert asked == []
            context.load_cert_chain(tls / "client.crt", tls / "client.key")
            paths = [
                "/v1/models/shuffle_nano",
                "/v1/models/shuffle_nano/labels/stable",
                "/v1/models/shuffle_nano/versions/2:predict",
            ]
            assert [status(path) for path in paths] == [200, 200, 200]
            assert status("/monitoring/prometheus/metrics") == 404
            assert status("/v1/models/../../monitoring/prometheus/metrics") == 404
            assert asked == paths
        finally:
            process.terminate()
            process.wait()
            upstream.shutdown()
            thread.join()


def test_the_readme_names_what_there_is(compose):
    text = (SERVING / "README.md").read_text()
    known = set(re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', (SERVING / "deploy.py").read_text()))
    assert "artefact" in known
    for line in text.splitlines():
        if "serving.deploy" in line or "$DEPLOY" in line:
            assert set(re.findall(r"--(\w+)", line)) <= known, line
    for path in re.findall(r"(?:serving|tests|export)/[\w/-]+(?:\.\w+)?", text):
        assert (SERVING.parent / path).exists(), path
    # Docker's command is compose's.
    image = compose["services"]["serving"]["image"]
    command = re.search(rf"docker run .* {re.escape(image)} (.*?)\n\n", text, re.DOTALL)[1].replace("\\\n", " ")
    assert sorted(command.split()) == sorted(compose["services"]["serving"]["command"])
