"""What becomes tight when an archive of 10,000 hours is restored by 10, 100 and 1000 machines: `docs/scale.md`.

    python docs/scale.py measure > measured.json     times of this machine, ten minutes or so
    python docs/scale.py simulate measured.json      the tables of docs/scale.md

Costs are processor seconds, so that other work on the machine does not count. The simulation moves units of work
through three things that can be too slow: the machines' processors, the driver, which handles one unit after the other,
and the storage, which passes on so many bytes a second in all.
"""

import argparse
import collections
import copy
import dataclasses
import heapq
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

HOURS = 10_000
FILM_HOURS = 2
FRAMES_A_SECOND = 25

PROCESSORS = 16
"""Of a machine; each restores one segment at a time."""

NODE_BYTES_A_SECOND = 1.25e9
STORAGE_BYTES_A_SECOND = 20e9
"""Of a store that many machines read at a time: 16 times what one of them takes."""

SOURCE_BYTES_A_SECOND = 1e6
RESULT_BYTES_A_SECOND = 2e6
"""Of video: 8 Mbit/s come in, and what is encoded at CRF 14 is about twice as much."""

GROUP = 12
"""So many segments are one event of the simulation, where it does not count which machine has which."""

TOGETHER = 16
"""So many go to a machine together where it has to copy the film."""


@dataclass(frozen=True)
class Costs:
    """What a unit takes, in seconds.

    Attributes:
        segment: processor, of a segment of `frames` frames.
        plan: processor, of planning and hashing a second of video.
        join: processor, of joining a second of video.
        ledger: driver, of a unit.
        ray: driver, of handing a unit to Ray and taking it back.
        frames: of a segment.
    """

    segment: float
    plan: float
    join: float
    ledger: float
    ray: float
    frames: int = 240


# Measuring.


def measure() -> dict[str, Any]:
    """Times the parts of an archive on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        known: dict[str, Any] = {"ledger": _ledger(Path(folder)), "ray": _ray(Path(folder))}
        known |= _parts(Path(folder), (1280, 720), 480)
        known["workers"] = _workers(Path(folder))
    return known


def _clip(path: Path, size: tuple[int, int], frames: int) -> Path:
    """The film of `deartifact demo`, as large and long as it has to be."""
    import av

    from keras_deartifact import demo

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(Path(demo.__file__).parent / "bigbuckbunny.mkv")) as source:
        pictures = [frame.reformat(*size, "yuv420p") for frame in source.decode(video=0)]
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=FRAMES_A_SECOND, options={"crf": "30", "threads": "1"})
        stream.width, stream.height = size
        for index in range(frames):
            # Back and forth, without a cut.
            there, back = index % len(pictures), (index // len(pictures)) % 2
            picture = pictures[-1 - there if back else there]
            picture.pts, picture.time_base = index, Fraction(1, FRAMES_A_SECOND)
            picture.pict_type = 0
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    return path


def _seconds(start: float) -> float:
    return time.process_time() - start


def _parts(folder: Path, size: tuple[int, int], frames: int) -> dict[str, Any]:
    from keras_deartifact import engines, restore
    from keras_deartifact.archive.units import _digest

    source, target = _clip(folder / "clip.mp4", size, frames), folder / "restored.mp4"
    restorer, predictor = engines.load("shuffle_nano", "litert", 1), engines.load_predictor(threads=1)
    start = time.process_time()
    plan = restore.plan_video(source, target)
    _digest(source)
    planned = _seconds(start)
    paths = [folder / f"{index}.packets" for index in range(len(plan.segments))]
    start = time.process_time()
    records = [restore.restore_segment(restorer, predictor, source, plan, i, path) for i, path in enumerate(paths)]
    restored = _seconds(start)
    start = time.process_time()
    restore.join_segments(source, target, plan, records, paths)
    joined = _seconds(start)
    video = frames / FRAMES_A_SECOND
    return {
        "size": size,
        "frames": plan.segments[0].frames,
        "segment": restored / len(paths),
        "plan": planned / video,
        "join": joined / video,
        "source_bytes_a_second": source.stat().st_size / video,
        "result_bytes_a_second": target.stat().st_size / video,
    }


class _Instant:
    """An executor whose units take no time; see `archive.executors.Executor`."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._waiting: list[tuple[int, Any]] = []

    def room(self) -> int:
        return self._room - len(self._waiting)

    def nodes(self) -> int:
        return 1

    def submit(self, number: int, job: Any, task: Any) -> None:
        self._waiting.append((number, task))

    def wait(self, seconds: float) -> list[Any]:
        from keras_deartifact.archive.executors import Outcome
        from keras_deartifact.archive.units import Result

        record = {"frames": 240, "last": 1, "predictions": [4.0] * 10, "stated": True, "sha256": "0" * 64}
        begun = {"state": "working", "key": "k", "segments": 750, "frames": 180_000, "seconds": 7200.0, "notes": []}
        values = {
            "begin": [begun],
            "segment": [record],
            "join": {"state": "restored", "message": None, "frames": 180_000},
            "clear": None,
        }
        done, self._waiting = self._waiting, []
        # The driver changes what it gets.
        return [Outcome(number, Result(copy.deepcopy(values[task.kind]))) for number, task in done]


def _ledger(folder: Path) -> float:
    """The driver's own seconds for a unit: 20 films of 750 segments, 1000 of these at a time."""
    from keras_deartifact.archive import driver, keeping, storage
    from keras_deartifact.archive.networks import Networks
    from keras_deartifact.archive.units import Job

    place, job = storage.place(str(folder / "none")), Job("", "", Networks(""), (("bits", None),), None, "")
    with keeping.opened(place, folder) as kept:
        run = driver.Driver(job, _Instant(1000), kept, place, driver.Settings(), lambda event: None)
        run.add([storage.Entry(f"{index}.mp4", 1 << 30, "1") for index in range(20)])
        start = time.process_time()
        run.work()
        return _seconds(start) / (20 * 753)


def _ray(folder: Path) -> float:
    """The driver's seconds for a unit that does nothing, of 2000, with 16 always waiting."""
    from keras_deartifact.archive.cluster import Ray
    from keras_deartifact.archive.networks import Networks
    from keras_deartifact.archive.resources import Resources
    from keras_deartifact.archive.units import Job, Task

    job = Job(str(folder), str(folder / "none"), Networks(""), (), None, str(folder))
    with Ray("local", Resources(0.1)) as cluster:
        for number in range(32):
            cluster.submit(number, job, Task("clear"))
        done, begun, start = 0, 32, 0.0
        while done < 2000:
            done += len(cluster.wait(1.0))
            # Until then processes start.
            start = start or time.process_time()
            for number in range(begun, min(begun + 32, done + 16)):
                cluster.submit(number, job, Task("clear"))
                begun += 1
        return _seconds(start) / done


def _workers(folder: Path) -> list[dict[str, float]]:
    """Whole runs over one video of four segments, by one worker and by two, of one thread each, in turns."""
    _clip(folder / "tapes" / "clip.mp4", (640, 360), 960)
    runs = []
    for count in (1, 2, 1, 2):
        target = folder / f"out{len(runs)}"
        options = ["--jobs", str(count), "--threads", "1", "--engine", "litert", "--json", str(target) + ".log"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        code = "import sys; from keras_deartifact.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "archive", str(folder / "tapes"), str(target), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        lines = Path(f"{target}.log").read_text("utf-8").splitlines()
        events = [json.loads(line) for line in lines]
        wall = next(each["seconds"] for each in reversed(events) if each["event"] == "progress")
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        runs.append({"workers": count, "wall_seconds": wall, "processor_seconds": round(used, 2)})
    return runs


# Simulating.


@dataclass
class Usage:
    """What a simulated archive took.

    Attributes:
        hours: until all was done.
        processors: share of their time in which they worked.
        driver: likewise.
        storage: likewise.
        petabytes: that the storage passed on.
    """

    hours: float
    processors: float
    driver: float
    storage: float
    petabytes: float


class _Server:
    """Serves one after the other."""

    def __init__(self) -> None:
        self.free = 0.0
        self.busy = 0.0

    def serve(self, now: float, seconds: float) -> float:
        """Returns when it is done."""
        self.free = max(self.free, now) + seconds
        self.busy += seconds
        return self.free


def simulate(
    costs: Costs,
    nodes: int,
    is_copied: bool,
    drivers: int = 1,
    storage_bytes: float = STORAGE_BYTES_A_SECOND,
) -> Usage:
    """Restores `HOURS` of films.

    Args:
        costs: of units.
        nodes: machines.
        is_copied: whether each machine copies each film that it works on, as from a URL; else it reads, as from a
            mounted folder, what a segment needs.
        drivers: that share the films, each with its share of the machines and of the storage.
        storage_bytes: a second.
    """
    films = round(HOURS / FILM_HOURS) // drivers
    nodes //= drivers
    film = FILM_HOURS * 3600
    group = TOGETHER if is_copied else GROUP
    segment = costs.frames / FRAMES_A_SECOND
    parts = max(1, round(film / segment / group))
    queues = {kind: collections.deque[int]() for kind in ("join", "segment", "begin")}
    queues["begin"].extend(range(films))
    left = [parts] * films
    free = [node for _ in range(PROCESSORS) for node in range(nodes)]
    copies = [set[int]() for _ in range(films)]
    driver, storage = _Server(), _Server()
    share = storage_bytes / drivers
    events: list[tuple[float, int, str, int, int]] = []
    worked = moved = now = 0.0
    count = 0

    def carry(at: float, size: float) -> float:
        nonlocal moved
        moved += size
        return max(storage.serve(at, size / share), at + size / NODE_BYTES_A_SECOND)

    def read(at: float, kind: str, which: int, node: int) -> float:
        size = film * SOURCE_BYTES_A_SECOND if kind != "segment" else film / parts * SOURCE_BYTES_A_SECOND
        if is_copied:
            size = 0.0 if node in copies[which] else film * SOURCE_BYTES_A_SECOND
            copies[which].add(node)
        if kind == "join":
            size += film * RESULT_BYTES_A_SECOND
        return carry(at, size)

    seconds = {"begin": film * costs.plan, "segment": group * costs.segment, "join": film * costs.join}
    written = {"begin": 0.0, "segment": film / parts * RESULT_BYTES_A_SECOND, "join": film * RESULT_BYTES_A_SECOND}
    while True:
        while free and any(queues.values()):
            kind = next(kind for kind, queue in queues.items() if queue)
            which, node = queues[kind].popleft(), free.pop()
            begun = driver.serve(now, _driving(costs, kind, group, is_copied))
            worked += seconds[kind]
            count += 1
            heapq.heappush(events, (read(begun, kind, which, node) + seconds[kind], count, kind, which, node))
        if not events:
            break
        now, _, kind, which, node = heapq.heappop(events)
        if kind in written and written[kind]:
            count += 1
            heapq.heappush(events, (carry(now, written[kind]), count, f"{kind} written", which, node))
            continue
        free.append(node)
        if kind == "begin":
            queues["segment"].extend([which] * parts)
        elif kind == "segment written":
            left[which] -= 1
            if not left[which]:
                queues["join"].append(which)
    return Usage(
        now / 3600, worked / (now * nodes * PROCESSORS), driver.busy / now, storage.busy / now, drivers * moved / 1e15
    )


def _driving(costs: Costs, kind: str, group: int, is_copied: bool) -> float:
    """The driver's seconds for an event."""
    count = group if kind == "segment" else 1
    return count * costs.ledger + (1 if is_copied else count) * costs.ray


def rows(costs: Costs) -> Iterator[str]:
    """The table of the simulation, in Markdown."""
    names = "machines | films by | storage, GB/s | commands | hours | processors | driver | storage | petabytes"
    yield f"| {names} |"
    yield "|---" * (names.count("|") + 1) + "|"
    cases = [(nodes, is_copied, 1, 20e9) for nodes in (10, 100, 1000) for is_copied in (False, True)]
    cases += [(1000, False, 1, 200e9), (1000, False, 4, 200e9), (1000, True, 4, 200e9)]
    for nodes, is_copied, drivers, storage in cases:
        usage = simulate(costs, nodes, is_copied, drivers, storage)
        shares = " | ".join(f"{100 * share:.0f} %" for share in (usage.processors, usage.driver, usage.storage))
        way = "copy" if is_copied else "mount"
        start = f"| {nodes} | {way} | {storage / 1e9:.0f} | {drivers} | {usage.hours:.1f}"
        yield f"{start} | {shares} | {usage.petabytes:.2f} |"


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "simulate"))
    parser.add_argument("measured", nargs="?", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "measure":
        print(json.dumps(measure(), indent=2))
        return
    known = json.loads(arguments.measured.read_text("utf-8"))
    costs = Costs(**{field.name: known[field.name] for field in dataclasses.fields(Costs)})
    print("\n".join(rows(costs)))


if __name__ == "__main__":
    main()
