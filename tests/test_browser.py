import base64
import contextlib
import http.client
import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import wave
from fractions import Fraction
from pathlib import Path
from urllib.parse import urlsplit

import av
import numpy as np
import pytest

from keras_deartifact import colour, demo, engines, quantiser, restore, video

FOLDER = Path(__file__).resolve().parents[1] / "export" / "device" / "browser"
PINNED = json.loads((FOLDER / "package.json").read_text("utf-8"))["dependencies"]["onnxruntime-web"]

# Pixels of a canvas, or of what the page makes of a frame, as text.
_TO_TEXT = """
    const text = bytes => {
      let result = "";
      for (let at = 0; at < bytes.length; at += 32768) result += String.fromCharCode(...bytes.subarray(at, at + 32768));
      return btoa(result);
    };
    const pixels = id => {
      const canvas = document.getElementById(id);
      return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    };
"""


def _program():
    spec = importlib.util.spec_from_file_location("browser_serve", FOLDER / "serve.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


serve = _program()


@pytest.fixture(scope="session")
def ort(tmp_path_factory):
    """The pinned onnxruntime-web: the checkout's, or installed for these tests; skipped where npm cannot get it."""
    package = FOLDER / "node_modules" / "onnxruntime-web"
    if (package / "package.json").exists():
        installed = json.loads((package / "package.json").read_text("utf-8"))["version"]
        if installed == PINNED:
            return package / "dist"
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("browser")
    shutil.copy(FOLDER / "package.json", folder)
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0", "--fetch-timeout=20000"]
    try:
        done = subprocess.run([npm, "install", *options], cwd=folder, capture_output=True, timeout=180, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm does not get onnxruntime-web in time")
    if done.returncode:
        pytest.skip("npm does not reach its registry")
    return folder / "node_modules" / "onnxruntime-web" / "dist"


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The shipped network as ONNX."""
    pytest.importorskip("tf2onnx")
    from export import networks, onnx

    path = tmp_path_factory.mktemp("model") / "shuffle_nano.onnx"
    generator, _ = networks.load_generator("shuffle_nano")
    path.write_bytes(onnx.convert(generator, {}))
    return path


@pytest.fixture(scope="session")
def frames(tmp_path_factory):
    """Frames of the demonstration clip, compressed by x264, uint8 `(3, 360, 640, 3)`."""
    path = tmp_path_factory.mktemp("frames") / "compressed.mp4"
    demo.compress(path)
    decoded = [colour.to_rgb(frame.image) for frame in video.read_frames(path, quantisers=False)]
    return np.stack(decoded[::16])


def _write_webm(path, size=(357, 211), count=30):
    """The clip's first frames as VP9, which every Chromium plays."""
    with av.open(str(path), "w") as container:
        options = {"crf": "45", "b": "0", "deadline": "realtime", "cpu-used": "8"}
        stream = container.add_stream("libvpx-vp9", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for index, frame in zip(range(count), video.read_frames(demo.CLIP, quantisers=False), strict=False):
            scaled = frame.image.reformat(*size, "yuv420p")
            scaled.pts, scaled.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(scaled))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def webm(tmp_path_factory):
    return _write_webm(tmp_path_factory.mktemp("webm") / "old video, 50 %.webm")


def _line_model(path, gain=1.0, offset=0.0, names=("images", "quantiser_map"), shape=("n", "h", "w", 3)):
    """A network that computes `gain * images + offset`."""
    onnx = pytest.importorskip("onnx")
    tensor = onnx.TensorProto.FLOAT
    inputs = [
        onnx.helper.make_tensor_value_info(name, tensor, each)
        for name, each in zip(names, (shape, ("n", "rows", "columns", 1)), strict=False)
    ]
    constants = [onnx.numpy_helper.from_array(np.float32(v), name) for v, name in ((gain, "gain"), (offset, "offset"))]
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Mul", [names[0], "gain"], ["scaled"]),
            onnx.helper.make_node("Add", ["scaled", "offset"], ["restored"]),
        ],
        "line",
        inputs,
        [onnx.helper.make_tensor_value_info("restored", tensor, shape)],
        constants,
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString())
    return path


@contextlib.contextmanager
def _served(ort, *files):
    """The page's address."""
    with serve.make_server(files, port=0, ort=ort) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield serve.page_url(server, files)
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def _page(browser, **options):
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    try:
        page = context.new_page()
        page.set_default_timeout(60_000)
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        assert errors == []
    finally:
        context.close()


def _ready(page, backend="wasm"):
    page.wait_for_function("backend => document.querySelector('#backend').textContent.startsWith(backend)", arg=backend)


def _restore(page, frame, log2_step):
    """What `window.restoreFrame` makes of a frame."""
    height, width, _ = frame.shape
    rgba = np.dstack([frame, np.full((height, width), 255, np.uint8)])
    call = f"""async ([sent, width, height, step]) => {{
        {_TO_TEXT}
        const rgba = Uint8ClampedArray.from(atob(sent), letter => letter.charCodeAt(0));
        return text(await restoreFrame(rgba, width, height, step));
    }}"""
    sent = base64.b64encode(rgba.tobytes()).decode()
    answer = np.frombuffer(base64.b64decode(page.evaluate(call, [sent, width, height, log2_step])), np.uint8)
    restored = answer.reshape(height, width, 4)
    assert (restored[..., 3] == 255).all()
    return restored[..., :3]


def _shown(page):
    """What both canvases show, and what `restoreFrame` makes of the first, `(3, height, width, 4)`."""
    size, *texts = page.evaluate(f"""async () => {{
        {_TO_TEXT}
        const {{width, height}} = document.getElementById("restored");
        const [compressed, restored] = ["compressed", "restored"].map(pixels);
        const texts = [text(compressed), text(restored)];
        const again = await restoreFrame(compressed, width, height, Number(document.getElementById("step").value));
        return [[height, width], ...texts, text(again)];
    }}""")
    return np.stack([np.frombuffer(base64.b64decode(each), np.uint8).reshape(*size, 4) for each in texts])


def _settled(page):
    """`_shown` of a paused video, once the page has done what it had begun."""
    before = None
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        shown = _shown(page)
        if before is not None and (shown == before).all() and (shown[1] == shown[2]).all():
            break
        before = shown
        page.wait_for_timeout(50)
    np.testing.assert_array_equal(shown[1], shown[2])
    return shown


def _number(page, name):
    found = page.inner_text(f"#{name}")
    return float(found) if found != "–" else 0.0


# Pixels.


def test_levels_padding_and_clipping(tmp_path, ort, browser):
    """Every level goes in and out as it is; what leaves the range is clipped, not wrapped around."""
    frame = np.arange(3 * 19 * 37, dtype=np.int64).reshape(19, 37, 3) * 7 % 256
    same = _line_model(tmp_path / "same.onnx")
    steep = _line_model(tmp_path / "steep.onnx", 3.0, -1.0)
    with _served(ort, same, steep) as url, _page(browser) as page:
        page.goto(url)
        _ready(page)
        np.testing.assert_array_equal(_restore(page, frame.astype(np.uint8), 4.5), frame)
        page.set_input_files("#model-file", steep)
        page.wait_for_function("document.querySelector('#backend').textContent === 'loading'")
        _ready(page)
        np.testing.assert_array_equal(_restore(page, frame.astype(np.uint8), 4.5), np.clip(3 * frame - 255, 0, 255))


def test_pixels_are_those_of_python(ort, model, frames, browser):
    """The same network in the browser and in Python, on whole frames, on one of odd sides, and at two strengths."""
    odd = np.ascontiguousarray(frames[1, 3:214, 5:362])
    cases = [(frames[0], quantiser.DEFAULT_LOG2_STEP), (frames[2], 6.0), (odd, 5.5)]
    with _served(ort, model) as url, _page(browser) as page:
        page.goto(url)
        _ready(page)
        assert page.evaluate("crossOriginIsolated")
        in_browser = [_restore(page, frame, log2_step) for frame, log2_step in cases]
    for engine in (model, "shuffle_nano"):
        restorer = engines.load(engine)
        for (frame, log2_step), restored in zip(cases, in_browser, strict=True):
            maps = quantiser.constant_map(*frame.shape[:2], log2_step)[None]
            expected = restore.restore_frames(restorer, frame[None], maps)[0]
            assert np.abs(expected.astype(int) - frame).mean() > 0.5
            difference = np.abs(restored.astype(int) - expected)
            # Other processors add in another order: of a hundred thousand values one falls on the other side of .5.
            assert difference.max() <= 1
            assert (difference > 0).mean() < 1e-4


@pytest.mark.slow
def test_pixels_on_webgpu(ort, model, frames, browser):
    """On a GPU that Chromium imitates: nothing about speed, but the shaders and the way there and back are the same."""
    frame = np.ascontiguousarray(frames[0, 100:141, 200:290])
    arguments = [
        "--no-sandbox",
        "--enable-unsafe-webgpu",
        "--use-webgpu-adapter=swiftshader",
        "--enable-features=Vulkan",
    ]
    opened = browser.browser_type.launch(executable_path=shutil.which("chromium"), args=arguments)
    with contextlib.closing(opened), _served(ort, model) as url, _page(opened) as page:
        page.goto(url)
        _ready(page)  # Which it is not used for by itself.
        page.goto(f"{url}&backend=webgpu")
        page.wait_for_function("/webgpu|none/.test(document.querySelector('#backend').textContent)")
        if page.inner_text("#backend") == "none":
            pytest.skip("this Chromium imitates no GPU")
        restored = _restore(page, frame, 6.0)
    expected = restore.restore_frames(
        engines.load(model), frame[None], quantiser.constant_map(*frame.shape[:2], 6.0)[None]
    )[0]
    difference = np.abs(restored.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


# Playing.

# The frames that were sent to the worker and have not come back.
_COUNT_WAITING = """
    window.mostWaiting = 0;
    let waiting = 0;
    window.Worker = class extends Worker {
      constructor(...parameters) {
        super(...parameters);
        this.addEventListener("message", () => waiting--);
      }
      postMessage(...parameters) {
        window.mostWaiting = Math.max(window.mostWaiting, ++waiting);
        super.postMessage(...parameters);
      }
    };
"""


def test_a_video_plays_and_is_restored(ort, model, webm, browser):
    with _served(ort, model, webm) as url, _page(browser) as page:
        page.goto(url)
        page.wait_for_function("Number(document.querySelector('#fps').textContent) > 0")
        assert re.fullmatch(r"wasm, [1-4] threads?", page.inner_text("#backend"))
        assert page.inner_text("#size") == "357 × 211"
        assert _number(page, "milliseconds") > 0
        assert page.is_hidden("#trouble") and page.inner_text("#hint") == ""
        compressed, restored, again = _shown(page)
        assert restored.shape == (211, 357, 4)
        np.testing.assert_array_equal(restored, again)
        assert np.abs(restored.astype(int) - compressed).max() > 2
        # Of the file's frames, one is what is shown; browser and PyAV turn YUV into RGB each in their way.
        decoded = np.stack([colour.to_rgb(each.image) for each in video.read_frames(webm, quantisers=False)])
        distances = np.abs(decoded.astype(int) - compressed[..., :3]).mean(axis=(1, 2, 3))
        assert distances.min() < 2 < np.median(distances)


def test_controls(ort, model, webm, browser):
    with _served(ort) as url, _page(browser, viewport={"width": 1920, "height": 1080}) as page:
        page.goto(url)
        assert page.inner_text("#hint") == "Choose a model and a video below."
        page.set_input_files("#video-file", webm)
        assert page.inner_text("#hint") == "Choose a model below."
        page.set_input_files("#model-file", model)
        page.wait_for_function("document.querySelector('#frame').classList.contains('restoring')")
        assert page.inner_text("#hint") == ""

        # What a remote has: arrows and OK.
        box = page.locator("#frame").bounding_box()
        assert box["width"] == pytest.approx(box["height"] * 357 / 211, abs=2)
        for key, shown in [("ArrowLeft", "48"), ("Home", "0"), ("ArrowLeft", "0"), ("End", "100"), ("ArrowLeft", "98")]:
            page.keyboard.press(key)
            assert page.get_attribute("#frame", "aria-valuenow") == shown
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 60)
        page.mouse.up()
        page.mouse.move(box["x"], box["y"])
        assert page.get_attribute("#frame", "aria-valuenow") == "25"
        assert page.evaluate("getComputedStyle(document.querySelector('#restored')).clipPath").startswith(
            "inset(0px 0px 0px 25"
        )

        page.keyboard.press("Enter")
        # The button hears of it by an event, a little later than the video knows.
        page.wait_for_function("document.querySelector('#play').textContent == 'Play'")
        assert page.evaluate("document.querySelector('#video').paused")
        before = _settled(page)
        for _ in range(3):
            page.keyboard.press("ArrowUp")
        assert page.inner_text("#step-value") == "26.0, as H.264 at QP 40"
        # The frame on the screen is restored anew, at the last of the steps that came while the network was busy.
        after = _settled(page)
        np.testing.assert_array_equal(after[0], before[0])
        assert (before[1] != after[1]).any()
        page.click("#play")
        page.wait_for_function("!document.querySelector('#video').paused")


def test_the_strength_is_that_of_the_library(ort, browser):
    with _served(ort) as url, _page(browser) as page:
        page.goto(url)
        limits = page.evaluate("['min', 'max', 'value'].map(name => Number(document.querySelector('#step')[name]))")
        assert limits == [quantiser.MINIMUM_LOG2_STEP, quantiser.MAXIMUM_LOG2_STEP, quantiser.DEFAULT_LOG2_STEP]
        page.goto(f"{url}?step=6.5")
        assert page.input_value("#step") == "6.5"
        assert page.inner_text("#step-value").endswith("H.264 at QP 43")
        assert quantiser.log2_step_from_qp(np.float32(43), "h264") == 6.5
        page.goto(f"{url}?step=8")
        assert page.inner_text("#step-value") == "28.0"


def test_frames_that_come_too_fast_are_dropped(tmp_path, ort, model, browser):
    clip = _write_webm(tmp_path / "large.webm", (1280, 720), 25)
    with _served(ort, model, clip) as url, _page(browser) as page:
        page.add_init_script(_COUNT_WAITING)
        page.goto(f"{url}&threads=1")
        page.wait_for_function("Number(document.querySelector('#dropped').textContent) > 20")
        page.wait_for_function("Number(document.querySelector('#fps').textContent) > 0")
        assert page.inner_text("#backend") == "wasm, 1 thread"
        assert page.evaluate("mostWaiting") == 1
        assert 0 < _number(page, "fps") < 25


def test_without_isolation_there_is_one_thread(ort, model, frames, browser):
    """What `python -m http.server` and most hosts give."""
    with _served(ort, model) as url, _page(browser) as page:

        def without_headers(route):
            answer = route.fetch()
            kept = {name: value for name, value in answer.headers.items() if not name.startswith("cross-origin")}
            route.fulfill(response=answer, headers=kept)

        page.route("**/*", without_headers)
        page.goto(url)
        _ready(page)
        assert not page.evaluate("crossOriginIsolated")
        assert page.inner_text("#backend") == "wasm, 1 thread"
        assert (_restore(page, frames[0, :40, :50].copy(), 4.5) != frames[0, :40, :50]).any()


# What goes wrong.


def _trouble(page):
    page.locator("#trouble").wait_for()
    found = page.inner_text("#trouble")
    assert "\n" not in found and len(found) < 400
    return found


def test_a_model_that_cannot_be_loaded(tmp_path, ort, browser):
    (tmp_path / "garbage.onnx").write_bytes(b"not a model" * 100)
    other = _line_model(tmp_path / "other.onnx", names=("picture",))
    luma = _line_model(tmp_path / "luma.onnx", shape=("n", "h", "w", 1))
    good = _line_model(tmp_path / "good.onnx")
    with _served(ort) as url, _page(browser) as page:
        page.goto(f"{url}?model=files/missing.onnx")
        assert _trouble(page) == "The model missing.onnx cannot be loaded: the server answers 404."
        assert page.inner_text("#backend") == "none"
        # A second trouble does not hide the first.
        page.set_input_files("#video-file", tmp_path / "garbage.onnx")
        page.wait_for_function("document.querySelector('#trouble').textContent.includes('video garbage.onnx')")
        assert "missing.onnx" in _trouble(page)
        for path, reason in [
            (tmp_path / "garbage.onnx", "protobuf parsing failed"),
            (other, "expected the inputs images, of 3 channels, and quantiser_map; it has picture"),
            (luma, "expected the inputs images, of 3 channels"),
        ]:
            page.set_input_files("#model-file", path)
            page.wait_for_function(
                "text => document.querySelector('#trouble').textContent.includes(text)", arg=f"model {path.name}"
            )
            assert reason in _trouble(page)
        page.set_input_files("#model-file", good)
        _ready(page)
        assert _trouble(page).startswith("The browser cannot play the video garbage.onnx: ")


def test_a_video_that_cannot_be_played(tmp_path, ort, webm, browser):
    good = _line_model(tmp_path / "good.onnx")
    (tmp_path / "garbage.mp4").write_bytes(b"not a video" * 100)
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(8000))
    with _served(ort, good) as url, _page(browser) as page:
        page.goto(f"{url}&video=files/missing.webm")
        assert _trouble(page).startswith("The browser cannot play the video missing.webm: ")
        for name, start in [
            ("garbage.mp4", "The browser cannot play the video garbage.mp4: "),
            ("sound.wav", "The browser finds no pictures in sound.wav."),
        ]:
            page.set_input_files("#video-file", tmp_path / name)
            page.wait_for_function("text => document.querySelector('#trouble').textContent.includes(text)", arg=name)
            assert _trouble(page).startswith(start)
        page.set_input_files("#video-file", webm)
        page.wait_for_function("document.querySelector('#frame').classList.contains('restoring')")
        assert page.is_hidden("#trouble")


def test_a_network_for_another_size(tmp_path, ort, webm, browser):
    fixed = _line_model(tmp_path / "fixed.onnx", shape=(1, 16, 16, 3))
    with _served(ort, fixed, webm) as url, _page(browser) as page:
        page.goto(url)
        assert _trouble(page).startswith("The network cannot restore 357 × 211: ")
        assert page.inner_text("#backend") == "stopped"


def test_a_canvas_that_sees_only_black(tmp_path, ort, webm, browser):
    good = _line_model(tmp_path / "good.onnx")
    with av.open(str(tmp_path / "black.webm"), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        black = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24").reformat(format="yuv420p")
        for index in range(30):
            black.pts, black.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(black))
        container.mux(stream.encode(None))
    with _served(ort, good, tmp_path / "black.webm") as url, _page(browser) as page:
        page.goto(url)
        assert _trouble(page).startswith("The page sees only black: ")
        page.set_input_files("#video-file", webm)
        page.locator("#trouble").wait_for(state="hidden")


# The server.


def _ask(url, path, **headers):
    parts = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()


@pytest.fixture
def builds(tmp_path):
    """A folder as onnxruntime-web's, for the server alone."""
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "ort.wasm.min.mjs").write_text("export {};")
    return folder


def test_the_server_isolates_the_page_and_sends_parts(tmp_path, builds):
    (tmp_path / "a b.webm").write_bytes(bytes(range(100)))
    with _served(builds, tmp_path / "a b.webm") as url:
        assert urlsplit(url).hostname == "127.0.0.1" and urlsplit(url).query == "video=files/a%2520b.webm"
        for path, kind in [
            ("/", "text/html"),
            ("/page.js", "text/javascript"),
            ("/ort/ort.wasm.min.mjs", "text/javascript"),
        ]:
            status, headers, _ = _ask(url, path)
            assert (status, headers["Content-Type"].split(";")[0]) == (200, kind)
            assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert _ask(url, "/files/a%20b.webm")[2] == bytes(range(100))
        for wanted, start, end in [("bytes=90-", 90, 100), ("bytes=5-9", 5, 10), ("bytes=50-900", 50, 100)]:
            status, headers, body = _ask(url, "/files/a%20b.webm", Range=wanted)
            assert (status, body) == (206, bytes(range(start, end)))
            assert headers["Content-Range"] == f"bytes {start}-{end - 1}/100"
        assert _ask(url, "/files/a%20b.webm", Range="bytes=100-")[0] == 416
        for path in [
            "/serve.py",
            "/files/",
            "/files/other",
            "/ort/../serve.py",
            "/ort/%2e%2e/a%20b.webm",
            "/ort/",
        ]:
            assert _ask(url, path)[0] == 404


def test_the_program(tmp_path, builds):
    (tmp_path / "a.onnx").write_bytes(b"")
    command = [sys.executable, FOLDER / "serve.py", "--port=0"]
    for arguments, reason in [
        ([], "npm install --prefix"),
        ([f"--ort={builds}", tmp_path / "b.onnx"], "there is no file"),
        ([f"--ort={builds}", tmp_path / "a.onnx", tmp_path / "dist" / ".." / "a.onnx"], "files of different names"),
        ([f"--ort={builds}", "--port=70000"], "cannot listen on 127.0.0.1, port 70000"),
    ]:
        if not arguments and serve.ORT.exists():
            continue
        failed = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert failed.returncode == 2 and failed.stdout == ""
        assert failed.stderr.startswith("error: ") and failed.stderr.count("\n") == 1 and reason in failed.stderr
    with subprocess.Popen(
        [*command, f"--ort={builds}", tmp_path / "a.onnx"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        url = running.stdout.readline().split()[0]
        assert url.endswith("/?model=files/a.onnx") and _ask(url, "/")[0] == 200
        running.send_signal(signal.SIGINT)
        assert (running.wait(10), running.stderr.read()) == (0, "")


def test_the_runtime_is_pinned():
    assert re.fullmatch(r"\d+\.\d+\.\d+", PINNED)
