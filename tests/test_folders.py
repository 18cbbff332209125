import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_deartifact import cli, engines
from keras_deartifact.cli import jobs, plan

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def restorer(monkeypatch):
    """Puts a restorer that changes nothing in the place of whatever model is asked for."""
    monkeypatch.setattr(engines, "load", lambda *arguments: lambda frames, quantiser_map=None: frames)


@pytest.fixture
def archive(tmp_path, photo, make_video):
    """A folder with pictures, a video, a text and a file that is broken."""
    folder = tmp_path / "in"
    (folder / "drafts" / "old").mkdir(parents=True)
    Image.fromarray(photo(40, 48)).save(folder / "a.jpg", quality=30)
    Image.fromarray(photo(40, 48)).save(folder / "drafts" / "b.gif")
    Image.fromarray(photo(40, 48)).save(folder / "drafts" / "old" / "C.JPG")
    make_video(folder / "d.mp4", times=[0, 40, 80])
    (folder / "notes.txt").write_text("nothing to see\n" * 9)
    (folder / "bad.mp4").write_bytes(b"nothing to see" * 9)
    return folder


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (None, None, ["a.jpg", "drafts/b.gif", "drafts/old/C.JPG", "d.mp4"]),
        (["*.jpg"], None, ["a.jpg", "drafts/old/C.JPG"]),
        (["*.jpg", "*.mp4"], None, ["a.jpg", "drafts/old/C.JPG", "d.mp4"]),
        (["*.jpg"], ["drafts/*"], ["a.jpg"]),
        (None, ["Drafts/"], ["a.jpg", "d.mp4"]),
        (["drafts/old"], None, ["drafts/old/C.JPG"]),
        (["./d.mp?"], None, ["d.mp4"]),
        (["a.jpg"], ["a.jpg"], []),
    ],
)
def test_chosen(include, exclude, expected):
    every = [Path(each) for each in ("a.jpg", "drafts/b.gif", "drafts/old/C.JPG", "d.mp4")]
    assert [name.as_posix() for name in plan.chosen(every, include, exclude)] == expected


def test_include_and_exclude(tmp_path, run, restorer, archive):
    target = tmp_path / "out"
    code, out, err = run("restore", archive, "-o", target, "--include", "*.jpg", "--exclude", "drafts/old")
    assert (code, err) == (0, "")
    assert names(target) == ["a.jpg"]
    assert out.splitlines()[-1].endswith("out: 1 restored, 0 incomplete, 0 skipped, 0 failed")
    code, out, err = run("restore", archive, "-o", target, "--include", "*.tiff")
    assert (code, out) == (2, "")
    assert "none of the 6 files matches" in err
    code, out, err = run("restore", archive / "a.jpg", "-o", tmp_path / "b.png", "--include", "*.jpg")
    assert (code, out) == (2, "")
    assert "--include needs a folder as input" in err


def test_a_dry_run(tmp_path, run, monkeypatch, archive):
    def refuse(*arguments):
        raise AssertionError("a dry run needs no network")

    monkeypatch.setattr(engines, "load", refuse)
    Image.fromarray(np.zeros((16, 16, 4), np.uint8), "CMYK").save(archive / "inks.jpg")
    before = names(tmp_path)
    target = tmp_path / "out"
    code, out, err = run("restore", archive, "-o", target, "--dry-run", "--codec", "libvpx-vp9", "--bits", "16")
    assert code == 2
    assert names(tmp_path) == before and not target.exists()
    lines = out.splitlines()
    assert f"[1/7] a.jpg: -> {target / 'a.jpg.png'}" in lines
    assert "[7/7] notes.txt: skipped, neither an image nor a video" in lines
    assert lines[-1] == f"{target}: 4 planned, 1 skipped, 2 failed"
    problems = err.splitlines()
    assert len(problems) == 2 and "bad.mp4" in problems[0] and "inks.jpg" in problems[1]
    assert "expected JPEG or TIFF" in problems[1]


def test_a_dry_run_of_one_file(tmp_path, run, archive):
    source, target = archive / "d.mp4", tmp_path / "new" / "d.webm"
    code, out, err = run("restore", source, "-o", target, "--dry-run", "--json", "-")
    assert code == 2 and out == "" and "webm" in err and str(target) in err and "Traceback" not in err
    code, out, err = run("restore", source, "-o", target, "--dry-run", "--drop", "--json", "-")
    assert code == 0
    assert err.startswith(f"deartifact: {source} -> {target}; left out: audio stream 1 (aac)")
    values = json.loads(out)
    assert values["files"][0]["status"] == "planned" and values["dry_run"] and values["model"] is None
    assert names(tmp_path) == [f"in/{name}" for name in names(archive)]


def test_json(tmp_path, run, restorer, archive):
    target, report = tmp_path / "out", tmp_path / "report.json"
    code, out, _ = run("restore", archive, "-o", target, "--json", report, "--strength", "0.5")
    assert code == 2 and out.count("\n") == 7
    values = json.loads(report.read_text("utf-8"))
    assert values["counts"] == {"restored": 4, "failed": 1, "skipped": 1}
    assert values["exit_code"] == 2 and values["strength"] == 0.5
    files = {Path(each["source"]).name: each for each in values["files"]}
    assert list(files) == ["a.jpg", "bad.mp4", "d.mp4", "b.gif", "C.JPG", "notes.txt"]
    picture, video = files["a.jpg"], files["d.mp4"]
    assert picture["target"] == str(target / "a.jpg") and picture["frames"] == 1 and picture["seconds"] > 0
    assert picture["found"]["format"] == "JPEG" and picture["found"]["width"] == 48
    assert picture["found"]["log2_step"] > 3 and picture["found"]["predicted_log2_step"] > 2
    assert video["frames"] == 3 and video["found"]["codec"] == "h264" and video["found"]["log2_step"]["mean"] > 0
    assert files["bad.mp4"]["status"] == "failed" and "complete" in files["bad.mp4"]["message"]
    # What is done already is said, too.
    code, out, err = run("restore", archive, "-o", target, "--json", "-")
    assert code == 2 and json.loads(out)["counts"] == {"skipped": 5, "failed": 1}
    assert err.count("exists already") == 4


def test_json_goes_where_it_can(tmp_path, run, restorer, archive):
    for report in (tmp_path / "missing" / "a.json", tmp_path, archive / "a.jpg"):
        code, out, err = run("restore", archive / "a.jpg", "-o", tmp_path / "b.png", "--json", report)
        assert (code, out) == (2, "") and "--json must name" in err
    assert names(tmp_path) == [f"in/{name}" for name in names(archive)]


def test_json_names_the_model(tmp_path, run, archive):
    code, out, _ = run("restore", archive / "a.jpg", "-o", tmp_path / "b.png", "--engine", "litert", "--json", "-")
    assert code == 0
    model = json.loads(out)["model"]
    assert model["name"] == "shuffle_nano.tflite" and model["engine"] == "litert"
    assert model["sha256"] == engines.digest(engines.pretrained_path(engines.DEFAULT_MODEL))


def test_two_files_do_not_get_one_name(tmp_path, run, restorer, photo):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(photo(16, 16)).save(folder / "a.gif")
    Image.fromarray(photo(16, 16)).save(folder / "a.gif.png")
    code, out, err = run("restore", folder, "-o", tmp_path / "out")
    assert code == 2 and "1 restored, 0 incomplete, 0 skipped, 1 failed" in out
    assert "a.gif.png: its copy would get the name of that of a.gif" in err


def test_names_that_are_no_text(tmp_path, run, restorer, photo):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in (b"one\nline.png", b"two\x1b[31m.png", b"three\xff.png"):
        with open(os.path.join(os.fsencode(folder), name), "wb") as stream:
            Image.fromarray(photo(16, 16)).save(stream, "PNG")
    report = tmp_path / "report.json"
    code, out, err = run("restore", folder, "-o", tmp_path / "out", "--json", report, "--report", tmp_path / "a.html")
    assert code == 0 and out.count("\n") == 4 and "\x1b" not in out and "\udcff" not in out
    assert "one\\nline.png" in out and "three\\udcff.png" in out
    files = json.loads(report.read_text("utf-8"))["files"]
    assert os.fsencode(files[1]["source"]).endswith(b"three\xff.png") and Path(files[1]["target"]).exists()
    assert "three\\udcff.png" in (tmp_path / "a.html").read_text("utf-8")


def test_an_interrupted_run_says_what_is_left(tmp_path, run, monkeypatch, archive):
    def interrupted(frames, quantiser_map=None):
        if frames.shape[1] == 64:
            raise KeyboardInterrupt
        return frames

    monkeypatch.setattr(engines, "load", lambda *arguments: interrupted)
    report = tmp_path / "report.json"
    assert run("restore", archive, "-o", tmp_path / "out", "--json", report)[0] == 130
    values = json.loads(report.read_text("utf-8"))
    assert [each["status"] for each in values["files"]] == ["restored", "failed", *["pending"] * 4]
    assert values["exit_code"] == 130
    assert names(tmp_path / "out") == ["a.jpg"]


# Several at once: real processes, which have the model that ships.


def test_jobs_make_the_same(tmp_path, run, archive):
    options = ["--engine", "litert", "--threads", "1"]
    texts = {}
    for jobs_, target in ((1, "one"), (3, "three")):
        code, out, err = run("restore", archive, "-o", tmp_path / target, "--jobs", jobs_, *options)
        assert code == 2
        texts[target] = [line.split(" in ")[0].replace(target, "") for line in (out + err).splitlines()]
    assert texts["one"] == texts["three"]
    assert len(names(tmp_path / "one")) == 4
    for name in names(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()


def test_jobs_without_a_model(tmp_path, run, archive):
    code, out, err = run("restore", archive, "-o", tmp_path / "out", "--jobs", "2", "--model", "nonesuch")
    assert (code, out) == (2, "")
    assert err.startswith("deartifact: error: ") and err.count("\n") == 1 and "nonesuch" in err


def test_a_process_that_ends_takes_one_file_with_it(tmp_path, archive, monkeypatch):
    items = list(plan.of_folder(_arguments(archive, tmp_path / "out"), [Path("a.jpg"), Path("drafts/old/C.JPG")]))
    begin = jobs._Worker.begin

    def killing(worker, index, item):
        if index == 0:
            worker.ready()
            os.kill(worker._process.pid, signal.SIGKILL)
        begin(worker, index, item)

    monkeypatch.setattr(jobs._Worker, "begin", killing)
    monkeypatch.setattr(jobs._Worker, "ready", _once(jobs._Worker.ready))
    outcomes = list(jobs.restore_all(_arguments(archive, tmp_path / "out"), items, lambda model: None))
    assert [record.status for record, _ in outcomes] == ["failed", "restored"]
    assert "the process that restored it ended, exit code -9" in outcomes[0][0].message


def _once(ready):
    def wrapped(worker):
        return ready(worker) if not worker._is_ready else ([], {})

    return wrapped


def _arguments(source, target):
    return cli._parser().parse_args(["restore", str(source), "-o", str(target), "--jobs", "2", "--engine", "litert"])


def test_an_interruption_ends_all_jobs(tmp_path, archive, make_video):
    # More than is done until the signal.
    make_video(archive / "00.mp4", times=[40 * each for each in range(60)], size=(640, 352))
    shutil.copy(archive / "00.mp4", archive / "01.mp4")
    code = "import sys; from keras_deartifact.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "restore", str(archive), "-o", str(tmp_path / "out"), "--jobs", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 60
        while len(list((tmp_path / "out").rglob(".deartifact-*"))) < 2:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        # As a terminal does: to every process.
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("deartifact: interrupted") and "Traceback" not in err
    assert not any((tmp_path / "out" / f"0{index}.mp4").exists() for index in range(2))
    # Nothing of it goes on: Python's own helper ends a moment later.
    deadline = time.monotonic() + 10
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.05)


@pytest.mark.parametrize("jobs", [[], ["--jobs", "2"]])
def test_the_work_goes_on_where_nobody_reads_what_it_says(tmp_path, photo, jobs):
    """As of `deartifact restore in -o out | head -1`."""
    (tmp_path / "in").mkdir()
    for index in range(4):
        Image.fromarray(photo(32, 32, index)).save(tmp_path / "in" / f"{index}.jpg")
    program = "import sys; from keras_deartifact.cli import main\nif __name__ == '__main__': sys.exit(main())"
    (tmp_path / "command.py").write_text(program)
    command = [sys.executable, "command.py", "restore", "in", "-o", "out", "--engine", "litert", *jobs]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (0, "")
    assert len(list((tmp_path / "out").iterdir())) == 4
