import fcntl
import json

import pytest

from keras_deartifact import files
from keras_deartifact.restore import journal
from keras_deartifact.restore.journal import Journal, Segment

PARAMETERS = {"input": "7 bytes", "crf": 14}


def add(work, data=b"packets", frames=10):
    work.part.write_bytes(data)
    work.add(Segment(frames, 40 * frames * (len(work.segments) + 1), [4.5], stated=True))


def folder_of(target):
    return target.with_name(".deartifact-" + target.name)


def test_a_run_goes_on_after_its_finished_segments(tmp_path):
    target = tmp_path / "a.mp4"
    with Journal(target, PARAMETERS) as work:
        assert (work.frames, work.last, work.paths, work.is_whole) == (0, None, [], False)
        add(work, b"one")
        add(work, b"two", 5)
        work.part.write_bytes(b"half a segment")
    assert journal.frames_kept(target) == 15
    with Journal(target, PARAMETERS) as work:
        assert (work.frames, work.last) == (15, 400)
        assert [path.read_bytes() for path in work.paths] == [b"one", b"two"]
        assert work.segments[0].predictions == [4.5]
        assert not work.part.exists()
        work.finish()
    with Journal(target, PARAMETERS) as work:
        assert work.is_whole
        work.complete.write_bytes(b"all of it")
        work.name()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"] and target.read_bytes() == b"all of it"


def test_what_finished_no_segment_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), Journal(tmp_path / "a.mp4", PARAMETERS) as work:
        work.part.write_bytes(b"half a segment")
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_other_parameters_are_refused(tmp_path):
    target = tmp_path / "a.mp4"
    with Journal(target, PARAMETERS) as work:
        add(work)
    message = r"10 frames of .*a\.mp4 with another crf \(14 then, 10 now\); .* --restart|\(--restart\)"
    with pytest.raises(ValueError, match=message):
        Journal(target, {**PARAMETERS, "crf": 10})
    assert journal.frames_kept(target) == 10
    with Journal(target, {**PARAMETERS, "crf": 10}, restart=True) as work:
        assert work.frames == 0
        assert list(folder_of(target).glob("*.packets")) == []


def test_a_second_run_is_refused_and_a_dead_one_is_not(tmp_path):
    target = tmp_path / "a.mp4"
    with Journal(target, PARAMETERS) as work:
        add(work)
        with pytest.raises(journal.BusyError, match=r"another run is at work on .*a\.mp4"):
            Journal(target, PARAMETERS)
        journal.clean(target)
        assert work.frames == 10 and folder_of(target).exists()
    # The lock of a run that was killed: a file that nobody holds.
    with (folder_of(target) / "lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    with Journal(target, PARAMETERS) as work:
        assert work.frames == 10


@pytest.mark.parametrize("damage", ["cut", "other", "missing", "line"])
def test_what_a_power_cut_can_leave(tmp_path, damage):
    target = tmp_path / "a.mp4"
    with Journal(target, PARAMETERS) as work:
        for data in (b"one", b"two", b"three"):
            add(work, data)
        paths = work.paths
        work.finish()
    if damage == "cut":
        paths[1].write_bytes(b"tw")
    elif damage == "other":
        paths[1].write_bytes(b"twe")
    elif damage == "missing":
        paths[1].unlink()
    else:
        log = folder_of(target) / "journal.jsonl"
        lines = log.read_text().splitlines(keepends=True)
        log.write_text("".join(lines[:2]) + lines[2][:20])
    with Journal(target, PARAMETERS) as work:
        assert work.frames == 10 and not work.is_whole
        assert sorted(path.name for path in folder_of(target).iterdir()) == ["000000.packets", "journal.jsonl", "lock"]
        add(work, b"two")
    with Journal(target, PARAMETERS) as work:
        assert work.frames == 20


@pytest.mark.parametrize("text", ["", "{", "[]\n", "\0\0\0\0"])
def test_a_journal_that_says_nothing_begins_anew(tmp_path, text):
    target = tmp_path / "a.mp4"
    folder_of(target).mkdir()
    (folder_of(target) / "journal.jsonl").write_text(text)
    (folder_of(target) / "000000.packets").write_bytes(b"of nobody")
    assert journal.frames_kept(target) == 0
    with Journal(target, PARAMETERS) as work:
        assert work.frames == 0
        add(work)
    assert json.loads((folder_of(target) / "journal.jsonl").read_text().splitlines()[0]) == PARAMETERS


def test_only_what_a_named_target_left_is_cleaned(tmp_path):
    target = tmp_path / "a.mp4"
    journal.clean(target)
    target.write_bytes(b"an older file")
    with Journal(target, PARAMETERS) as work:
        add(work)
    journal.clean(target)
    assert journal.frames_kept(target) == 10
    inode = target.stat().st_ino
    with (folder_of(target) / "journal.jsonl").open("a") as log:
        log.write(json.dumps({"inode": inode + 1}) + "\n")
    journal.clean(target)
    assert folder_of(target).exists()
    with (folder_of(target) / "journal.jsonl").open("a") as log:
        log.write(json.dumps({"inode": inode}) + "\n")
    journal.clean(target)
    assert not folder_of(target).exists() and target.exists()


def test_names_that_leave_no_room_for_a_prefix(tmp_path):
    target = tmp_path / ("a" * 250 + ".mp4")
    with Journal(target, PARAMETERS) as work:
        add(work)
        work.complete.write_bytes(b"all")
        work.name()
    assert target.exists() and len(list(tmp_path.iterdir())) == 1


def test_folders_of_work_are_no_sources(tmp_path):
    with Journal(tmp_path / "a.mp4", PARAMETERS) as work:
        add(work)
    (tmp_path / "b.jpg").write_bytes(b"x")
    assert [path.name for path in files.files_below(tmp_path, tmp_path / "out")] == ["b.jpg"]
