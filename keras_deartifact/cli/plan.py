"""What a run over a folder would do with each file: which name its copy gets, what is left out, what is refused."""

import argparse
import fnmatch
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from keras_deartifact import console
from keras_deartifact.cli import isolation, options
from keras_deartifact.cli.records import Record


@dataclass(frozen=True)
class Planned:
    """A file of a folder.

    Attributes:
        name: its path below the folder.
        source: the file.
        target: its copy; None where it gets none.
        media: `image` or `video`; None where it is neither.
        decided: what has become of it already; None for a file to restore.
        line: the same for the reader.
    """

    name: Path
    source: Path
    target: Path | None = None
    media: str | None = None
    decided: Record | None = None
    line: str = ""


def chosen(names: Sequence[Path], include: Sequence[str] | None, exclude: Sequence[str] | None) -> list[Path]:
    """The paths that match one of `include`, if there is any, and none of `exclude`."""
    return [name for name in names if (not include or _matches(name, include)) and not _matches(name, exclude or ())]


def _matches(name: Path, patterns: Sequence[str]) -> bool:
    """Whether a pattern matches the path or a folder that it is in."""
    paths = [each.as_posix().lower() for each in (name, *name.parents) if each != Path(".")]
    return any(fnmatch.fnmatchcase(path, _normal(pattern)) for pattern in patterns for path in paths)


def _normal(pattern: str) -> str:
    return pattern.lower().removeprefix("./").rstrip("/")


def of_folder(arguments: argparse.Namespace, names: Sequence[Path]) -> Iterator[Planned]:
    """Says of every file what to do with it; what can be told without a network is decided."""
    from keras_deartifact import files, restore

    taken: dict[Path, Path] = {}
    for name in names:
        source = arguments.input / name
        try:
            isolation.working_on(source)
            media = files.kind(source)
            target = Path(arguments.output) / name.parent / files.target_name(name, media, arguments.bits)
            if not arguments.dry_run:
                restore.clean(target)
            is_there = target.exists()
        except files.NotMediaError as error:
            promises = files.has_media_name(name)
            yield _failed(name, source, error) if promises else _skipped(name, source, "neither an image nor a video")
            continue
        except Exception as error:
            if not console.is_expected(error):
                raise
            yield _failed(name, source, error)
            continue
        first = taken.setdefault(target, name)
        if first != name:
            yield _failed(
                name, source, ValueError(f"its copy would get the name of that of {first}; rename one of them")
            )
        elif is_there and not arguments.overwrite:
            yield _skipped(name, source, f"{target} exists already (--overwrite replaces it)", target)
        else:
            yield Planned(name, source, target, media)


def _failed(name: Path, source: Path, error: Exception) -> Planned:
    message = console.sentence(error)
    return Planned(name, source, decided=Record(source, None, "failed", message=message), line="failed")


def _skipped(name: Path, source: Path, why: str, target: Path | None = None) -> Planned:
    record = Record(source, target, "skipped", message=why)
    return Planned(name, source, target, decided=record, line=f"skipped, {why}")


class _Enough(Exception):
    """All that a run refuses before it calls the network has been passed."""


def _restorer(frames: Any, quantiser_map: Any = None) -> NoReturn:
    raise _Enough


def would_do(arguments: argparse.Namespace, source: Path, target: Path, media: str) -> str:
    """Goes through what a run does up to its first frame, beside a name in a temporary folder.

    Returns:
        A line that says what would be done, and what would be left out.

    Raises:
        ValueError: what the run would raise.
        OSError: likewise.
    """
    from keras_deartifact import restore

    left_out: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        beside = Path(folder) / target.name
        try:
            given = options.of_file(arguments, source, media)
            if media == "image":
                restore.restore_image(_restorer, source, beside, **given)
            else:
                restore.restore_video(_restorer, source, beside, notice=left_out.append, **given)
        except _Enough:
            pass
        except Exception as error:
            if not console.is_expected(error) or folder not in str(error):
                raise
            # The name that the user knows.
            raise ValueError(console.sentence(error).replace(str(beside), str(target))) from error
    replaced = ", replacing what is there" if target.exists() else ""
    return f"{source} -> {target}{replaced}" + (f"; left out: {', '.join(left_out)}" if left_out else "")
