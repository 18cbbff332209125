import importlib.resources
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from keras_deartifact import cli, demo, engines, stills, video

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = importlib.resources.files("keras_deartifact") / "pretrained" / f"{engines.DEFAULT_MODEL}.tflite"

needs_shipped_model = pytest.mark.skipif(not SHIPPED.is_file(), reason=f"needs the model {engines.DEFAULT_MODEL}")


def identity(frames, quantiser_map=None):
    return frames


@pytest.fixture
def restorer(monkeypatch):
    """Puts a restorer in the place of whatever model is asked for."""

    def use(function):
        monkeypatch.setattr(engines, "load", lambda *arguments: function)

    use(identity)
    return use


def picture(path, photo, **options):
    Image.fromarray(photo(40, 48)).save(path, **options)
    return path


def clip(path, codec="libx264", pix_fmt="yuv420p", count=8, options=None):
    rng = np.random.default_rng(0)
    blocks = rng.integers(40, 216, (8, 12, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 96, 64, pix_fmt
        for index in range(count):
            moved = np.ascontiguousarray(np.roll(blocks, 2 * index, 1))
            frame = av.VideoFrame.from_ndarray(moved, format="rgb24")
            frame.time_base, frame.pts = Fraction(1, 25), index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def cut(path, source, share):
    path.write_bytes(source.read_bytes()[: int(source.stat().st_size * share)])
    source.unlink()
    return path


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def assert_one_line(err, start="deartifact: error: "):
    assert err.startswith(start)
    assert err.count("\n") == 1 and err.endswith("\n")
    assert "Traceback" not in err


# The parser.


def test_help_is_light():
    code = (
        "import sys; from keras_deartifact import cli; code = cli.main(['--help']); print(*sys.modules); sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    loaded = {name.split(".")[0] for name in result.stdout.splitlines()[-1].split()}
    assert not loaded & {"tensorflow", "keras", "av", "numpy", "PIL", "ai_edge_litert", "tqdm"}
    assert "restore" in result.stdout and "Exit code" in result.stdout


def test_restoring_needs_no_tensorflow(tmp_path, photo):
    picture(tmp_path / "a.jpg", photo)
    code = (
        "import sys; from keras_deartifact import cli, engines; engines.load = lambda *_: lambda frames, maps: frames;"
        "assert cli.main(['restore', 'a.jpg', '-o', 'b.png']) == 0; print(*sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert not {name.split(".")[0] for name in result.stdout.split()} & {"tensorflow", "keras"}


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nothing"],
        ["restore", "a.jpg"],
        ["restore", "a.jpg", "-o", "b.jpg", "--strength", "2.5"],
        ["restore", "a.jpg", "-o", "b.jpg", "--strength", "nan"],
        ["restore", "a.jpg", "-o", "b.jpg", "--threads", "0"],
        ["restore", "a.jpg", "-o", "b.jpg", "--engine", "steam"],
        ["restore", "a.jpg", "-o", "b.jpg", "--provider", "steam"],
        ["restore", "a.jpg", "-o", "b.png", "--bits", "12"],
    ],
)
def test_wrong_arguments_are_one_line(run, argv):
    code, out, err = run(*argv)
    assert code == 2 and out == ""
    assert_one_line(err)
    assert "--help" in err


def test_version(run):
    assert run("--version")[:2] == (0, f"deartifact {cli.__version__}\n")


# Engines.


@pytest.fixture
def pretrained(tmp_path, monkeypatch):
    """A folder of models that ship, with the default one as LiteRT has it, and a cache that is empty."""
    folder = tmp_path / "pretrained"
    folder.mkdir()
    for suffix in (".tflite", ".json"):
        (folder / f"{engines.DEFAULT_MODEL}{suffix}").write_bytes(SHIPPED.with_suffix(suffix).read_bytes())
    (folder / f"{engines.PREDICTOR}.tflite").write_bytes(engines.predictor_path().read_bytes())
    monkeypatch.setattr(engines.shipped, "FOLDER", folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def onnx_identity(path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    number = onnx.TensorProto.FLOAT
    values = {
        name: onnx.helper.make_tensor_value_info(name, number, [None, None, None, channels])
        for name, channels in (("images", 3), ("quantiser_map", 1), ("restored", 3))
    }
    node = onnx.helper.make_node("Identity", ["images"], ["restored"])
    inputs, outputs = [values["images"], values["quantiser_map"]], [values["restored"]]
    graph = onnx.helper.make_graph([node], "identity", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(model.SerializeToString())


@needs_shipped_model
def test_the_choice_of_an_engine_is_told(tmp_path, run, pretrained, photo):
    source, target = picture(tmp_path / "a.jpg", photo), tmp_path / "b.png"
    assert run("restore", source, "-o", target)[2] == ""
    assert not (tmp_path / "cache").exists()
    onnx_identity(pretrained / f"{engines.DEFAULT_MODEL}.onnx")
    for _ in range(2):
        code, out, err = run("restore", source, "-o", target, "--overwrite")
        assert code == 0 and out.count("\n") == 1
        # What changes nothing is the fastest.
        assert_one_line(err, "deartifact: engine: onnx, ")
        assert " fps at 256x256 (litert " in err
        np.testing.assert_array_equal(stills.read(target).pixels, stills.read(source).pixels)
    assert run("restore", source, "-o", target, "--overwrite", "--engine", "litert")[2] == ""
    assert not np.array_equal(stills.read(target).pixels, stills.read(source).pixels)
    lines = run("models", "--engines")[1].splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == ["  litert", "  onnx"]
    assert all(line.endswith(" fps at 256x256") for line in lines[1:])


@needs_shipped_model
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "keras"], "has no form for the engine 'keras', only for litert"),
        (["--provider", "cpu"], "Only the engine 'onnx' has providers. Received: engine='litert', provider='cpu'"),
    ],
)
def test_an_engine_that_cannot_be_had_is_one_line(options, message, tmp_path, run, pretrained, photo):
    code, out, err = run("restore", picture(tmp_path / "a.jpg", photo), "-o", tmp_path / "b.png", *options)
    assert (code, out) == (2, "")
    assert_one_line(err)
    assert message in err


@needs_shipped_model
def test_a_damaged_model_is_one_line(tmp_path, run, photo):
    source = picture(tmp_path / "a.jpg", photo)
    model = cut(tmp_path / "cut.tflite", Path(shutil.copy(SHIPPED, tmp_path / "whole.tflite")), 0.9)
    code, out, err = run("restore", source, "-o", tmp_path / "b.png", "--model", model)
    assert (code, out) == (2, "")
    assert_one_line(err)
    assert "cut.tflite is no model that the engine 'litert' can load" in err


# Restoring.


def test_a_picture(tmp_path, run, restorer, photo):
    source = picture(tmp_path / "a.jpg", photo, quality=30)
    code, out, err = run("restore", source, "-o", tmp_path / "b.png")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1 and "b.png: 48x40" in out
    np.testing.assert_array_equal(stills.read(tmp_path / "b.png").pixels, stills.read(source).pixels)


def test_a_video(tmp_path, run, restorer):
    source = clip(tmp_path / "a.mp4")
    code, out, err = run("restore", source, "-o", tmp_path / "b.mkv", "--codec", "libx264", "--crf", "10")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1 and "b.mkv: 8 frames" in out and "inference busy" in out and "libx264" in out


def test_interlaced_video_stays_so_unless_told(tmp_path, run, restorer):
    source = clip(tmp_path / "in.mp4", options={"flags": "+ildct+ilme"})
    for name, arguments, interlaced in (("a.mp4", (), True), ("b.mp4", ("--deinterlace",), False)):
        code, out, err = run("restore", source, "-o", tmp_path / name, *arguments)
        assert (code, err) == (0, "") and "8 frames" in out
        assert video.probe(tmp_path / name).interlaced == interlaced
    code, out, err = run("restore", source, "-o", tmp_path / "c.mp4", "--codec", "libx265")
    assert (code, out) == (2, "")
    assert_one_line(err)
    assert "--deinterlace" in err


def test_into_a_folder(tmp_path, run, restorer, photo):
    source = picture(tmp_path / "a.bmp", photo)
    assert run("restore", source, "-o", f"{tmp_path / 'new'}/")[0] == 0
    assert names(tmp_path / "new") == ["a.bmp.png"]


def test_existing_files_are_kept_unless_told(tmp_path, run, restorer, photo):
    source = picture(tmp_path / "a.jpg", photo)
    target = tmp_path / "b.png"
    target.write_bytes(b"old")
    code, _, err = run("restore", source, "-o", target)
    assert code == 2 and target.read_bytes() == b"old"
    assert_one_line(err)
    assert "--overwrite" in err
    assert run("restore", source, "-o", target, "--overwrite")[0] == 0
    assert target.read_bytes() != b"old"
    before = source.read_bytes()
    code, _, err = run("restore", source, "-o", source, "--overwrite")
    assert code == 2 and "another file than the source" in err
    assert source.read_bytes() == before


def test_strength_and_quality_arrive(tmp_path, run, restorer, photo):
    restorer(lambda frames, quantiser_map: frames + np.float32(20 / 255))
    Image.fromarray(np.full((16, 16, 3), 100, np.uint8)).save(tmp_path / "a.png")
    run("restore", tmp_path / "a.png", "-o", tmp_path / "b.png", "--strength", "0.5")
    assert (stills.read(tmp_path / "b.png").pixels == 110).all()
    source = picture(tmp_path / "c.png", photo)
    for quality in ("50", "98"):
        assert run("restore", source, "-o", tmp_path / f"{quality}.jpg", "--quality", quality)[0] == 0
    assert (tmp_path / "50.jpg").stat().st_size < (tmp_path / "98.jpg").stat().st_size / 2


def test_a_folder_is_mirrored(tmp_path, run, restorer, photo):
    source, target = tmp_path / "in", tmp_path / "in" / "out"
    (source / "deep" / "er").mkdir(parents=True)
    picture(source / "a.jpg", photo)
    picture(source / "deep" / "b.gif", photo)
    clip(source / "deep" / "er" / "c.mp4", count=3)
    (source / "notes.txt").write_text("nothing to see\n" * 9)
    (source / "deep" / "bad.mp4").write_bytes(b"nothing to see" * 9)
    cut(source / "cut.mkv", clip(tmp_path / "whole.mkv", count=40, options={"g": "5"}), 0.6)
    code, out, err = run("restore", source, "-o", target)
    assert code == 2
    assert names(target) == ["a.jpg", "cut.mkv", "deep/b.gif.png", "deep/er/c.mp4"]
    assert out.splitlines()[-1].endswith("out: 3 restored, 1 incomplete, 1 skipped, 1 failed")
    assert "notes.txt: skipped, neither an image nor a video" in out
    assert [line.split(":")[1].strip() for line in err.splitlines()] == ["warning", "error"]
    assert "cut.mkv" in err.splitlines()[0] and "bad.mp4" in err.splitlines()[1]
    (source / "deep" / "bad.mp4").unlink()
    # What exists is left as it is, so that a run can be taken up again.
    (target / "a.jpg").unlink()
    code, out, err = run("restore", source, "-o", target)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].endswith("out: 1 restored, 0 incomplete, 4 skipped, 0 failed")


def test_a_folder_into_itself_or_a_file(tmp_path, run, restorer, photo):
    source = picture(tmp_path / "a.jpg", photo)
    for target in (tmp_path, source):
        code, _, err = run("restore", tmp_path, "-o", target)
        assert code == 2
        assert_one_line(err)
    assert names(tmp_path) == ["a.jpg"]


# Archives.


def test_cmyk_is_kept_and_described(tmp_path, run, restorer, photo):
    Image.fromarray(photo(40, 48)).convert("CMYK").save(tmp_path / "a.jpg", quality=60)
    code, out, err = run("probe", tmp_path / "a.jpg")
    assert (code, err) == (0, "")
    assert "CMYK" in out and "table of component 3" in out
    assert run("restore", tmp_path / "a.jpg", "-o", tmp_path / "b.jpg")[0] == 0
    with Image.open(tmp_path / "b.jpg") as new:
        assert new.mode == "CMYK"
    code, _, err = run("restore", tmp_path / "a.jpg", "-o", tmp_path / "b.png")
    assert code == 2 and "expected JPEG or TIFF" in err
    assert_one_line(err)
    assert names(tmp_path) == ["a.jpg", "b.jpg"]


def test_16_bits_of_a_folder(tmp_path, run, restorer, photo):
    (tmp_path / "in").mkdir()
    picture(tmp_path / "in" / "a.jpg", photo)
    picture(tmp_path / "in" / "b.png", photo)
    code, _, err = run("restore", tmp_path / "in", "-o", tmp_path / "out", "--bits", "16")
    assert (code, err) == (0, "")
    assert names(tmp_path / "out") == ["a.jpg.png", "b.png"]
    assert all(stills.read(path).pixels.dtype == np.uint16 for path in (tmp_path / "out").iterdir())


def test_what_a_container_cannot_hold_is_named_before_work_starts(tmp_path, run, restorer):
    titles = tmp_path / "a.srt"
    titles.write_text("1\n00:00:00,040 --> 00:00:00,200\nBonjour\n")
    plain = clip(tmp_path / "plain.mkv")
    (tmp_path / "in").mkdir()
    source = tmp_path / "in" / "a.mkv"
    with av.open(str(plain)) as old, av.open(str(titles)) as text, av.open(str(source), "w") as new:
        copies = [new.add_stream_from_template(each.streams[0], opaque=True) for each in (old, text)]
        new.add_attachment("font.ttf", "application/x-truetype-font", b"not a font")
        for container, copy in zip((old, text), copies, strict=True):
            for packet in container.demux():
                if packet.size:
                    packet.stream = copy
                    new.mux(packet)
    frames = []

    def counting(images, quantiser_map=None):
        frames.append(len(images))
        return images

    restorer(counting)
    code, out, err = run("restore", source, "-o", tmp_path / "b.mp4")
    assert (code, out) == (2, "")
    assert_one_line(err)
    assert "subtitle stream 1 (subrip), attachment stream 2 (font.ttf)" in err
    assert "write .mkv instead" in err and "--drop" in err and str(tmp_path / "b.mp4") in err
    # The trial of a network that was loaded.
    assert frames == [1]
    code, out, err = run("restore", source, "-o", tmp_path / "b.mp4", "--drop")
    left_out = [
        "subtitle stream 1 (subrip), which .mkv can hold",
        "attachment stream 2 (font.ttf), which .mkv can hold",
    ]
    assert code == 0
    assert err.splitlines() == [f"deartifact: left out: {each}" for each in left_out]
    assert out.endswith(f"; left out: {', '.join(left_out)}\n")
    code, out, err = run("restore", source, "-o", tmp_path / "b.mkv")
    assert (code, err) == (0, "") and "left out" not in out
    assert [other.kind for other in video.probe(tmp_path / "b.mkv").others] == ["subtitle", "attachment"]


# Bad input.


def bad_inputs(folder, photo):
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video\n" * 30)
    (folder / "text.txt").write_text("not a video\n" * 30)
    cut(folder / "cut.jpg", picture(folder / "whole.jpg", photo), 0.6)
    cut(folder / "cut.png", picture(folder / "whole.png", photo), 0.6)
    cut(folder / "index.mp4", clip(folder / "whole.mp4"), 0.6)
    clip(folder / "gray16le.mkv", "ffv1", "gray16le")
    Image.new("LAB", (16, 16)).save(folder / "lab.tif")
    frames = [Image.fromarray(photo(16, 16, seed)) for seed in (0, 1)]
    frames[0].save(folder / "moving.avif", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.mp4", "there is no file"),
        ("empty.mp4", "is empty"),
        ("text.mp4", "expected a picture or a video"),
        ("text.txt", "expected a picture or a video"),
        ("cut.jpg", "whole image file"),
        ("cut.png", "whole image file"),
        ("index.mp4", "cut off before its index"),
        ("gray16le.mkv", "convert it first"),
        ("lab.tif", "not mode LAB"),
        ("moving.avif", "one still picture"),
    ],
)
@pytest.mark.parametrize("command", ["restore", "probe"])
def test_bad_input_is_one_line(tmp_path, run, restorer, photo, command, name, message):
    bad_inputs(tmp_path, photo)
    before = {each: (tmp_path / each).read_bytes() for each in names(tmp_path)}
    if command == "probe":
        if name in ("gray16le.mkv",):
            pytest.skip("can be described")
        code, out, err = run("probe", tmp_path / name)
    else:
        code, out, err = run("restore", tmp_path / name, "-o", tmp_path / f"out{Path(name).suffix}")
    assert (code, out) == (2, "")
    assert_one_line(err)
    assert message in err and name in err or name == "gray16le.mkv"
    assert {each: (tmp_path / each).read_bytes() for each in names(tmp_path)} == before


@pytest.mark.parametrize("target", ["missing/b.mp4", "a.mp4/b.mp4", "b.avi", "b.jpg", "b.xyz", "b"])
def test_a_target_that_cannot_be_is_one_line(tmp_path, run, restorer, target):
    source = clip(tmp_path / "a.mp4")
    code, out, err = run("restore", source, "-o", tmp_path / target)
    assert (code, out) == (2, "")
    assert_one_line(err)
    assert names(tmp_path) == ["a.mp4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_line(tmp_path, run, restorer):
    source = clip(tmp_path / "a.mp4")
    (tmp_path / "locked").mkdir(mode=0o500)
    code, _, err = run("restore", source, "-o", tmp_path / "locked" / "b.mp4")
    assert code == 2
    assert_one_line(err)
    assert "permissions" in err


@pytest.mark.parametrize(
    ("name", "suffix"), [("a.mp4", ".mp4"), ("a.mp4", ".mkv"), ("a.mp4", ".ts"), ("a.png", ".png")]
)
def test_a_full_disk_is_one_line(tmp_path, capsys, restorer, photo, name, suffix):
    source = picture(tmp_path / name, photo) if name == "a.png" else clip(tmp_path / name, count=40)
    target = tmp_path / f"b{suffix}"
    before = source.read_bytes()
    argv = ["restore", str(source), "-o", str(target), "--codec", "ffv1"]
    if suffix != ".mkv":
        del argv[-2:]
    assert cli.main(argv) == 0
    size = target.stat().st_size
    target.unlink()
    capsys.readouterr()
    for limit in (1, size // 2, size - size // 10):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        # Writing past it is refused as on a full disk, with another number.
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            code = cli.main(argv)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        out, err = capsys.readouterr()
        assert (code, out) == (2, "")
        # All frames of a video may be encoded before it is too large as a whole.
        if ".deartifact-" in "".join(names(tmp_path)):
            kept, err = err.split("\n", 1)
            assert kept == "deartifact: 40 frames are done and kept; the same command goes on after them"
        else:
            assert names(tmp_path) == [name]
        assert_one_line(err)
        assert "File too large" in err and target.name in err
        assert source.read_bytes() == before
    assert cli.main(argv) == 0
    assert names(tmp_path) == sorted([name, target.name]) and target.stat().st_size == size


def test_a_full_disk_says_so(tmp_path, run, restorer, photo, monkeypatch):
    source = picture(tmp_path / "a.png", photo)

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    code, _, err = run("restore", source, "-o", tmp_path / "b.png")
    assert code == 2
    assert_one_line(err)
    assert "No space left on device" in err and "b.png" in err and "free some space" in err
    assert names(tmp_path) == ["a.png"]


def test_a_video_that_breaks_off(tmp_path, run, restorer):
    source = cut(tmp_path / "a.mkv", clip(tmp_path / "whole.mkv", count=50, options={"g": "5"}), 0.6)
    code, out, err = run("restore", source, "-o", tmp_path / "b.mkv")
    assert code == 3
    assert_one_line(err, "deartifact: warning: ")
    assert "breaks off" in err
    assert "INCOMPLETE" in out.splitlines()[-1]
    with av.open(str(tmp_path / "b.mkv")) as container:
        assert 10 < sum(1 for _ in container.decode(video=0)) < 50


def test_an_interruption(tmp_path, run, restorer):
    def interrupted(frames, quantiser_map):
        if frames.shape[1] > 16:
            raise KeyboardInterrupt
        return frames

    restorer(interrupted)
    source = clip(tmp_path / "a.mp4")
    code, _, err = run("restore", source, "-o", tmp_path / "b.mp4")
    assert code == 130
    assert_one_line(err, "deartifact: interrupted")
    assert names(tmp_path) == ["a.mp4"]


def test_an_interrupted_video_goes_on(tmp_path, run, restorer, monkeypatch):
    from keras_deartifact.restore import plan

    monkeypatch.setattr(plan, "FRAMES", 5)
    source, target = clip(tmp_path / "a.mp4", count=30), tmp_path / "b.mp4"
    calls = []

    def network(frames, quantiser_map):
        calls.append(frames.shape[1] > 16)
        if sum(calls) == 20:
            raise KeyboardInterrupt
        return frames

    restorer(network)
    code, out, err = run("restore", source, "-o", target)
    assert (code, out) == (130, "")
    kept, farewell = err.splitlines()
    number = int(kept.split()[1])
    assert kept == f"deartifact: {number} frames are done and kept; the same command goes on after them" and number >= 5
    assert farewell == "deartifact: interrupted; what was not finished is not kept"
    code, _, err = run("restore", source, "-o", target, "--crf", "20")
    assert code == 2
    assert_one_line(err)
    assert "with another crf (14 then, 20.0 now); go on with what it had then, or begin anew" in err
    code, out, err = run("restore", source, "-o", target)
    assert (code, err) == (0, "")
    assert "30 frames in" in out and f"the first {number} are of an earlier run" in out
    first = target.read_bytes()
    assert run("restore", source, "-o", target, "--overwrite")[0] == 0
    assert target.read_bytes() == first
    assert names(tmp_path) == ["a.mp4", "b.mp4"]


def test_our_own_errors_keep_their_traceback(tmp_path, run, restorer):
    def wrong(frames, quantiser_map):
        raise RuntimeError("a bug")

    restorer(lambda frames, quantiser_map: frames if frames.shape[1] == 16 else wrong(frames, quantiser_map))
    source = clip(tmp_path / "a.mp4")
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["restore", str(source), "-o", str(tmp_path / "b.mp4")])
    assert names(tmp_path) == ["a.mp4"]


def test_our_own_errors_do_not_stop_a_folder(tmp_path, run, restorer, photo):
    def wrong(frames, quantiser_map):
        if frames.shape[1] == 64:
            raise RuntimeError("a bug")
        return frames

    restorer(wrong)
    (tmp_path / "in").mkdir()
    clip(tmp_path / "in" / "a.mp4")
    picture(tmp_path / "in" / "b.png", photo)
    (tmp_path / "in" / "c.jpg").write_bytes(b"nothing to see" * 9)
    code, out, err = run("restore", tmp_path / "in", "-o", tmp_path / "out")
    assert code == 2
    assert names(tmp_path / "out") == ["b.png"]
    assert err.count("Traceback") == 1 and "deartifact: error: " in err and "a.mp4: RuntimeError: a bug\n" in err
    assert out.splitlines()[-1].endswith("1 restored, 0 incomplete, 0 skipped, 2 failed")


def test_debug_shows_where_an_error_comes_from(tmp_path, run, restorer):
    with pytest.raises(FileNotFoundError):
        cli.main(["restore", str(tmp_path / "missing.mp4"), "-o", str(tmp_path / "b.mp4"), "--debug"])


def test_a_model_that_is_none(tmp_path, run, photo):
    source = picture(tmp_path / "a.jpg", photo)
    (tmp_path / "bad.tflite").write_bytes(b"no model")
    for model in (tmp_path / "missing.tflite", tmp_path / "bad.tflite", "nonesuch", source):
        code, _, err = run("restore", source, "-o", tmp_path / "b.png", "--model", model)
        assert code == 2
        assert_one_line(err)
    assert names(tmp_path) == ["a.jpg", "bad.tflite"]


# The other commands.


def test_probe(tmp_path, run, photo):
    source = picture(tmp_path / "a.jpg", photo, quality=35)
    code, out, err = run("probe", source, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["estimated_quality"] == 35
    code, out, err = run("probe", source)
    assert (code, err) == (0, "")
    assert [line.split()[-1] for line in out.splitlines() if line.startswith("estimated quality:")] == ["35"]
    code, out, _ = run("probe", clip(tmp_path / "a.mp4"), "--json")
    assert code == 0 and json.loads(out)["qp"]["mean"] > 0


def test_demo_with_a_network_that_changes_nothing(tmp_path, run, restorer, monkeypatch):
    short = tmp_path / "short.mkv"
    with video.VideoWriter(short, demo.CLIP, codec="ffv1") as writer:
        for frame in itertools.islice(video.read_frames(demo.CLIP), 5):
            writer.write(frame.image)
    monkeypatch.setattr(demo, "CLIP", short)
    code, out, err = run("demo", "-o", tmp_path / "demo")
    assert (code, err) == (0, "")
    assert names(tmp_path / "demo") == ["after.mp4", "before.mp4", "side-by-side.png"]
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith(("before", "after", "gain"))}
    assert float(rows["before.mp4"][1]) < 32
    # The second encode alone costs little.
    assert -0.1 < float(rows["gain"][1]) < 0.1
    assert "fps" in out and "Blender Foundation" in out
    with Image.open(tmp_path / "demo" / "side-by-side.png") as sheet:
        assert sheet.size == (1440, 510)


def test_models(run, monkeypatch):
    monkeypatch.setattr(engines, "pretrained_models", lambda: ["shuffle_nano", "shuffle_pico"])
    monkeypatch.setattr(engines, "card", lambda name: {"description": f"the card of {name}"})
    code, out, _ = run("models")
    assert code == 0
    assert out.splitlines() == [
        "shuffle_nano (default): the card of shuffle_nano",
        "shuffle_pico: the card of shuffle_pico",
    ]


@needs_shipped_model
def test_the_shipped_model_helps(tmp_path, run):
    code, out, err = run("demo", "-o", tmp_path)
    assert code == 0
    # Where the model ships in several forms, it says which one runs.
    assert all(line.startswith("deartifact: engine: ") for line in err.splitlines())
    gain = next(line.split() for line in out.splitlines() if line.startswith("gain"))
    assert float(gain[1]) > 0 and float(gain[3]) > 0
    assert run("models")[1].startswith("shuffle_nano")
