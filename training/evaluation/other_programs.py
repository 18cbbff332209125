"""Figures of the other measuring programs, which come in files: what a detector finds, and speed.

A reader returns the tables of a file, and facts about where they come from, by name.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_deartifact import bench
from training.evaluation.tables import Table

__all__ = ["DETECTION_METRICS", "detection_table", "read_detection", "read_speed"]

DETECTION_METRICS = ("mAP50", "mAP50:95")

# What goes wrong where a file is another program's.
_STRANGE = (AttributeError, KeyError, TypeError, ValueError)


def read_detection(file: str | Path) -> tuple[list[Table], dict[str, str]]:
    """Reads what `training.evaluate_detection --json` wrote.

    Raises:
        ValueError: the file cannot be read, or holds something else.
    """
    figures = _read(file)
    try:
        least_score, resamples = f"{figures['least score']:g}", figures["resamples"]
        facts = {"detection": f"{file}: from a score of {least_score} on, intervals of {resamples} resamples"}
        if "command" in figures:
            facts["detection, command"] = figures["command"]
        facts |= {f"detection, SHA-256 of {name}": digest for name, digest in figures["sha256"].items()}
        return [detection_table(figures)], facts
    except _STRANGE as error:
        raise ValueError(f"Expected what training.evaluate_detection --json writes in {file}.") from error


def detection_table(figures: Mapping[str, Any]) -> Table:
    """Returns the table of what `training.evaluate_detection` measured, of the form of its JSON."""
    title = f"Detection: {figures['objects']} objects on {figures['pictures']} pictures"
    without = figures["pictures without labels"]
    title += f", {without} of them without a file of labels" if without else ""
    cells = []
    for row in figures["rows"]:
        line = [row["method"], f"JPEG {row['quality']}" if row["quality"] else ""]
        for name in DETECTION_METRICS:
            value, low, high = row.get("difference", {}).get(name, (None, None, None))
            line.append(f"{row[name]:.3f}")
            line.append("" if value is None else f"{value:+.3f} ({low:+.3f} to {high:+.3f})")
        cells.append([*line, row.get("against", "")])
    heads = [head for name in DETECTION_METRICS for head in (name, "difference")]
    note = "Mean average precision by COCO's rule; up is better. Differences with their 95 % interval over pictures."
    return Table(title, note, ["", "", *heads, "against"], cells)


def read_speed(file: str | Path) -> tuple[list[Table], dict[str, str]]:
    """Reads what `deartifact bench --json` wrote.

    Raises:
        ValueError: the file cannot be read, or holds something else.
    """
    values = _read(file)
    try:
        tables = [table for size in bench.read_sizes(values) for table in _speed_tables(size)]
        facts = {"speed": "; ".join([f"{file}: {', '.join(bench.machine_lines(values['machine']))}", *values["notes"]])}
        facts |= {f"speed, SHA-256 of {name}": digest for name, digest in values.get("sha256", {}).items()}
    except _STRANGE as error:
        raise ValueError(f"Expected what deartifact bench --json writes in {file}.") from error
    return tables, facts


def _speed_tables(size: bench.SizeReport) -> list[Table]:
    frames = f"{size.width}x{size.height}"
    how = "Frames a second: the median over the rounds, with the lowest and the highest; ratios are to the first model."
    peak = f"The machine's peak, by a product of float32 matrices: {bench.cell(size.peak_gmac_per_second)} GMAC/s."
    made = (
        (f"Speed of networks alone, {frames}", f"{how} {peak}", bench.network_table(size.networks)),
        (f"Speed of the stages around a network, {frames}", how, bench.stage_table(size.stages)),
        (f"Speed from file to file, {frames}", f"{how} Each in a process of its own.", bench.run_table(size.runs)),
    )
    return [Table(title, note, head, rows) for title, note, (head, *rows) in made]


def _read(file: str | Path) -> Any:
    try:
        return json.loads(Path(file).read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ValueError(f"Expected JSON in {file}.") from error
