"""The report: one HTML file with everything in it, to be opened in any browser, without a network."""

import html
import io
from collections.abc import Iterable, Sequence
from importlib import resources

from keras_deartifact import report
from training.evaluation.rate import Curve
from training.evaluation.records import COMPRESSED, ORIGINAL
from training.evaluation.stills import Shown
from training.evaluation.tables import Table

__all__ = ["Plot", "render"]

Plot = tuple[str, str, list[Curve]]
"""Title, name of the quality axis, curves."""


def render(
    title: str, facts: dict[str, str], tables: Sequence[Table], plots: Sequence[Plot], shown: Sequence[Shown]
) -> str:
    """Returns the report as HTML.

    Args:
        title: of the page.
        facts: what was run, by name.
        tables: in their order.
        plots: quality over rate.
        shown: pictures to compare by eye.
    """
    template = report.with_viewer(resources.files("training.evaluation").joinpath("report.html").read_text("utf-8"))
    parts = {
        "title": html.escape(title),
        "facts": "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in facts.items()),
        "pictures": _pictures(shown),
        "contents": _contents(tables, bool(plots)),
        "tables": "".join(_table(table, index) for index, table in enumerate(tables)),
        "plots": "".join(_plot(*plot) for plot in plots),
    }
    for name, text in parts.items():
        template = template.replace(f"<!-- {name} -->", text)
    return template


def _contents(tables: Sequence[Table], has_plots: bool) -> str:
    headings = {f"table-{index}": table.title for index, table in enumerate(tables)}
    headings |= {"rate": "Quality over rate"} if has_plots else {}
    headings["pictures"] = "Before and after"
    return "".join(f'<a href="#{name}">{html.escape(title)}</a>' for name, title in headings.items())


def _table(table: Table, index: int) -> str:
    head = "".join(f"<th scope=col>{html.escape(cell)}</th>" for cell in table.head)
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in table.rows)
    note = f"<p>{html.escape(table.note)}</p>" if table.note else ""
    return (
        f"<section id=table-{index}><h2>{html.escape(table.title)}</h2>{note}<div class=scroll>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _cells(row: Iterable[str]) -> str:
    first, *rest = (html.escape(cell) for cell in row)
    # A long name may be broken where its words end.
    return f"<th scope=row>{first.replace('_', '_<wbr>')}</th>" + "".join(f"<td>{_figure(cell)}</td>" for cell in rest)


def _figure(cell: str) -> str:
    """A figure with its interval below it, or the columns would be too wide for a page."""
    value, bracket, interval = cell.partition(" (")
    return f"{value} <small>({interval}</small>" if bracket else cell


def _plot(title: str, quality: str, curves: Sequence[Curve]) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for curve in curves:
        style = "--" if curve.method == COMPRESSED else "-"
        axes.plot(curve.rates, curve.quality, style, marker="o", markersize=4, label=curve.method)
    axes.set(title=title, xlabel="bits per pixel", ylabel=quality)
    axes.grid(alpha=0.3)
    axes.legend()
    buffer = io.StringIO()
    # Without a date and with names that depend on the title alone: the same figures give the same file, and plots on
    # one page do not take each other's.
    with rc_context({"svg.hashsalt": f"{title}, {quality}"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return f"<figure>{svg[svg.index('<svg') :]}</figure>"


def _pictures(shown: Sequence[Shown]) -> str:
    """What the page's script makes its viewers of."""
    items = [
        {
            "name": f"{picture.item}, {picture.setting}",
            "width": int(next(iter(picture.versions.values())).shape[1]),
            "height": int(next(iter(picture.versions.values())).shape[0]),
            "versions": {
                name: report.picture_address(pixels)
                for name, pixels in sorted(picture.versions.items(), key=lambda version: _place(version[0]))
            },
        }
        for picture in shown
    ]
    return report.script_data(items)


def _place(method: str) -> int:
    return {COMPRESSED: 0, ORIGINAL: 2}.get(method, 1)
