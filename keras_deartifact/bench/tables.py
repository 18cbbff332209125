"""Rows as cells, for whoever prints them. The first line of a table is its head; "-" is what is not known."""

from collections.abc import Sequence

from keras_deartifact.bench.results import NetworkRow, RunRow, Spread, StageRow, engine_name

__all__ = ["cell", "network_table", "run_table", "stage_table"]

Cells = list[list[str]]


def network_table(rows: Sequence[NetworkRow]) -> Cells:
    """Returns networks by themselves."""
    table = [["network", "engine", "fps", "ratio", "GMAC", "GMAC/s", "of peak, %"]]
    for row in rows:
        work = "-" if row.gmac is None else f"{row.gmac:.3g}"
        speeds = [cell(row.gmac_per_second), cell(row.share_of_peak, 0, 100)]
        engine = engine_name(row.engine, row.provider)
        table.append([row.name, engine, cell(row.fps), cell(row.ratio, 2), work, *speeds])
    return table


def stage_table(rows: Sequence[StageRow]) -> Cells:
    """Returns the stages around a network by themselves."""
    return [["stage", "fps", "ratio"], *([row.name, cell(row.fps), cell(row.ratio, 2)] for row in rows)]


def run_table(rows: Sequence[RunRow]) -> Cells:
    """Returns whole runs."""
    table = [["whole run", "engine", "fps", "ratio", "network busy, %", "peak memory, MB"]]
    for row in rows:
        memory = "-" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f}"
        busy = cell(row.inference_busy, 0, 100)
        engine = engine_name(row.engine, row.provider)
        table.append([row.name, engine, cell(row.fps), cell(row.ratio, 2), busy, memory])
    return table


def cell(spread: Spread | None, decimals: int = 1, scale: float = 1.0) -> str:
    """Returns a median with the lowest and the highest in brackets."""
    if spread is None:
        return "-"
    median, low, high = (f"{scale * value:.{decimals}f}" for value in (spread.median, spread.low, spread.high))
    return f"{median} ({low}..{high})"
