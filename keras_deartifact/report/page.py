"""The page itself: what was run, a table of the files, and for some of them pictures and curves."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from keras_deartifact.report.plot import plot
from keras_deartifact.report.samples import Samples
from keras_deartifact.report.viewer import picture_address, script_data, text_of, with_viewer

__all__ = ["Entry", "page"]

Row = Sequence[str]


@dataclass(frozen=True)
class Entry:
    """A file that is looked at closely: its name, what was found of it and done to it, and what was looked at."""

    name: str
    samples: Samples
    facts: dict[str, str] = field(default_factory=dict)


def page(title: str, facts: dict[str, str], head: Row, rows: Sequence[Row], entries: Sequence[Entry]) -> str:
    """Returns the page as HTML. All text in it is taken as text.

    Args:
        title: of the page.
        facts: what was run, by name.
        head: of the table of files.
        rows: of it.
        entries: the files that are looked at closely.
    """
    parts = {
        "title": html.escape(title),
        "facts": _list(facts),
        "table": _table(head, rows) if rows else "",
        "entries": "".join(_entry(entry, index) for index, entry in enumerate(entries)),
        "pictures": script_data([_pictures(entry) for entry in entries]),
    }
    template = with_viewer(text_of("page.html"))
    # In one go: what stands in a name is not looked at again.
    return re.sub(r"<!-- (\w+) -->", lambda place: parts[place[1]], template)


def _list(facts: dict[str, str]) -> str:
    return "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in facts.items())


def _table(head: Row, rows: Sequence[Row]) -> str:
    top = "".join(f"<th scope=col>{html.escape(cell)}</th>" for cell in head)
    body = ""
    for first, *rest in rows:
        body += f"<tr><th scope=row>{html.escape(first)}</th>"
        body += "".join(f"<td>{html.escape(cell)}</td>" for cell in rest) + "</tr>"
    return f"<h2>Files</h2><div class=scroll><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def _entry(entry: Entry, index: int) -> str:
    plots = ""
    if entry.samples.steps:
        plots += plot("log2 of the quantiser step", entry.samples.steps)
    if len(entry.samples.change.points) > 1:
        plots += plot("change by restoring, rms in levels of 255", [entry.samples.change], least=0.0)
    return (
        f"<section><h2>{html.escape(entry.name)}</h2><dl>{_list(entry.facts)}</dl>"
        f'<div class=plots>{plots}</div><div class=viewers id="viewers-{index}"></div></section>'
    )


def _pictures(entry: Entry) -> list[dict[str, object]]:
    return [
        {
            "name": shown.name or entry.name,
            "width": next(iter(shown.versions.values())).shape[1],
            "height": next(iter(shown.versions.values())).shape[0],
            "versions": {name: picture_address(pixels) for name, pixels in shown.versions.items()},
        }
        for shown in entry.samples.shown
    ]
