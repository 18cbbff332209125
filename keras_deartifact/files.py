"""Which files are restored, what their copies are called, and how a copy gets its name only when it is complete."""

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from keras_deartifact import stills, video

StrPath = str | os.PathLike[str]

TEMPORARY_PREFIX = ".deartifact-"

_MIB = 1 << 20

# ffmpeg takes these for video, too: text as terminal art, playlists that lead elsewhere, still pictures.
_NO_VIDEO = frozenset("tty hls concat dash image2 lrc".split())

_IMAGE_SUFFIXES = frozenset(stills.WRITE_FORMATS) | {".gif", ".bmp", ".avif", ".heic"}
_VIDEO_TARGETS = frozenset((".mp4", ".m4v", ".mov", ".mkv", ".webm", ".ts"))
_VIDEO_SUFFIXES = _VIDEO_TARGETS | set(
    ".avi .mpg .mpeg .m2v .vob .mts .m2ts .wmv .asf .flv .3gp .ogv .divx .rm".split()
)


class NotMediaError(ValueError):
    """A file is neither a picture nor a video."""


def kind(path: StrPath) -> str:
    """Says whether a file is an `"image"` or a `"video"`, by its content.

    Raises:
        NotMediaError: neither, or empty.
        ValueError: a picture that `stills` refuses, such as an animation, or a video whose frames are too large.
        OSError: the file system does not give it.
    """
    path = Path(path)
    if not stat.S_ISREG(path.stat().st_mode):
        raise NotMediaError(f"expected a file or a folder, not a device, pipe or socket. Received: {path}")
    if path.stat().st_size == 0:
        raise NotMediaError(f"the file is empty; get a complete copy of it. Received: {path}")
    if stills.is_still(path):
        return "image"
    try:
        container = video.probe(path).container
    except video.TooLargeError:
        raise
    except ValueError as error:
        raise NotMediaError(f"expected a picture or a video, complete up to its index: {error}") from error
    if container in _NO_VIDEO or container.endswith("_pipe"):
        raise NotMediaError(f"expected a picture or a video, not what ffmpeg calls {container}. Received: {path}")
    return "video"


def is_jpeg(path: StrPath) -> bool:
    """Whether a file begins as a JPEG does."""
    with open(path, "rb") as stream:
        return stream.read(2) == b"\xff\xd8"


def has_media_name(path: StrPath) -> bool:
    """Whether a file's name promises a picture or a video, so that one which is neither is a loss to report."""
    return Path(path).suffix.lower() in _IMAGE_SUFFIXES | _VIDEO_SUFFIXES


def has_video_name(path: StrPath) -> bool:
    """Whether a file's name promises a video."""
    return Path(path).suffix.lower() in _VIDEO_SUFFIXES


def files_below(folder: StrPath, excluded: StrPath) -> list[Path]:
    """All files of a folder and the folders in it, sorted, as paths relative to it.

    Args:
        folder: where to look; links to folders are not followed.
        excluded: a folder left out, where the results go; it may lie inside `folder`.

    Returns:
        Paths relative to `folder`. Temporary files and folders of other runs are left out.

    Raises:
        ValueError: `excluded` is `folder` itself.
    """
    folder, excluded = Path(folder), Path(excluded).resolve()
    if folder.resolve() == excluded:
        raise ValueError(f"the results must go to another folder than the sources. Received: {folder}")
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(TEMPORARY_PREFIX) and (Path(root) / name).resolve() != excluded
        ]
        found += [Path(root, name).relative_to(folder) for name in names if not name.startswith(TEMPORARY_PREFIX)]
    return sorted(found)


def target_name(source: StrPath, media: str, bits: int | None = None) -> str:
    """The name of the restored copy of a file in another folder: its own, with an extension that can be written.

    Args:
        source: the file.
        media: what `kind` says of it.
        bits: of a sample of a picture's copy, where that is given; 16 do not fit into every format.

    Returns:
        A name. A picture of another kind becomes `.png`, a video `.mkv`, both behind the old extension, so that no two
        files of a folder get the same name.
    """
    source = Path(source)
    if media == "image":
        image_format = stills.WRITE_FORMATS.get(source.suffix.lower())
        fits = image_format in stills.DEEP_FORMATS if bits == 16 else image_format is not None
        return source.name if fits else source.name + ".png"
    return source.name if source.suffix.lower() in _VIDEO_TARGETS else source.name + ".mkv"


def check_target(source: StrPath, target: StrPath, overwrite: bool) -> None:
    """Checks that a file may be written: another one than the source, in a folder, not there yet unless told so.

    Raises:
        ValueError: the target is the source, a folder or a device, or its folder does not exist.
        FileExistsError: the target exists, and `overwrite` is False.
    """
    target = Path(target)
    if not target.parent.is_dir():
        raise ValueError(f"the folder of the target must exist; create it first. Received: {target.parent}")
    if not target.exists():
        return
    if target.samefile(source):
        raise ValueError(f"the target must be another file than the source. Received: {target}")
    if not target.is_file():
        raise ValueError(f"the target must be a file, not a folder or device. Received: {target}")
    if not overwrite:
        raise FileExistsError(errno.EEXIST, "The target exists already", str(target))


@contextlib.contextmanager
def replacing(source: StrPath, target: StrPath, overwrite: bool) -> Iterator[Path]:
    """Gives the path of a temporary file that becomes `target` if the block succeeds, and vanishes if it fails."""
    check_target(source, target, overwrite)
    with whole(target) as temporary:
        yield temporary
        # The run may have taken hours.
        check_target(source, target, overwrite)


@contextlib.contextmanager
def whole(target: StrPath, folder: StrPath | None = None) -> Iterator[Path]:
    """Gives the path of a temporary file that becomes `target` if the block succeeds, and vanishes if it fails.

    Args:
        target: the file; what is there is replaced.
        folder: for the temporary file, on the same file system; by default the target's.
    """
    # Through a link, so that the link stays and the rename does not cross file systems.
    final = Path(os.path.realpath(target))
    beside = final if folder is None else Path(folder) / final.name
    temporary = beside.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}{final.suffix}")
    try:
        with naming(target, temporary):
            # With the permissions that any new file gets, which `tempfile` does not give.
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            yield temporary
            sync(temporary)
            os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(target: StrPath, temporary: StrPath) -> Iterator[None]:
    """Lets errors tell of the target where they would tell of a temporary file, or of nothing where a disk is full."""
    try:
        yield
    except OSError as error:
        # Writing tells no name, and PyAV's errors let none be set. The constructor picks the class by the number.
        written = error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if written or (error.filename is not None and os.fspath(error.filename).startswith(str(temporary))):
            raise OSError(error.errno, error.strerror, os.fspath(target)) from error
        raise
    except ValueError as error:
        if str(temporary) not in str(error):
            raise
        raise ValueError(str(error).replace(str(temporary), os.fspath(target))) from error


def sync(path: StrPath) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def fingerprint(path: StrPath) -> str:
    """What tells a file from another, or from what it was before, without reading all of it.

    Returns:
        Its size in bytes, its time of modification in nanoseconds, and the beginning of the SHA-256 of its first,
        middle and last MiB, in one line.
    """
    status = os.stat(path)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for start in (0, status.st_size // 2, max(0, status.st_size - _MIB)):
            file.seek(start)
            digest.update(file.read(_MIB))
    return f"{status.st_size} bytes of {status.st_mtime_ns}, {digest.hexdigest()[:16]}"
