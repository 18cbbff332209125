"""Places: folders, memory, and S3 by the server of moto on this machine."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest
from archive_samples import ENGINE, get, make_trees, put, read, require_equal, s3_bucket, write

from keras_deartifact.archive import copies, storage


@pytest.fixture(scope="module")
def s3():
    """The URL of a bucket on a server of its own."""
    with s3_bucket() as url:
        yield url


@pytest.fixture(params=["folder", "file", "memory", "s3"])
def url(request, tmp_path):
    """A place of each kind that holds nothing."""
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    return {"folder": str(tmp_path / "p"), "file": f"file://{tmp_path}/p", "memory": f"memory://{tmp_path}/p"}[
        request.param
    ]


def test_a_place(url, tmp_path):
    place = storage.place(url, tmp_path / "scratch")
    assert place.entries() == [] and place.find("a.txt") is None
    write(place, "b/c d.txt", b"two")
    write(place, "a.txt", b"one")
    write(place, f"{storage.WORK}/own", b"not listed")
    assert [(each.name, each.size) for each in place.entries()] == [("a.txt", 3), ("b/c d.txt", 3)]
    assert [each.name for each in place.entries(storage.place(f"{url}/b"))] == ["a.txt"]
    with pytest.raises(ValueError, match="must go to another folder"):
        place.entries(storage.place(url))
    assert read(place, "a.txt") == b"one" and read(place, f"{storage.WORK}/own") == b"not listed"
    entry = place.find("a.txt")
    assert entry in place.entries() and place.find("b") is None
    time.sleep(0.01)
    write(place, "a.txt", b"six")
    assert read(place, "a.txt") == b"six"
    if not url.startswith("s3"):
        assert place.find("a.txt").version != entry.version
    place.remove("a.txt")
    place.remove("b")
    place.remove("nothing")
    assert place.entries() == []
    with pytest.raises(FileNotFoundError):
        read(place, "a.txt")


def test_a_file_appears_in_whole_or_not_at_all(url, tmp_path):
    place = storage.place(url)
    with pytest.raises(RuntimeError, match="stop"), place.writing("a.txt") as path:
        path.write_bytes(b"half")
        raise RuntimeError("stop")
    assert place.find("a.txt") is None and place.entries() == []


def test_an_error_tells_the_name(url):
    place = storage.place(url)
    write(place, "a.txt", b"one")
    with pytest.raises(ValueError) as raised, place.writing("b.txt") as path:
        raise ValueError(f"nothing can be written to {path}")
    assert str(raised.value).endswith("b.txt") and ".deartifact" not in str(raised.value)


def test_a_version_follows_the_content(s3, tmp_path):
    place = storage.place(f"{s3}/versions", tmp_path)
    write(place, "a.txt", b"one")
    first = place.find("a.txt")
    write(place, "a.txt", b"two")
    assert place.find("a.txt") != first and read(place, "a.txt") == b"two"


@pytest.mark.parametrize(
    ("url", "expected"), [("nosuch://a/b", "Protocol not known"), ("gs://a/b", "needs a package that is not installed")]
)
def test_what_cannot_be_reached(url, expected):
    with pytest.raises(ValueError, match=expected):
        storage.place(url)


def test_a_copy_is_made_once_and_again_when_the_file_changes(tmp_path):
    made = []

    def fetch(path):
        made.append(path)
        path.write_bytes(b"data")

    for _ in range(2):
        with copies.copy(tmp_path, "key 1", ".mp4", 4, fetch) as path:
            assert path.read_bytes() == b"data" and path.suffix == ".mp4"
    with copies.copy(tmp_path, "key 2", ".mp4", 4, fetch) as other:
        assert other != path
    assert len(made) == 2


def test_a_copy_that_fails_leaves_nothing(tmp_path):
    def fail(path):
        path.write_bytes(b"half")
        raise OSError("no network")

    with pytest.raises(OSError, match="no network"), copies.copy(tmp_path, "key", ".mp4", 4, fail):
        pass
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_unused_copies_make_room(tmp_path, monkeypatch):
    def fetch(path):
        path.write_bytes(b"x" * 100)

    def left():
        return 1000 - sum(path.stat().st_size for path in tmp_path.iterdir())

    monkeypatch.setattr(copies.shutil, "disk_usage", lambda folder: _Usage(1000, 1000 - left(), left()))
    with copies.copy(tmp_path, "held", "", 100, fetch) as held:
        for index in range(8):
            with copies.copy(tmp_path, str(index), "", 100, fetch) as path:
                os.utime(path.with_suffix(".lock"), (index, index))
        assert left() == 100
        with copies.copy(tmp_path, "new", "", 100, fetch):
            assert held.exists() and path.exists() and left() == 100


class _Usage:
    def __init__(self, total, used, free):
        self.total, self.used, self.free = total, used, free


def _copy(folder, counter):
    def fetch(path):
        with counter.get_lock():
            counter.value += 1
        time.sleep(0.2)
        path.write_bytes(b"data")

    with copies.copy(folder, "key", "", 4, fetch) as path:
        assert path.read_bytes() == b"data"


def test_processes_share_a_copy(tmp_path):
    context = multiprocessing.get_context("fork")
    counter = context.Value("i", 0)
    processes = [context.Process(target=_copy, args=(tmp_path, counter)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(10)
    assert [process.exitcode for process in processes] == [0] * 4 and counter.value == 1


@pytest.fixture(scope="module")
def trees(tmp_path_factory, photo, make_video):
    return make_trees(tmp_path_factory.mktemp("places"), photo, make_video)


def test_an_archive_on_s3(s3, run, tmp_path, trees):
    source, target = f"{s3}/tapes", f"{s3}/restored"
    put(trees[0], source)
    options = ("--scratch", tmp_path / "scratch", "--jobs", "2", *ENGINE)
    code, text, err = run("archive", source, target, *options)
    assert code == 2 and text.endswith(f"{target}: 5 restored, 0 incomplete, 1 skipped, 1 failed\n")
    assert f"{source}/bad.mp4" in err and str(tmp_path) not in err
    get(target, tmp_path / "out")
    require_equal(tmp_path / "out", trees[1])
    # Another machine, which has no ledger of its own, finds the one beside the destination.
    elsewhere = ("--scratch", tmp_path / "elsewhere", *ENGINE)
    assert run("archive", "--status", target, "--scratch", tmp_path / "elsewhere")[1].startswith("100.0 % done")
    code, text, _ = run("archive", source, target, *elsewhere)
    assert code == 2 and text == f"{target}: 5 restored, 0 incomplete, 1 skipped, 1 failed\n"
    assert run("archive", source, target, "--strength", "1", *elsewhere)[0] == 2
    place = storage.place(target)
    assert [each for each in place._system.find("bucket/restored") if storage.WORK in each] == [
        f"bucket/restored/{storage.WORK}/ledger.sqlite"
    ]


def test_an_archive_in_memory(run, tmp_path, trees):
    """The memory is this process's own, so that the units run in it: `--debug`."""
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    put(trees[0], "memory://tapes")
    code, _, _ = run("archive", "memory://tapes", "memory://restored", "--debug", "--scratch", tmp_path / "s", *ENGINE)
    assert code == 2
    get("memory://restored", tmp_path / "out")
    require_equal(tmp_path / "out", trees[1])


def test_an_archive_by_file_urls(run, tmp_path, trees):
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    target = tmp_path / "out"
    assert run("archive", trees[0].as_uri(), Path(target).as_uri(), *ENGINE)[0] == 2
    require_equal(target, trees[1])
