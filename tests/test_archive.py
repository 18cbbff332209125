"""`deartifact archive` on one machine."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys

import pytest
from archive_samples import ENGINE, SLOW, finish, made, make_trees, names, require_equal, restore, start, wait_until


@pytest.fixture(scope="module")
def trees(tmp_path_factory, photo, make_video):
    """A tree of files, and what `restore` makes of it."""
    return make_trees(tmp_path_factory.mktemp("archive"), photo, make_video)


def _finished(out):
    """How many segments and files are done, by the files."""
    return len(list(out.glob(".deartifact-archive/segments/*/*.json"))) - len(
        list(out.glob(".deartifact-archive/segments/*/plan.json"))
    )


def _events(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_it_makes_what_restore_makes(tmp_path, run, trees):
    source, expected = trees
    out, log = tmp_path / "out", tmp_path / "log"
    code, text, err = run("archive", source, out, "--jobs", "2", "--json", log, "--cost-per-node-hour", "2", *ENGINE)
    assert code == 2
    require_equal(out, expected)
    assert text.splitlines()[-1] == f"{out}: 5 restored, 0 incomplete, 1 skipped, 1 failed"
    assert err.count("\n") == 1 and err.startswith("deartifact: error: bad.mp4: ") and "complete" in err
    events = _events(log)
    segments = [each for each in events if each["event"] == "segment"]
    assert sorted(each["position"] for each in segments) == [0, 1, 2, 3]
    assert {each["name"] for each in segments} == {"long.mkv"} and segments[0]["frames"] == 20
    files = {each["name"]: each for each in events if each["event"] == "file"}
    assert files["long.mkv"]["frames"] == 75 and 74 <= files["long.mkv"]["seconds"] <= 76
    assert files["bad.mp4"]["state"] == "failed" and len(files["a.jpg"]["sha256"]) == 64
    last = [each for each in events if each["event"] == "progress"][-1]
    assert last["share"] == 1 and last["files"] == 7 and last["failed"] == 1 and last["frames"] == 81
    hours = last["video_hours_per_hour"]
    assert hours > 0 and last["cost_per_video_hour"] == pytest.approx(2 / hours, rel=0.02)
    assert events[-1] == {**events[-1], "event": "end", "exit_code": 2}
    # Nothing is left but what is known.
    assert {path.name for path in (out / ".deartifact-archive").iterdir()} == {"ledger.sqlite", "ledger.lock"}
    # The same again finds that all is done.
    before = {name: (out / name).stat().st_mtime_ns for name in names(out)}
    code, again, _ = run("archive", source, out, *ENGINE)
    assert code == 2 and again == text.splitlines()[-1] + "\n"
    assert {name: (out / name).stat().st_mtime_ns for name in names(out)} == before


def test_status(tmp_path, run, trees):
    source, _ = trees
    out = tmp_path / "out"
    code, text, err = run("archive", "--status", out)
    assert (code, text) == (2, "") and "no archive" in err
    process = start(tmp_path, source, out, "--jobs", "1", changes=SLOW)
    wait_until(lambda: (out / ".deartifact-archive" / "ledger.sqlite").exists(), process)
    # The ledger is on the disk every second.
    wait_until(lambda: "\nat work: long.mkv: " in run("archive", "--status", out)[1], process)
    code, text, _ = run("archive", "--status", out)
    assert code == 0 and text.splitlines()[0].endswith(" done, at work")
    # Another one may not write there.
    code, _, err = run("archive", source, out, *ENGINE)
    assert code == 2 and "another run is at work" in err
    assert finish(process)[0] == 2
    lines = run("archive", "--status", out)[1].splitlines()
    assert lines[0] == "100.0 % done, no run of this machine is at work"
    assert lines[2] == "5 restored, 0 incomplete, 1 skipped, 1 failed, 0 working, 0 waiting"
    assert lines[-1].startswith("failed: bad.mp4: ")


def test_a_driver_that_is_killed(tmp_path, run, trees):
    source, expected = trees
    out = tmp_path / "out"
    process = start(tmp_path, source, out, "--jobs", "2", changes=SLOW, start_new_session=True)
    wait_until(lambda: _finished(out) > 1, process)
    process.kill()
    process.communicate()
    # The system ends its workers.
    wait_until(lambda: not _lives(process.pid))
    assert "long.mkv" not in names(out)
    for options in (["--model", "shuffle_nano_perceptual"], ["--strength", "0.5"]):
        code, text, err = run("archive", source, out, *options, *ENGINE)
        assert (code, text) == (2, "") and "an earlier run of this archive had another" in err and "--restart" in err
    before = made(tmp_path)
    assert finish(start(tmp_path, source, out))[0] == 2
    require_equal(out, expected)
    # What was done is not done again, but for one that was being put in its place.
    assert len(before) > 1 and set(made(tmp_path)) == {0, 1, 2, 3} and len(made(tmp_path)) <= 5


def _lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


ONCE = """
def once(*arguments, **options):
    if not os.path.exists(__file__ + ".flag"):
        open(__file__ + ".flag", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return restore_segment(*arguments, **options)

restore.restore_segment = once
"""


@pytest.mark.slow
def test_a_worker_that_is_killed_once(tmp_path, trees):
    source, expected = trees
    code, _, err = finish(start(tmp_path, source, tmp_path / "out", changes=ONCE))
    assert code == 2
    assert "long.mkv: attempt 1 failed: the process that did it was ended by SIGKILL" in err
    require_equal(tmp_path / "out", expected)


POISON = """
def poisoned(restorer, source, *arguments, **options):
    if source.name == "C.JPG":
        os.kill(os.getpid(), signal.SIGSEGV)
    return image_steps(restorer, source, *arguments, **options)

restore.image_steps = poisoned
"""


def test_a_poisoned_file_is_set_aside(tmp_path, run, trees):
    source, expected = trees
    out = tmp_path / "out"
    code, text, err = finish(start(tmp_path, source, out, "--attempts", "2", "--jobs", "2", changes=POISON))
    assert code == 2
    assert text.splitlines()[-1].endswith("4 restored, 0 incomplete, 1 skipped, 2 failed")
    assert "error: drafts/old/C.JPG: the process that did it was ended by SIGSEGV, 2 times" in err
    assert "drafts/old/C.JPG" not in names(out) and "drafts/b.gif.png" in names(out)
    # It stays aside until it is asked for.
    code, text, _ = run("archive", source, out, *ENGINE)
    assert code == 2 and text.endswith("4 restored, 0 incomplete, 1 skipped, 2 failed\n")
    code, text, _ = run("archive", source, out, "--retry-failed", *ENGINE)
    assert code == 2 and text.endswith("5 restored, 0 incomplete, 1 skipped, 1 failed\n")
    require_equal(out, expected)


@pytest.mark.slow
def test_an_interruption(tmp_path, trees):
    source, expected = trees
    out = tmp_path / "out"
    process = start(tmp_path, source, out, changes=SLOW, start_new_session=True)
    wait_until(lambda: _finished(out) > 0, process)
    # As a terminal does: to every process.
    os.killpg(process.pid, signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130 and "the same command goes on" in err and "Traceback" not in err
    wait_until(lambda: not _lives(process.pid))
    assert finish(start(tmp_path, source, out))[0] == 2
    require_equal(out, expected)


def test_what_exists_is_left(tmp_path, run, trees):
    source, expected = trees
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.jpg").write_bytes(b"mine")
    code, text, _ = run("archive", source, out, *ENGINE)
    assert code == 2 and "a.jpg: skipped, a.jpg exists already (--overwrite replaces it)" in text
    assert (out / "a.jpg").read_bytes() == b"mine"
    code, _, _ = run("archive", source, out, "--restart", "--overwrite", *ENGINE)
    assert code == 2
    require_equal(out, expected)


def test_some_files_of_all(tmp_path, run, trees):
    source, expected = trees
    arguments = ["archive", source, tmp_path / "out", *ENGINE, "--jobs", "1", "--include", "*.jpg", "--exclude"]
    code, out, _ = run(*arguments, "drafts")
    assert (code, out.splitlines()[-1]) == (0, f"{tmp_path / 'out'}: 1 restored, 0 incomplete, 0 skipped, 0 failed")
    code, out, _ = run(*arguments, "nothing")
    assert (code, out.splitlines()[-1]) == (0, f"{tmp_path / 'out'}: 2 restored, 0 incomplete, 0 skipped, 0 failed")
    for name in ("a.jpg", "drafts/old/C.JPG"):
        assert (tmp_path / "out" / name).read_bytes() == (expected / name).read_bytes()
    code, _, err = run(*arguments[:-2], "*.avi")
    assert code == 2 and "none of the 7 files matches --include and --exclude" in err


def test_new_and_changed_files(tmp_path, run, photo):
    from PIL import Image

    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    Image.fromarray(photo(16, 16)).save(source / "a.png")
    assert run("archive", source, out, *ENGINE)[0] == 0
    Image.fromarray(photo(16, 16)).save(source / "b.gif")
    Image.fromarray(photo(16, 16)).save(source / "b.gif.png")
    code, text, err = run("archive", source, out, *ENGINE)
    assert code == 2 and text.endswith("2 restored, 0 incomplete, 0 skipped, 1 failed\n")
    assert "b.gif.png: its copy would get the name of that of b.gif" in err
    before = (out / "b.gif.png").stat().st_mtime_ns
    code, text, err = run("archive", source, out, "--retry-failed", *ENGINE)
    assert code == 2 and text.endswith("2 restored, 0 incomplete, 0 skipped, 1 failed\n")
    assert (out / "b.gif.png").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_file_that_changes_meanwhile(tmp_path, run, trees):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    shutil.copy(trees[0] / "long.mkv", source)
    process = start(tmp_path, source, out, "--jobs", "1", changes=SLOW)
    wait_until(lambda: _finished(out) > 0, process)
    os.utime(source / "long.mkv")
    code, _, err = finish(process)
    assert code == 2 and "the input must not change" in err and names(out) == []
    code, _, _ = run("archive", source, out, "--retry-failed", *ENGINE)
    assert code == 0
    assert (out / "long.mkv").read_bytes() == (trees[1] / "long.mkv").read_bytes()


def test_a_damaged_video_is_told(tmp_path, run, trees):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    data = (trees[0] / "long.mkv").read_bytes()
    (source / "cut.mkv").write_bytes(data[: len(data) * 2 // 3])
    code, text, err = run("archive", source, out, *ENGINE)
    assert code == 3 and text.endswith("0 restored, 1 incomplete, 0 skipped, 0 failed\n")
    assert restore(source, tmp_path / "expected") == 3
    require_equal(out, tmp_path / "expected")
    assert "warning: cut.mkv: " in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "needs a SOURCE and a DEST"),
        (["in"], "needs a SOURCE and a DEST"),
        (["missing", "out"], "expected a folder or a URL"),
        (["in", "in"], "must go to another folder"),
        (["in", "out", "--model", "nonesuch"], "nonesuch"),
        (["in", "nosuch://out"], "Protocol not known"),
        (["in", "out", "--jobs", "2", "--ray", "auto"], "not allowed with"),
        (["in", "out", "--status", "out"], "--status goes without"),
        (["empty", "out"], "there are no files in"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, run, trees, arguments, expected):
    monkeypatch.chdir(tmp_path)
    os.symlink(trees[0], "in")
    os.mkdir("empty")
    code, text, err = run("archive", *arguments)
    assert (code, text) == (2, "") and expected in err and err.count("\n") == 1


def test_a_ledger_of_something_else(tmp_path, run, trees):
    folder = tmp_path / "out" / ".deartifact-archive"
    folder.mkdir(parents=True)
    (folder / "ledger.sqlite").write_bytes(b"nothing to see" * 99)
    code, _, err = run("archive", trees[0], tmp_path / "out", *ENGINE)
    assert code == 2 and "is no ledger of an archive" in err
    (folder / "ledger.sqlite").unlink()
    with sqlite3.connect(folder / "ledger.sqlite") as database:
        database.execute("CREATE TABLE job (name TEXT PRIMARY KEY, value TEXT)")
        database.execute("INSERT INTO job VALUES ('format', '99')")
    code, _, err = run("archive", trees[0], tmp_path / "out", *ENGINE)
    assert code == 2 and "another version" in err


def test_the_start_is_light():
    code = (
        "import sys; from keras_deartifact.cli import main; main(['archive', '--help']);"
        "print(*sys.modules, file=sys.stderr)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.split()
    assert not {"ray", "fsspec", "s3fs", "tensorflow", "av", "numpy", "sqlite3"} & set(loaded)
