"""`deartifact archive --ray`: a real cluster of several nodes on this machine, which are killed."""

import json
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
from archive_samples import finish, get, make_trees, names, put, require_equal, restore, s3_bucket, start, wait_until
from ray_nodes import Nodes

from keras_deartifact import cli


@pytest.fixture(scope="module")
def started():
    """A cluster without nodes."""
    pytest.importorskip("ray", reason="Ray is not installed")
    with Nodes() as nodes:
        yield nodes


@pytest.fixture
def cluster(started):
    """A head that works on nothing, and two nodes of one processor."""
    while len(started.raylets) < 2:
        started.add()
    return started


@pytest.fixture(scope="module")
def trees(tmp_path_factory, photo, make_video):
    return make_trees(tmp_path_factory.mktemp("cluster"), photo, make_video)


@pytest.fixture(scope="module")
def film(tmp_path_factory, make_video):
    """A video of 16 segments, each about a second of work, and what `restore` makes of it."""
    folder = tmp_path_factory.mktemp("film")
    (folder / "in").mkdir()
    make_video(folder / "in" / "film.mkv", acodec=None, times=[1000 * each for each in range(320)], size=(480, 272))
    assert restore(folder / "in", folder / "expected") == 0
    return folder / "in", folder / "expected"


def _start(folder, source, out, cluster, *options):
    return start(folder, source, out, "--ray", cluster.address, "--threads", "1", *options)


def _finished(out):
    return len(list(out.glob(".deartifact-archive/segments/*/0*.json")))


def test_a_cluster_makes_what_restore_makes(tmp_path, cluster, trees):
    source, expected = trees
    out = tmp_path / "out"
    # A model that the nodes do not have goes to them.
    model = tmp_path / "own.tflite"
    shutil.copy(Path(cli.__file__).parents[1] / "pretrained" / "shuffle_nano.tflite", model)
    process = _start(tmp_path, source, out, cluster, "--model", model)
    wait_until(lambda: list(out.glob(".deartifact-archive/model-*.zip")), process)
    code, text, err = finish(process)
    assert code == 2 and err.count("\n") == 1
    assert text.splitlines()[-1] == f"{out}: 5 restored, 0 incomplete, 1 skipped, 1 failed"
    require_equal(out, expected)
    shutil.copy(Path(cli.__file__).parents[1] / "pretrained" / "shuffle_nano_perceptual.tflite", model)
    code, _, err = finish(_start(tmp_path, source, out, cluster, "--model", model))
    assert code == 2 and "an earlier run of this archive had another model" in err and err.count("\n") == 1


def test_resources_that_no_node_has(tmp_path, cluster, trees):
    process = start(tmp_path, trees[0], tmp_path / "out", "--ray", cluster.address, "--threads", "3")
    code, _, err = finish(process)
    assert code == 2 and "no node of the cluster has 3 processors" in err and err.count("\n") == 1


def test_there_is_no_cluster(tmp_path, trees):
    pytest.importorskip("ray", reason="Ray is not installed")
    code, _, err = finish(start(tmp_path, trees[0], tmp_path / "out", "--ray", "127.0.0.1:1"))
    assert code == 2 and "no Ray cluster at 127.0.0.1:1" in err and err.count("\n") == 1


@pytest.mark.slow
def test_nodes_and_workers_are_killed_at_random(tmp_path, cluster, film):
    source, expected = film
    out = tmp_path / "out"
    chance = random.Random(9)
    process = _start(tmp_path, source, out, cluster, "--attempts", "9")
    for count in (1, 3):
        wait_until(lambda count=count: _finished(out) >= count, process, 90)
        wait_until(cluster.busy, process, 90)
        cluster.kill(chance.choice(cluster.busy())[1])
        wait_until(cluster.busy, process, 90)
        os.kill(chance.choice(cluster.busy())[0], signal.SIGKILL)
        cluster.add()
    code, text, err = finish(process, 180)
    assert code == 0, err
    require_equal(out, expected)
    # A node that ends is not held against the file.
    assert "film.mkv: attempt 0 failed: the node that did it is gone" in err and "Raylet" not in text


@pytest.mark.slow
def test_a_driver_is_killed_and_the_model_changed(tmp_path, cluster, film):
    source, expected = film
    out = tmp_path / "out"
    process = _start(tmp_path, source, out, cluster)
    wait_until(lambda: _finished(out) > 2, process, 90)
    process.kill()
    process.communicate()
    assert names(out) == []
    # A node goes, too.
    cluster.kill(cluster.raylets[0])
    code, _, err = finish(_start(tmp_path, source, out, cluster, "--model", "shuffle_nano_perceptual"))
    assert code == 2 and "an earlier run of this archive had another model" in err
    assert names(out) == [] and _finished(out) > 2
    code, _, err = finish(_start(tmp_path, source, out, cluster), 120)
    assert code == 0, err
    require_equal(out, expected)


@pytest.mark.slow
def test_a_cluster_on_s3(tmp_path, film):
    """Nodes copy the video first, and get several segments together."""
    pytest.importorskip("ray", reason="Ray is not installed")
    with s3_bucket() as bucket, Nodes() as nodes:
        nodes.add()
        nodes.add()
        put(film[0], f"{bucket}/in")
        log = tmp_path / "log"
        options = ("--scratch", tmp_path / "scratch", "--json", log)
        code, _, err = finish(_start(tmp_path, f"{bucket}/in", f"{bucket}/out", nodes, *options), 180)
        assert code == 0, err
        get(f"{bucket}/out", tmp_path / "out")
    require_equal(tmp_path / "out", film[1])
    events = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    together = [each["together"] for each in events if each["event"] == "segment"]
    assert len(together) == 16 and max(together) > 1
