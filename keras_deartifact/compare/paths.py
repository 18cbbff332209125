"""Which files are compared with which: `compare_files` and `compare_folders`."""

import os
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from keras_deartifact import console, files
from keras_deartifact.compare.clips import compare_clips
from keras_deartifact.compare.pictures import compare_pictures
from keras_deartifact.compare.results import METRICS, ROLES, Comparison, FolderComparison

StrPath = str | os.PathLike[str]


def compare_files(
    original: StrPath | None,
    restored: StrPath,
    compressed: StrPath | None = None,
    *,
    wanted: Collection[str] | None = None,
    every: int = 10,
    progress: Callable[[int], None] | None = None,
) -> Comparison:
    """Compares a restored picture or video with its original, and with what it was restored from.

    Args:
        original: the file before it was compressed; None if there is none, and what needs none is measured.
        restored: the file to judge.
        compressed: the file that it was restored from; gains are over this one.
        wanted: keys of `METRICS`; all of them by default.
        every: NIQE and BRISQUE are measured of every so many frames of a video.
        progress: told how many frames of a video are done.

    Returns:
        The comparison; a video that breaks off is compared as far as it decodes, and `broken` says so.

    Raises:
        ValueError: an unknown metric, files that are neither all pictures nor all videos or cannot be read, different
            sizes, or videos without frames at the same times.
        OSError: the file system does not give one.
    """
    paths = _by_role(original, restored, compressed)
    return _compare(str(paths["restored"]), paths, _chosen(wanted), every, progress)


def compare_folders(
    original: StrPath | None,
    restored: StrPath,
    compressed: StrPath | None = None,
    *,
    wanted: Collection[str] | None = None,
    every: int = 10,
    progress: Callable[[int], None] | None = None,
) -> FolderComparison:
    """Compares the pictures and videos in folders, and in the folders in them.

    Partners have the same path but for the extension, also one that `deartifact restore` adds (`a.gif`, `a.gif.png`).
    Where several files have one name but for the extension, those with the same extension are partners, and the others
    only if one is left in every folder.

    Args:
        original: a folder, or None.
        restored: a folder.
        compressed: a folder, or None.
        wanted: as of `compare_files`.
        every: likewise.
        progress: told how many files are done.

    Returns:
        The comparison. What cannot be compared is in `failed` and does not stop the rest.

    Raises:
        ValueError: an unknown metric, a folder that is none, is given twice or holds no picture or video, or no file
            has a partner.
        OSError: the file system does not give a folder.
    """
    folders = _by_role(original, restored, compressed)
    chosen = _chosen(wanted)
    found, skipped = _media(folders)
    rows, unmatched = match(found)
    if not rows:
        raise ValueError(
            "expected files with the same path but for the extension in every folder; none has a partner. "
            f"Received: {', '.join(f'{role} {folder}' for role, folder in folders.items())}"
        )

    def compare(name: str) -> Comparison | str:
        paths = {role: folders[role] / path for role, path in rows[name].items()}
        try:
            return _compare(name, paths, chosen, every, None)
        except Exception as error:
            if not console.is_expected(error):
                raise
            return console.sentence(error)

    compared: list[Comparison] = []
    failed: dict[str, str] = {}
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        try:
            for number, (name, outcome) in enumerate(zip(rows, pool.map(compare, rows), strict=True), 1):
                if isinstance(outcome, str):
                    failed[name] = outcome
                else:
                    compared.append(outcome)
                if progress is not None:
                    progress(number)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    shown = {role: str(folder) for role, folder in folders.items()}
    return FolderComparison(shown, compared, unmatched, failed, skipped)


def match(found: Mapping[str, Collection[Path]]) -> tuple[dict[str, dict[str, Path]], dict[str, list[str]]]:
    """Finds partners among relative paths.

    Args:
        found: role -> paths.

    Returns:
        Name of a row -> role -> path, sorted; and role -> the paths that have no partner in every other role.
    """
    groups: dict[str, dict[str, list[Path]]] = {}
    for role, paths in found.items():
        for path in sorted(paths):
            groups.setdefault(_stem(path), {each: [] for each in found})[role].append(path)
    rows: dict[str, dict[str, Path]] = {}
    unmatched: dict[str, list[str]] = {role: [] for role in found}
    for group in groups.values():
        shared = set.intersection(*(set(paths) for paths in group.values()))
        partners = [dict.fromkeys(found, path) for path in sorted(shared)]
        left = {role: [path for path in paths if path not in shared] for role, paths in group.items()}
        if all(len(paths) == 1 for paths in left.values()):
            partners.append({role: path for role, (path,) in left.items()})
        else:
            for role, paths in left.items():
                unmatched[role] += [str(path) for path in paths]
        rows |= {str(row["restored"]): row for row in partners}
    return dict(sorted(rows.items())), {role: sorted(paths) for role, paths in unmatched.items() if paths}


def _stem(path: Path) -> str:
    """A path without its extension, and without those before it that name pictures or videos."""
    path = path.with_suffix("")
    while files.has_media_name(path):
        path = path.with_suffix("")
    return str(path)


def _compare(
    name: str,
    paths: Mapping[str, Path],
    wanted: frozenset[str],
    every: int,
    progress: Callable[[int], None] | None,
) -> Comparison:
    kinds = {role: files.kind(path) for role, path in paths.items()}
    if set(kinds.values()) == {"image"}:
        return compare_pictures(name, paths, wanted)
    if set(kinds.values()) == {"video"}:
        return compare_clips(name, paths, wanted, every, progress)
    found = ", ".join(f"{role} {paths[role]}: {kind}" for role, kind in kinds.items())
    raise ValueError(f"expected pictures or videos, not both. Received: {found}")


def _media(folders: Mapping[str, Path]) -> tuple[dict[str, list[Path]], list[str]]:
    """Pictures and videos of each folder, relative to it, and the paths of all other files."""
    if len({folder.resolve() for folder in folders.values()}) < len(folders):
        raise ValueError(f"expected different folders. Received: {', '.join(map(str, folders.values()))}")
    found: dict[str, list[Path]] = {}
    skipped = []
    for role, folder in folders.items():
        if not folder.is_dir():
            raise ValueError(f"expected a folder, like the others, or files alone. Received: {folder}")
        inner = [other.resolve() for other in folders.values() if folder.resolve() in other.resolve().parents]
        below = files.files_below(folder, inner[0] if inner else folder / "..")
        below = [path for path in below if not any((folder / path).resolve().is_relative_to(each) for each in inner)]
        found[role] = [path for path in below if files.has_media_name(path) or _is_media(folder / path)]
        skipped += [str(folder / path) for path in below if path not in set(found[role])]
        if not found[role]:
            raise ValueError(f"expected a folder with pictures or videos. Received: {folder}")
    return found, skipped


def _is_media(path: Path) -> bool:
    try:
        files.kind(path)
    except (OSError, ValueError):
        return False
    return True


def _by_role(original: StrPath | None, restored: StrPath, compressed: StrPath | None) -> dict[str, Path]:
    given = zip(ROLES, (original, restored, compressed), strict=True)
    return {role: Path(path) for role, path in given if path is not None}


def _chosen(wanted: Collection[str] | None) -> frozenset[str]:
    unknown = sorted(set(wanted or ()) - METRICS.keys())
    if unknown:
        raise ValueError(f"expected metrics among {', '.join(METRICS)}. Received: {', '.join(unknown)}")
    return frozenset(METRICS if wanted is None else wanted)
