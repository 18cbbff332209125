"""How far an archive is, from its ledger alone: for the run at work, and for whoever asks from elsewhere."""

from collections.abc import Iterator
from typing import Any

from keras_deartifact import console
from keras_deartifact.archive.ledger import FINISHED, Ledger

# Of many files only so many are listed.
_LISTED = 20


def progress(ledger: Ledger) -> dict[str, Any]:
    """How far all files are, and what the last run did.

    Returns:
        `share`, done of all bytes; `files`, finished, of `of`; `failed` of these; of the last run `frames`, `seconds`
        that it took, `fps`, `video_hours_per_hour`, `nodes`, and `cost_per_video_hour`, None where that is not known.
    """
    counts = ledger.counts()
    done = ledger.segments_done()
    finished = ledger.size(*FINISHED)
    partly = sum(file.size * done.get(file.name, 0) / (file.segments or 1) for file in ledger.files("working"))
    known: dict[str, Any] = {
        "share": (finished + partly) / max(1, ledger.size()),
        "files": sum(counts[state] for state in FINISHED),
        "of": sum(counts.values()),
        "failed": counts["failed"],
    }
    runs = ledger.runs()
    if not runs:
        return known
    last = runs[-1]
    seconds = max(last["seen"] - last["started"], 1e-3)
    cost = last["cost_per_node_hour"]
    is_known = cost is not None and last["video_seconds"] > 0
    return known | {
        "frames": last["frames"],
        "seconds": round(seconds, 3),
        "fps": round(last["frames"] / seconds, 3),
        "video_hours_per_hour": round(last["video_seconds"] / seconds, 4),
        "nodes": last["nodes"],
        "cost_per_video_hour": round(cost * last["node_seconds"] / last["video_seconds"], 4) if is_known else None,
    }


def line(values: dict[str, Any]) -> str:
    """The same for a reader, in one line."""
    parts = [f"{values['files']} of {values['of']} files"]
    if values["failed"]:
        parts[0] += f", {values['failed']} failed"
    if values.get("frames"):
        parts.append(f"{values['fps']:.1f} fps")
        hours = values["video_hours_per_hour"]
        parts.append(f"{hours:.0f} hours of video an hour" if hours >= 10 else f"{hours:.2g} hours of video an hour")
    if (values.get("nodes") or 1) > 1:
        parts.append(f"{values['nodes']} nodes")
    if values.get("cost_per_video_hour") is not None:
        parts.append(f"{values['cost_per_video_hour']:.2f} an hour of video")
    return ", ".join(parts)


def status(ledger: Ledger, is_at_work: bool) -> Iterator[str]:
    """What there is to tell of an archive, line by line."""
    values = progress(ledger)
    yield f"{100 * values['share']:.1f} % done, {'at work' if is_at_work else 'no run of this machine is at work'}"
    yield line(values)
    counts = ledger.counts()
    yield ", ".join(f"{count} {state}" for state, count in counts.items())
    runs = ledger.runs()
    total = {name: sum(run[name] for run in runs) for name in ("frames", "video_seconds", "node_seconds")}
    hours = f"{total['video_seconds'] / 3600:.2f} hours of video, {console.duration(total['node_seconds'])} of machines"
    yield f"all runs ({len(runs)}): {total['frames']} frames, {hours}"
    done = ledger.segments_done()
    working = ledger.files("working")
    for file in working[:_LISTED]:
        yield f"at work: {file.name}: {done.get(file.name, 0)} of {file.segments} segments"
    if len(working) > _LISTED:
        yield f"at work: {len(working) - _LISTED} more"
    for state in ("failed", "incomplete"):
        for file in ledger.files(state):
            yield f"{state}: {file.name}: {file.message}"
