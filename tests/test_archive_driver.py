"""The ledger, and what the driver makes of what comes back; units are done in this process."""

import dataclasses
import os
import sqlite3

import pytest
from archive_samples import make_trees, require_equal, wait_until
from PIL import Image

from keras_deartifact.archive import driver, executors, keeping, resources, storage, units
from keras_deartifact.archive.driver import Settings
from keras_deartifact.archive.executors import Inline, Outcome
from keras_deartifact.archive.ledger import Ledger
from keras_deartifact.archive.networks import Networks
from keras_deartifact.archive.storage import Entry
from keras_deartifact.archive.units import Job, Result, Task

OPTIONS = {
    "strength": None,
    "quality": None,
    "bits": None,
    "within_quantisation": False,
    "codec": None,
    "crf": None,
    "preset": None,
    "drop": False,
    "deinterlace": False,
}


class Failing(Inline):
    """Gives another outcome than the unit's where `fail`, a function of the task and of how often it came, says so."""

    def __init__(self, fail):
        super().__init__()
        self.tasks = []
        self._fail = fail

    def submit(self, number, job, task):
        self.tasks.append(task)
        super().submit(number, job, task)

    def wait(self, seconds):
        (number, job, task) = self._waiting[0]
        times = sum((each.kind, each.positions) == (task.kind, task.positions) for each in self.tasks)
        failure = self._fail(task, times)
        outcomes = super().wait(seconds)
        return outcomes if failure is None else [failure(number, outcomes[0].result)]


@pytest.fixture(scope="module")
def trees(tmp_path_factory, photo, make_video):
    return make_trees(tmp_path_factory.mktemp("driver"), photo, make_video)


def _job(source, target, scratch):
    networks = Networks("shuffle_nano", "litert", threads=1)
    return Job(str(source), str(target), networks, tuple(OPTIONS.items()), None, str(scratch))


def _drive(source, target, executor, **settings):
    """Runs the driver; returns the counts and the events."""
    place, events = storage.place(str(target)), []
    with keeping.opened(place, target.parent) as kept, executor:
        job, _ = driver.identified(_job(source, target, target.parent), executor)
        driver.require_same(job, kept)
        run = driver.Driver(job, executor, kept, place, Settings(**settings), events.append)
        run.add(storage.place(str(source)).entries(place))
        run.work()
        return kept.ledger.counts(), events


def _lost(number, result):
    return Outcome(number, Result(error="the node that did it is gone"), is_lost=True)


def test_a_node_that_ends_is_not_held_against_a_file(tmp_path, trees):
    executor = Failing(lambda task, times: _lost if task.kind == "segment" and times <= 4 else None)
    counts, events = _drive(trees[0], tmp_path / "out", executor, attempts=1)
    assert counts["failed"] == 1 and sum(each.kind == "failure" for each in events) > 4
    require_equal(tmp_path / "out", trees[1])


def test_a_file_that_nodes_always_end_with_is(tmp_path, trees):
    executor = Failing(lambda task, times: _lost if task.kind == "segment" and task.positions == (1,) else None)
    counts, events = _drive(trees[0], tmp_path / "out", executor, attempts=1)
    assert counts["failed"] == 2 and counts["restored"] == 4
    (film,) = (each.values for each in events if each.kind == "file" and each.values["name"] == "long.mkv")
    assert film["message"].startswith("the node that did it is gone")
    assert not (tmp_path / "out" / "long.mkv").exists()
    assert not (tmp_path / "out" / units.SEGMENTS).exists()


def test_a_segment_that_does_not_follow_is_made_from_the_start(tmp_path, trees):
    def torn(number, result):
        (record,) = result.value
        return Outcome(number, result._replace(value=[{**record, "before": "something else", "from_start": False}]))

    executor = Failing(
        lambda task, times: torn if task.kind == "segment" and task.positions == (2,) and times == 1 else None
    )
    _drive(trees[0], tmp_path / "out", executor)
    again = {task.positions for task in executor.tasks if task.from_start}
    assert (2,) in again and len([task for task in executor.tasks if task.kind == "join"]) == 1
    require_equal(tmp_path / "out", trees[1])


def test_segments_that_go_together(tmp_path, trees):
    def crashed(number, result):
        return Outcome(number, Result(error="the process that did it was ended by SIGSEGV"))

    executor = Failing(lambda task, times: crashed if task.positions == (0, 1, 2) else None)
    counts, _ = _drive(trees[0], tmp_path / "out", executor, attempts=2, together=3)
    assert counts["failed"] == 1
    assert [task.positions for task in executor.tasks if task.kind == "segment"] == [(0, 1, 2), (0,), (1,), (2,), (3,)]
    require_equal(tmp_path / "out", trees[1])
    # Nothing else waits: as many as there are for each.
    lone = Failing(lambda task, times: None)
    _drive(tmp_path / "out", tmp_path / "again", lone, together=3)
    assert [task.positions for task in lone.tasks if task.kind == "segment"] == [(0, 1, 2), (3,)]


def test_pictures_are_begun_together_and_apart_where_one_crashes(tmp_path, photo):
    source = tmp_path / "in"
    source.mkdir()
    for index in range(9):
        Image.fromarray(photo(16, 16, index)).save(source / f"{index}.png")

    def crashed(number, result):
        return Outcome(number, Result(error="the process that did it was ended by SIGSEGV"))

    executor = Failing(lambda task, times: crashed if any(file.name == "5.png" for file in task.files) else None)
    counts, _ = _drive(source, tmp_path / "out", executor, attempts=2)
    assert counts["restored"] == 8 and counts["failed"] == 1
    sizes = [len(task.files) for task in executor.tasks if task.kind == "begin"]
    assert sizes[0] == 2 and sizes.count(1) >= 4


def test_what_fails_for_a_moment_is_tried_again(tmp_path, trees):
    def passing(number, result):
        return Outcome(number, Result(error="the network is down"))

    executor = Failing(lambda task, times: passing if task.kind in ("segment", "join") and times == 1 else None)
    counts, _ = _drive(trees[0], tmp_path / "out", executor, attempts=2)
    assert counts["failed"] == 1
    require_equal(tmp_path / "out", trees[1])


def test_another_network_ends_the_run(tmp_path, trees):
    job = _job(*trees, tmp_path)
    networks = dataclasses.replace(job.networks, identity=(("model", "0" * 64),))
    result = units.run(dataclasses.replace(job, networks=networks), Task("identify"))
    assert result.is_fatal and "the job began with another model (0000" in result.error
    fatal = Failing(lambda task, times: (lambda number, _: Outcome(number, result)) if task.kind == "begin" else None)
    with pytest.raises(ValueError, match="the job began with another model"):
        _drive(trees[0], tmp_path / "out", fatal)


def test_an_error_of_this_program_keeps_its_traceback(tmp_path, trees, monkeypatch):
    def broken(work, task):
        raise ZeroDivisionError("a bug")

    monkeypatch.setitem(units.UNITS, "identify", broken)
    result = units.run(_job(*trees, tmp_path), Task("identify"))
    assert result.error == "ZeroDivisionError: a bug" and "Traceback" in result.trace and not result.is_final


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def test_units_come_in_order(ledger):
    ledger.add_files(Entry(name, 1, "1") for name in "ab")
    ledger.add("begin", ["a", "b"])
    ledger.add("segment", ["a"], range(3))
    ledger.add("join", ["b"])
    ledger.add("clear", ["b"])
    taken = [unit for _ in range(3) for unit in ledger.take()]
    assert [(unit.kind, unit.position) for unit in taken] == [("join", None), ("segment", 0), ("segment", 1)]
    ledger.commit()
    # After a driver was killed.
    ledger.recover()
    assert ledger.take() == tuple(taken[:1])
    ledger.finish(taken[1], {"frames": 7})
    assert ledger.segments_done() == {"a": 1} and ledger.are_left("a") and not ledger.is_running(taken[1])
    ledger.forget_all("a")
    assert ledger.take()[0].kind == "begin" and ledger.take()[0].kind == "clear" and ledger.take() == ()
    assert not ledger.are_left("a")


def test_segments_are_taken_together(ledger):
    ledger.add_files(Entry(name, 1, "1") for name in "ab")
    ledger.add("segment", ["a"], range(5))
    ledger.add("segment", ["b"], range(3))
    assert [unit.position for unit in ledger.take(4)] == [0, 1, 2, 3]
    assert [(unit.names, unit.position) for unit in ledger.take(4)] == [(("a",), 4)]
    first, *others = ledger.take(9)
    ledger.wait_again(first.number, attempts=1)
    for unit in others:
        ledger.wait_again(unit.number)
    # What has failed goes alone.
    assert [[unit.position for unit in ledger.take(9)] for _ in range(2)] == [[0], [1, 2]]
    assert ledger.waiting("segment") == 0


def test_what_was_committed_is_copied(ledger, tmp_path):
    ledger.begin({"model": "one"})
    ledger.commit()
    ledger.add_files([Entry("a", 5, "1")])
    ledger.copy(tmp_path / "copy.sqlite")
    with Ledger(tmp_path / "copy.sqlite") as copy:
        assert copy.job() == {"format": 1, "model": "one"} and copy.files() == []


def test_names_that_are_no_text(ledger):
    name = os.fsdecode(b"three\xff.png")
    ledger.add_files([Entry(name, 5, "1")])
    ledger.change(name, state="restored", target=name)
    ledger.add("begin", [name])
    assert ledger.files("restored")[0].target == name and ledger.take()[0].names == (name,)
    assert ledger.counts()["restored"] == 1 and ledger.size("restored") == 5 and ledger.size("failed") == 0


def test_a_run_adds_up_its_nodes(ledger):
    ledger.begin_run(100.0, 3.0)
    ledger.see(110.0, 2, 50, 2.0)
    ledger.see(120.0, 4, 150, 6.0)
    (run,) = ledger.runs()
    assert run["node_seconds"] == 10 * 2 + 10 * 4 and run["frames"] == 150 and run["cost_per_node_hour"] == 3


def test_a_ledger_that_is_open_elsewhere_can_be_read(ledger, tmp_path):
    ledger.begin({"model": "one"})
    ledger.commit()
    ledger.add_files([Entry("a", 5, "1")])
    with sqlite3.connect(tmp_path / "ledger.sqlite") as reader:
        assert reader.execute("SELECT COUNT(*) FROM files").fetchone() == (0,)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("litert", None), (2, 0)),
        (("auto", None), (2, 0)),
        (("onnx", "cuda"), (4, 0.25)),
        (("serving", None, 1), (1, 0)),
        (("onnx", "cuda", 8), (8, 0.25)),
    ],
)
def test_resources(arguments, expected):
    taken = resources.of(*arguments)
    assert (taken.cpus, taken.gpus) == expected


def test_every_engine_has_resources():
    from keras_deartifact import engines

    assert {*engines.ENGINES, engines.SERVING} <= set(resources.RESOURCES)
    assert set(resources.RESOURCES) <= {*engines.ENGINES, engines.SERVING, *engines.PROVIDERS}


def test_a_process_that_ends_is_replaced(tmp_path, trees):
    job = _job(*trees, tmp_path)
    with executors.Processes(1) as processes:
        processes.submit(7, job, Task("nonesuch"))
        (outcome,) = processes.wait(60)
        assert outcome.number == 7 and outcome.result.error == "KeyError: 'nonesuch'"
        processes._idle[0]._process.kill()
        wait_until(lambda: processes._idle[0]._pool._broken)
        processes.submit(8, job, Task("identify"))
        (outcome,) = processes.wait(60)
        assert outcome.result.error is None and outcome.result.value["engine"] == "litert"
