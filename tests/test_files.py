import errno
import os

import numpy as np
import pytest
from PIL import Image

from keras_deartifact import files


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.png"
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_kind_goes_by_content(tmp_path, source):
    assert files.kind(source) == "image"
    assert files.kind(source.rename(tmp_path / "named.mp4")) == "image"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.mp4", b"", r"is empty; get a complete copy.*empty\.mp4"),
        ("noise.mp4", bytes(range(256)) * 8, r"expected a picture or a video, complete.*noise\.mp4"),
        ("notes.txt", b"Some lines of text.\n" * 20, r"expected a picture or a video.*notes\.txt"),
        ("list.m3u8", b"#EXTM3U\n#EXT-X-ENDLIST\n", r"expected a picture or a video.*list\.m3u8"),
    ],
)
def test_what_is_no_media(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(files.NotMediaError, match=message):
        files.kind(tmp_path / name)


def test_a_missing_file_and_a_pipe(tmp_path):
    with pytest.raises(FileNotFoundError):
        files.kind(tmp_path / "missing.png")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(files.NotMediaError, match="not a device, pipe or socket"):
        files.kind(tmp_path / "pipe")


def test_media_names():
    assert files.has_media_name("a/b.JPG") and files.has_media_name("b.vob")
    assert not files.has_media_name("b.txt") and not files.has_media_name("jpg")


def test_files_below_leaves_out_the_results_and_temporary_files(tmp_path):
    for name in ("b.jpg", "a/c.mp4", "a/.deartifact-0000.mp4", "out/b.jpg", "a/d/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path) for path in files.files_below(tmp_path, tmp_path / "out")]
    assert found == ["a/c.mp4", "a/d/e", "b.jpg"]
    with pytest.raises(ValueError, match="another folder than the sources"):
        files.files_below(tmp_path / "a", tmp_path / "out" / ".." / "a")


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("a/x.JPG", "image", "x.JPG"),
        ("x.gif", "image", "x.gif.png"),
        ("x", "image", "x.png"),
        ("x.mov", "video", "x.mov"),
        ("x.avi", "video", "x.avi.mkv"),
        ("x.vob", "video", "x.vob.mkv"),
    ],
)
def test_target_name(name, kind, expected):
    assert files.target_name(name, kind) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("a.jpg", "a.jpg.png"), ("a.webp", "a.webp.png"), ("a.png", "a.png"), ("a.TIF", "a.TIF")]
)
def test_target_name_of_16_bits(name, expected):
    assert files.target_name(name, "image", 16) == expected
    assert files.target_name(name, "image", 8) == name


def test_a_target_gets_its_name_at_the_end(tmp_path, source):
    target = tmp_path / "new.png"
    with files.replacing(source, target, overwrite=False) as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".png" and temporary.name.startswith(".")
        temporary.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask
    with pytest.raises(FileExistsError, match=r"new\.png"), files.replacing(source, target, overwrite=False):
        pass
    with files.replacing(source, target, overwrite=True) as temporary:
        temporary.write_bytes(b"newer")
    assert target.read_bytes() == b"newer"
    assert names(tmp_path) == ["new.png", "source.png"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError(errno.EIO, "no")])
def test_a_failure_leaves_nothing_and_what_was_there(tmp_path, source, error):
    target = tmp_path / "new.png"
    target.write_bytes(b"old")
    with pytest.raises(type(error)), files.replacing(source, target, overwrite=True) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["new.png", "source.png"]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path, source):
    target = tmp_path / "new.png"
    with pytest.raises(FileExistsError), files.replacing(source, target, overwrite=False):
        target.write_bytes(b"of someone else")
    assert target.read_bytes() == b"of someone else"
    assert names(tmp_path) == ["new.png", "source.png"]


def test_errors_name_the_target(tmp_path, source):
    target = tmp_path / "new.png"
    with pytest.raises(OSError, match=r"No space.*new\.png"), files.replacing(source, target, overwrite=False):
        raise OSError(errno.ENOSPC, "No space left on device")
    with (
        pytest.raises(PermissionError, match=r"Not allowed.*new\.png"),
        files.replacing(source, target, overwrite=False) as temporary,
    ):
        raise PermissionError(errno.EACCES, "Not allowed", str(temporary))
    with (
        pytest.raises(ValueError, match=r"cannot hold it.*/new\.png"),
        files.replacing(source, target, overwrite=False) as temporary,
    ):
        raise ValueError(f"cannot hold it: {temporary}")


def test_through_a_link(tmp_path, source):
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "new.png"
    target.write_bytes(b"old")
    link = tmp_path / "link.png"
    link.symlink_to(target)
    with files.replacing(source, link, overwrite=True) as temporary:
        temporary.write_bytes(b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"


def test_targets_that_are_refused(tmp_path, source):
    (tmp_path / "same.png").hardlink_to(source)
    for target, message in (
        (source, "another file than the source"),
        (tmp_path / "same.png", "another file than the source"),
        (tmp_path, "not a folder or device"),
        ("/dev/null", "not a folder or device"),
        (tmp_path / "missing" / "new.png", "must exist; create it first"),
        (source / "new.png", "must exist; create it first"),
    ):
        with pytest.raises(ValueError, match=message), files.replacing(source, target, overwrite=True):
            pass
    assert names(tmp_path) == ["same.png", "source.png"]
