"""Single segments of a video, restored apart from each other, anywhere, and joined: the file that one run makes.

    plan = plan_video(source, target)
    records = [restore_segment(restorer, predictor, source, plan, index, paths[index]) for index in any order]
    join_segments(source, target, plan, records, paths)

Each segment notes a digest of what was decoded before it, and of what was at its end (`maps.Maps.digest`). Where two
neighbours are not at one, the decoder of one began at a frame that the file calls a key frame, and is none: `seams`
tells, and that segment has to be made from frames that are decoded from the start of the file. So are, without asking,
those in which something is damaged.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from keras_deartifact import files
from keras_deartifact.engines import Predictor, Restorer
from keras_deartifact.restore import journal
from keras_deartifact.restore.journal import Segment
from keras_deartifact.restore.plan import VideoPlan
from keras_deartifact.restore.run import Run


class _Single:
    """A shelf for one segment.

    Attributes:
        part: where it is written.
        last: nothing comes before it.
        segment: when it is finished.
    """

    def __init__(self, path: Path) -> None:
        self.part = path
        self.last: int | None = None
        self.segment: Segment | None = None

    def add(self, segment: Segment) -> None:
        """See `segments.Shelf`."""
        self.segment = replace(segment, sha256=journal.digest(self.part))


def restore_segment(
    restorer: Restorer,
    predictor: Predictor | None,
    source: files.StrPath,
    plan: VideoPlan,
    index: int,
    path: files.StrPath,
    *,
    from_start: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Segment:
    """Restores one segment of a video, to the packets that `restore_video` makes of it.

    Args:
        restorer: see `restore_video`.
        predictor: likewise.
        source: likewise.
        plan: of `plan_video`, with segments.
        index: of the segment in the plan.
        path: the file to write its packets to (`video.segments`); replaced if it exists.
        from_start: decode all of the source up to the segment's end, whatever the plan says.
        progress: called after each restored frame, in the calling thread, with the number of frames so far.

    Returns:
        What is known of it. A segment in which no frame decodes has none.

    Raises:
        ValueError: see `restore_video`; or the plan has no such segment, or none at all; or it is one of another file.
        OSError: the file system does not give or take it.
    """
    if not plan.segments:
        raise ValueError(f"a video in one piece must be restored by restore_video. Received: {os.fspath(source)}")
    if not 0 <= index < len(plan.segments):
        raise ValueError(f"expected the index of one of {len(plan.segments)} segments. Received: index={index}")
    path = Path(path)
    if from_start:
        segments = list(plan.segments)
        segments[index] = replace(segments[index], place=None)
        plan = replace(plan, segments=tuple(segments))
    # How frames are encoded depends on the container.
    trial = path.with_name(f"{files.TEMPORARY_PREFIX}{path.name}{plan.suffix}")
    try:
        writer = plan.writer(trial, source)
        writer.close()
    finally:
        trial.unlink(missing_ok=True)
    single = _Single(path)
    Run(restorer, predictor, source, plan, progress).encode(single, writer.encoding, index, index + 1)
    if single.segment is None:
        raise ValueError(f"the source must be the plan's. Received: {os.fspath(source)}")
    return single.segment


def seams(records: Sequence[Segment]) -> list[int]:
    """The segments that are to be made anew with `from_start`: one does not go on from what its neighbour ends with.

    Returns:
        Their indices, in order; when they are made anew, there may be others.
    """
    wrong = set()
    for index in range(1, len(records)):
        if records[index].before != records[index - 1].after:
            wrong |= {each for each in (index - 1, index) if not records[each].from_start}
    return sorted(wrong)


def join_segments(
    source: files.StrPath,
    target: files.StrPath,
    plan: VideoPlan,
    records: Sequence[Segment],
    paths: Sequence[files.StrPath],
    *,
    overwrite: bool = False,
) -> str | None:
    """Makes the restored video from all of its segments; it gets its name when it is complete.

    Args:
        source: see `restore_video`.
        target: likewise.
        plan: of `plan_video`.
        records: of `restore_segment`, one for each segment.
        paths: of their packets.
        overwrite: whether an existing target may be replaced.

    Returns:
        What of the other streams is damaged and could not be copied; None for nothing.

    Raises:
        ValueError: a segment is missing, has other packets than it had, or does not follow the one before (`seams`);
            or the target is the source.
        FileExistsError: the target exists, and `overwrite` is False.
        OSError: the file system does not give or take it.
    """
    places = [Path(path) for path in paths]
    if not len(plan.segments) == len(records) == len(places):
        raise ValueError(
            f"expected {len(plan.segments)} segments. Received: {len(records)} records and {len(places)} paths"
        )
    if wrong := seams(records):
        raise ValueError(
            f"each segment must follow the one before; make these anew with from_start=True. Received: {wrong}"
        )
    for record, path in zip(records, places, strict=True):
        if journal.digest(path) != record.sha256:
            raise ValueError(f"the packets must be those of the record. Received: {path}")
    with files.replacing(source, target, overwrite) as temporary, plan.writer(temporary, source) as writer:
        writer.write_segments(places)
    return writer.damaged
