"""`deartifact compare`."""

import argparse
import csv
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deartifact import console
from keras_deartifact.cli import isolation
from keras_deartifact.cli.common import BROKEN, DONE, FAILED, Parser, aligned, as_json, at_least_one, frame_count

if TYPE_CHECKING:
    from keras_deartifact.compare import Comparison, FolderComparison

_NAME_WIDTH = 40


def add(add_parser: Callable[..., Parser], parents: list[Parser]) -> None:
    """Adds the sub-command."""
    parser = add_parser(
        "compare",
        parents=parents,
        help="measure how near restored files are to their originals",
        description="Measures a restored picture or video against its original: PSNR, SSIM, flicker, and NIQE, BRISQUE "
        "and VIIDEO, which need no original; with COMPRESSED, what it was restored from, also the gain, restored minus "
        "compressed. Of folders, files with the same path but for the extension are compared, and the mean gain has "
        "its 95 % bootstrap interval. Frames of videos are compared that are shown at the same time.",
        epilog="'-' in a table: not measured, and a note says why; 'inf': infinite, as the PSNR of equal pictures is. "
        "Exit code: 0 done; 2 an error, or a file of a folder could not be compared; 3 a video breaks off or is "
        "damaged, and what decodes of it was compared; 130 interrupted.",
    )
    parser.add_argument("original", metavar="ORIGINAL", help="a picture, a video or a folder; '-' if there is none")
    parser.add_argument("restored", type=Path, metavar="RESTORED", help="likewise")
    parser.add_argument("compressed", type=Path, nargs="?", metavar="COMPRESSED", help="likewise")
    parser.add_argument(
        "--metrics",
        type=lambda text: text.split(","),
        metavar="NAMES",
        help="only these, separated by commas: psnr, psnr_y, psnr_b, ssim, ms_ssim, flicker, niqe, brisque, viideo, "
        "bits_per_pixel. PSNR alone takes a fifth of the time of all, which counts for long videos (default: all)",
    )
    parser.add_argument(
        "--every",
        type=at_least_one,
        default=10,
        metavar="N",
        help="measure NIQE and BRISQUE of every so many frames of a video (default: 10)",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write all values as JSON; '-' prints that and no table. Infinite values are the string Infinity",
    )
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="write what is measured of each frame of a video, or each picture"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from keras_deartifact import compare

    original = None if arguments.original == "-" else Path(arguments.original)
    given = [path for path in (original, arguments.restored, arguments.compressed) if path is not None]
    targets = [Path(target) for target in (arguments.json, arguments.csv) if target is not None and target != "-"]
    _check_targets(given, targets, arguments.overwrite)
    isolation.working_on(arguments.restored)
    options: dict[str, Any] = {"wanted": arguments.metrics, "every": arguments.every}
    if any(path.is_dir() for path in given):
        with console.progress(None, str(arguments.restored), " files") as step_to:
            folders = compare.compare_folders(
                original, arguments.restored, arguments.compressed, progress=step_to, **options
            )
        rows, values, lines = folders.rows, _folder_values(folders), _folder_lines(folders)
    else:
        total = frame_count(arguments.restored) if _is_video(arguments.restored) else None
        with console.progress(total, arguments.restored.name) as step_to:
            single = compare.compare_files(
                original, arguments.restored, arguments.compressed, progress=step_to, **options
            )
        rows, values, lines = [single], _file_values(single), _file_lines(single)
    failed = values.get("failed", {})
    if arguments.csv is not None:
        _write(given, arguments.csv, arguments.overwrite, _csv_rows(rows))
    if arguments.json == "-":
        print(as_json(values))
    else:
        if arguments.json is not None:
            _write(given, Path(arguments.json), arguments.overwrite, as_json(values))
        for line in lines:
            console.show(line)
    broken = [trouble for row in rows for trouble in row.broken]
    for name, trouble in failed.items():
        console.say(f"error: {name}: {trouble}")
    for trouble in broken:
        console.say(f"warning: {console.sentence(ValueError(trouble))}")
    if failed:
        return FAILED
    return BROKEN if broken else DONE


def _is_video(path: Path) -> bool:
    from keras_deartifact import files

    return files.kind(path) == "video"


def _check_targets(given: Sequence[Path], targets: Sequence[Path], overwrite: bool) -> None:
    """Refuses targets before the work, not after it."""
    from keras_deartifact import files

    for target in targets:
        if files.has_media_name(target):
            raise ValueError(f"expected a file for values, not one named like a picture or video. Received: {target}")
        for path in given:
            files.check_target(path, target, overwrite)
    if len({target.resolve() for target in targets}) < len(targets):
        raise ValueError(f"expected different files for --json and --csv. Received: {targets[0]}")


def _write(given: Sequence[Path], target: Path, overwrite: bool, content: str | list[list[str]]) -> None:
    from keras_deartifact import files

    with (
        files.replacing(given[0], target, overwrite) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        if isinstance(content, str):
            stream.write(content + "\n")
        else:
            csv.writer(stream, lineterminator="\n").writerows(content)


# Values.


def _file_values(row: "Comparison") -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "files": row.files,
        "width": row.width,
        "height": row.height,
        "frames": row.frame_count,
        "better": _better(name for each in row.values.values() for name in each),
        "values": {role: {name: _finite(value) for name, value in each.items()} for role, each in row.values.items()},
        "gains": {name: _finite(value) for name, value in row.gains.items()},
        "notes": row.notes,
        "broken": row.broken,
    }


def _folder_values(found: "FolderComparison") -> dict[str, Any]:
    means = found.means
    return {
        "kind": "folder",
        "folders": found.folders,
        "better": _better(name for each in means.values() for name in each),
        "means": {role: {name: _finite(value) for name, value in each.items()} for role, each in means.items()},
        "gains": {
            name: {
                "mean": gain.mean,
                "low": gain.low,
                "high": gain.high,
                "files": gain.count,
                "files_better": gain.better,
            }
            for name, gain in found.gains.items()
        },
        "rows": [_file_values(row) for row in found.rows],
        "unmatched": found.unmatched,
        "failed": found.failed,
        "skipped": found.skipped,
        "notes": found.notes,
    }


def _better(names: Iterator[str]) -> dict[str, str | None]:
    from keras_deartifact.compare import METRICS

    measured = set(names)
    return {name: metric.better for name, metric in METRICS.items() if name in measured}


def _finite(value: float | None) -> float | str | None:
    """A value that JSON has a form for."""
    return value if value is None or math.isfinite(value) else f"{'-' if value < 0 else ''}Infinity"


def _csv_rows(rows: Sequence["Comparison"]) -> list[list[str]]:
    """A header, and a row each frame; empty where a metric is not measured."""
    from keras_deartifact.compare import METRICS, ROLES

    measured = {
        (role, name) for row in rows for sample in row.samples for role in sample.values for name in sample.values[role]
    }
    columns = [(role, name) for role in ROLES for name in METRICS if (role, name) in measured]
    lines = [["file", "pts", "seconds", *(f"{role}_{name}" for role, name in columns)]]
    for row in rows:
        for sample in row.samples:
            time = ["", ""] if sample.time is None else [str(sample.time), f"{float(sample.time):.6f}"]
            values = (sample.values.get(role, {}).get(name) for role, name in columns)
            lines.append([row.name, *time, *("" if value is None else repr(value) for value in values)])
    return lines


# Tables.


def _file_lines(row: "Comparison") -> Iterator[str]:
    from keras_deartifact.compare import METRICS

    frames = f", {row.frame_count} frames compared, means over them" if row.kind == "video" else ""
    yield f"{row.name}: {row.kind}, {row.width}x{row.height}{frames}"
    yield from (f"{role}: {path}" for role, path in row.files.items() if role != "restored")
    yield ""
    gains = row.gains
    head = ["", "better", *row.files, *(["gain"] if "compressed" in row.files else [])]
    table = [head]
    for name, metric in METRICS.items():
        if not any(name in each for each in row.values.values()):
            continue
        cells = [_cell(row.values[role], name) for role in row.files]
        gain = [_cell(gains, name, signed=True)] if "compressed" in row.files else []
        table.append([_label(name), metric.better or "", *cells, *gain])
    yield from aligned(table, 2)
    yield from _notes(row.notes)


def _folder_lines(found: "FolderComparison") -> Iterator[str]:
    from keras_deartifact.compare import METRICS

    count = len(found.rows)
    yield from (f"{role}: {folder}" for role, folder in found.folders.items())
    has_gains = "compressed" in found.folders
    names = [name for name in METRICS if any(name in row.values["restored"] for row in found.rows)]
    if found.rows:
        yield from ("", "restored")
        yield from _by_file(found, names, [row.values["restored"] for row in found.rows], signed=False)
    if found.rows and has_gains:
        shown = [name for name in names if METRICS[name].better is not None]
        yield from ("", "gain: restored minus compressed")
        yield from _by_file(found, shown, [row.gains for row in found.rows], signed=True)
    means, gains = found.means, found.gains
    head = ["", "better", *found.folders, *(["gain", "95 % interval", "better in"] if has_gains else [])]
    table = [head]
    for name in [name for name in METRICS if any(name in each for each in means.values())]:
        cells = [_label(name), METRICS[name].better or "", *(_cell(means[role], name) for role in found.folders)]
        if has_gains and name in gains:
            gain = gains[name]
            low, high = (_number(name, end, signed=True) for end in (gain.low, gain.high))
            interval = "-" if gain.count == 1 else f"{low} to {high}"
            cells += [_number(name, gain.mean, signed=True), interval, f"{gain.better} of {gain.count}"]
        table.append(cells + [""] * (len(head) - len(cells)))
    if count:
        yield from ("", f"mean of {count} file{'' if count == 1 else 's'}")
        yield from aligned(table, 2)
    notes = [
        f"{role}: {len(paths)} without a partner: {', '.join(paths)}"
        for role, paths in found.unmatched.items()
        if paths
    ]
    if found.failed:
        notes.append(f"{len(found.failed)} could not be compared: {', '.join(found.failed)}")
    if found.skipped:
        notes.append(f"{len(found.skipped)} neither pictures nor videos: {', '.join(found.skipped)}")
    yield from _notes([*found.notes, *notes])


def _by_file(
    found: "FolderComparison", names: Sequence[str], values: Sequence[dict[str, float | None]], signed: bool
) -> Iterator[str]:
    """A row each file, a column each metric; which way is better stands below its name."""
    from keras_deartifact.compare import METRICS

    table = [
        ["", *(METRICS[name].label for name in names)],
        ["better", *(METRICS[name].better or "" for name in names)],
    ]
    for row, each in zip(found.rows, values, strict=True):
        table.append([_shortened(row.name), *(_cell(each, name, signed) for name in names)])
    return aligned(table, 1)


def _notes(notes: Sequence[str]) -> Iterator[str]:
    if notes:
        yield ""
    yield from (f"note: {note}" for note in notes)


def _label(name: str) -> str:
    from keras_deartifact.compare import METRICS

    metric = METRICS[name]
    return f"{metric.label}, {metric.unit}" if metric.unit else metric.label


def _cell(values: dict[str, float | None], name: str, signed: bool = False) -> str:
    """Empty for what there is not, such as the PSNR of the original; a dash for what cannot be measured."""
    if name not in values:
        return ""
    value = values[name]
    return "-" if value is None else _number(name, value, signed)


def _number(name: str, value: float, signed: bool = False) -> str:
    from keras_deartifact.compare import METRICS

    return f"{value:{'+' if signed else ''}.{METRICS[name].decimals}f}"


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME_WIDTH else f"...{name[3 - _NAME_WIDTH :]}"
