"""Records as tables, which the program prints and the report shows."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from training.evaluation import published, rate
from training.evaluation.records import COMPRESSED, ORIGINAL, Estimate, Records

__all__ = ["Table", "delta_rates", "fidelity", "gains", "markdown", "no_reference", "rates"]

# Metric -> its name in a heading, decimals, and which way is better.
METRICS: dict[str, tuple[str, int, str]] = {
    "psnr": ("PSNR over RGB, dB", 2, "up"),
    "psnr_y": ("PSNR over luma, dB", 2, "up"),
    "psnr_b": ("PSNR-B over luma, dB", 2, "up"),
    "ssim": ("SSIM over luma", 4, "up"),
    "vmaf": ("VMAF", 1, "up"),
    "niqe": ("NIQE", 2, "down"),
    "brisque": ("BRISQUE", 1, "down"),
    "viideo": ("VIIDEO", 3, "down"),
    "deep": ("distance in the features of HED VGG-16", 3, "down"),
    "flicker": ("flicker", 3, "down"),
}


@dataclass(frozen=True)
class Table:
    """What to print.

    Attributes:
        title: what it shows.
        note: how to read it; may be empty.
        head: of the columns.
        rows: as many cells each.
    """

    title: str
    note: str
    head: list[str]
    rows: list[list[str]]


def markdown(table: Table) -> Iterator[str]:
    """Yields the lines of a table."""
    yield from ("", f"**{table.title}**", "")
    if table.note:
        yield from (table.note, "")
    yield "| " + " | ".join(table.head) + " |"
    yield "|" + "---|" * len(table.head)
    for row in table.rows:
        yield "| " + " | ".join(row) + " |"


def _number(value: float | None, decimals: int, signed: bool = False) -> str:
    return "" if value is None else f"{value:{'+' if signed else ''}.{decimals}f}"


def _interval(value: Estimate | None, decimals: int) -> str:
    if value is None:
        return ""
    mean, low, high = (_number(each, decimals, signed=True) for each in (value.mean, value.low, value.high))
    return mean if value.count == 1 else f"{mean} ({low} to {high})"


def _restored(records: Records) -> list[str]:
    return [name for name in records.names("method") if name not in (ORIGINAL, COMPRESSED)]


def _count(records: Records) -> str:
    count = len(records.names("item"))
    name = "clip" if records.names("protocol") == ["video"] else "picture"
    return f"{count} {name}{'' if count == 1 else 's'}"


def gains(records: Records, metric: str) -> Table:
    """What every method gains over the compressed input, of records of one set and protocol."""
    name, decimals, better = METRICS[metric]
    settings = records.names("setting")
    rows = []
    compressed = [_mean(records.where(setting=setting, method=COMPRESSED), metric, decimals) for setting in settings]
    rows.append(["compressed", *compressed])
    for method in _restored(records):
        cells = [_interval(records.where(setting=setting).gain(method, metric), decimals) for setting in settings]
        if any(cells):
            rows.append([method, *cells])
    (data,), (protocol,) = records.names("data"), records.names("protocol")
    kind = "" if protocol == "video" else f", {protocol}"
    return Table(
        f"{name[0].upper()}{name[1:]}: {data}, {_count(records)}{kind}",
        f"Mean over the set, and what is gained on it with the 95 % interval of the mean; {better} is better.",
        ["", *settings],
        rows,
    )


def _mean(records: Records, metric: str, decimals: int) -> str:
    value = records.mean(metric)
    return _number(value and value.mean, decimals)


def fidelity(records: Records) -> Table:
    """PSNR, SSIM and PSNR-B of grey pictures, beside what others published for them."""
    settings = records.names("setting")
    (data,) = records.names("data")
    rows: dict[str, list[str]] = {}
    for setting in settings:
        for method, values in published.FIDELITY.get((data.lower(), setting), {}).items():
            rows.setdefault(f"{method} (published)", [""] * len(settings))[settings.index(setting)] = _triple(values)
    for method in [name for name in records.names("method") if name != ORIGINAL]:
        means = [
            [records.where(setting=setting, method=method).mean(metric) for metric in ("psnr_y", "ssim", "psnr_b")]
            for setting in settings
        ]
        rows[method] = [_triple([each.mean for each in triple if each]) for triple in means]
    return Table(
        f"Grey JPEG: {data}, {_count(records)}",
        "PSNR · SSIM · PSNR-B of the luma, a grey JPEG by Pillow. * one model for each quality.",
        ["", *settings],
        [[name, *cells] for name, cells in rows.items()],
    )


def _triple(values: Sequence[float]) -> str:
    # The bar would end a cell.
    return "" if len(values) != 3 else f"{values[0]:.2f} · {values[1]:.3f} · {values[2]:.2f}"


def no_reference(records: Records, metrics: Sequence[str], speeds: dict[str, float] | None = None) -> Table:
    """What needs no original, of records of one set and setting; above it the paper's rows, of its own pictures."""
    (data,), (setting,) = records.names("data"), records.names("setting")
    heads = [METRICS[metric][0] for metric in metrics] + (["fps, 720p"] if speeds else [])
    rows = []
    if setting == "x264 CRF 34":
        for name, (*values, fps) in published.NO_REFERENCE_VIDEO.items():
            cells = [_number(value, METRICS[metric][1]) for metric, value in zip(metrics, values, strict=True)]
            rows.append([f"{name} (the paper, its clips)", *cells, *([_number(fps, 0)] if speeds else [])])
    elif setting == "JPEG 10":
        for name, pair in published.NO_REFERENCE_JPEG_10.items():
            cells = [_number(value, METRICS[metric][1]) for metric, value in zip(metrics, pair, strict=True)]
            rows.append([f"{name} (the paper, its pictures)", *cells])
    for method in [COMPRESSED, *_restored(records), ORIGINAL]:
        cells = [_mean(records.where(method=method), metric, METRICS[metric][1]) for metric in metrics]
        if any(cells):
            rows.append([method, *cells, *([_number(speeds.get(method), 1)] if speeds else [])])
    return Table(f"Without the original: {data}, {_count(records)}, {setting}", "Down is better.", ["", *heads], rows)


def _by_codec(records: Records) -> Iterator[tuple[str, Records]]:
    """Yields the records of each codec that was run at several settings."""
    for codec in dict.fromkeys(rate.codec_of(setting) for setting in records.names("setting")):
        chosen = Records(record for record in records if rate.codec_of(record.setting) == codec)
        if len(chosen.names("setting")) > 1:
            yield codec, chosen


def delta_rates(records: Records, metrics: Iterable[str]) -> list[Table]:
    """The Bjontegaard delta rate of every method, a table for each codec, of records of one set and protocol."""
    tables = []
    (data,) = records.names("data")
    wanted = list(metrics)
    for codec, chosen in _by_codec(records):
        rows = []
        for method in _restored(chosen):
            values = [rate.delta_rate(chosen, method, metric) for metric in wanted]
            cells = [value and f"{_interval(value, 1)}, n = {value.count}" or "" for value in values]
            if any(cells):
                rows.append([method, *cells])
        if rows:
            note = "Percent of bitrate for the same quality, 95 % interval; down is better. n: curves that compare."
            heads = ["", *(METRICS[metric][0] for metric in wanted)]
            tables.append(Table(f"Bjontegaard delta rate: {data}, {codec}", note, heads, rows))
    return tables


def rates(records: Records, metric: str) -> Iterator[tuple[str, list[rate.Curve]]]:
    """Yields the mean curves of quality over rate of every codec, of records of one set and protocol."""
    for codec, chosen in _by_codec(records):
        found = rate.curves(chosen, metric)
        if found:
            yield codec, found
