"""Training over several workers. This file is also their program: `test_distribution.py RUN STEP_SECONDS`."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deartifact import data
from training import distribution

ROOT = Path(__file__).resolve().parents[1]
EPOCHS, STEPS, BATCH = 3, 4, 6


# What the workers do


def _batches(epoch):
    """Batches whose halves differ, other ones in every epoch."""
    seeds = tf.data.Dataset.range(STEPS * BATCH).map(lambda number: tf.stack([epoch, number]))
    samples = seeds.map(lambda seed: tf.random.stateless_uniform((5,), seed) * tf.cast(seed[1] % BATCH, tf.float32))
    return samples.batch(BATCH, drop_remainder=True).map(lambda inputs: (inputs, tf.reduce_sum(inputs**2, 1, True)))


class _Keep(keras.callbacks.Callback):
    def __init__(self, run, step_seconds):
        super().__init__()
        self.run, self.step_seconds = run, step_seconds

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(self.step_seconds)

    def on_epoch_end(self, epoch, logs=None):
        self.model.save(self.run / "partial.keras")
        (self.run / "partial.keras").replace(self.run / "checkpoint.keras")


def _make_model():
    layers = [keras.layers.Input((5,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(0.05), "mse", metrics=["mae"], jit_compile=False)
    return model


def _train(run, step_seconds=0.0):
    keras.utils.set_random_seed(3)
    strategy = distribution.make_strategy()
    distribution.check_run_is_shared(run, strategy)
    distribution.check_batch(BATCH, strategy)
    checkpoint = run / "checkpoint.keras"
    with strategy.scope():
        model = keras.models.load_model(checkpoint) if checkpoint.exists() else _make_model()
    distribution.make_fit_work(model)
    first_epoch = int(model.optimizer.iterations.numpy()) // STEPS
    history = model.fit(
        distribution.share(data.epochs(_batches, STEPS, first_epoch)),
        epochs=EPOCHS,
        initial_epoch=first_epoch,
        steps_per_epoch=STEPS,
        validation_data=distribution.share(_batches(99).repeat()),
        validation_steps=2,
        shuffle=False,
        verbose=0,
        callbacks=[_Keep(run, step_seconds)] if distribution.is_chief(strategy) else [],
    )
    distribution.wait_for_all(strategy)
    return first_epoch, history.history, model.get_weights()


def _work(run, step_seconds):
    task = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    first_epoch, history, weights = _train(run, step_seconds)
    np.savez(run / f"weights-{task}.npz", *weights)
    restarts = int(os.environ.get("DEARTIFACT_RESTARTS", "0"))
    report = {"first_epoch": first_epoch, "history": history, "restarts": restarts, "pid": os.getpid()}
    (run / f"report-{task}.json").write_text(json.dumps(report))


def _start(run, index, ports, step_seconds=0.0):
    workers = [f"localhost:{port}" for port in ports]
    config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
    environment = {**os.environ, "TF_CONFIG": json.dumps(config), "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    with open(run / f"log-{index}.txt", "a", encoding="utf-8") as log:
        return subprocess.Popen(
            [sys.executable, __file__, str(run), str(step_seconds)],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _free_ports():
    sockets = [socket.create_server(("localhost", 0)) for _ in range(2)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait_for(processes, run):
    try:
        for index, process in enumerate(processes):
            code = process.wait(timeout=300)
            assert code == 0, (run / f"log-{index}.txt").read_text(encoding="utf-8")[-3000:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _results(run):
    """Returns `(report, weights)` of each worker."""
    results = []
    for index in range(2):
        with np.load(run / f"weights-{index}.npz") as file:
            weights = [file[name] for name in file.files]
        results.append((json.loads((run / f"report-{index}.json").read_text()), weights))
    return results


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The logs and the weights of one process that trains without interruption."""
    _, history, weights = _train(tmp_path_factory.mktemp("alone"))
    return history, weights


def _check_against(alone, results):
    history, weights = alone
    for first, second in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_array_equal(first, second)
    # Adam divides by small numbers, and sums are rounded in another order.
    for one, two in zip(weights, results[0][1], strict=True):
        np.testing.assert_allclose(two, one, atol=1e-5)
    for report, _ in results:
        assert set(report["history"]) == {"loss", "mae", "val_loss", "val_mae"}
        for name, values in report["history"].items():
            np.testing.assert_allclose(values, history[name][report["first_epoch"] :], rtol=1e-4, err_msg=name)


# Several workers


def test_two_workers_train_as_one_process(alone, tmp_path):
    ports = _free_ports()
    _wait_for([_start(tmp_path, index, ports) for index in range(2)], tmp_path)
    results = _results(tmp_path)
    assert [report["restarts"] for report, _ in results] == [0, 0]
    _check_against(alone, results)
    assert not (tmp_path / "workers.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_killed_worker_comes_back(victim, alone, tmp_path):
    ports = _free_ports()
    processes = [_start(tmp_path, index, ports, step_seconds=0.5) for index in range(2)]
    try:
        while not (tmp_path / "checkpoint.keras").exists():
            assert all(process.poll() is None for process in processes)
            time.sleep(0.1)
        time.sleep(0.5)
        os.kill(processes[victim].pid, signal.SIGKILL)
        processes[victim].wait()
    except BaseException:
        for process in processes:
            process.kill()
        raise
    pid = processes[1 - victim].pid
    processes[victim] = _start(tmp_path, victim, ports)
    _wait_for(processes, tmp_path)
    results = _results(tmp_path)
    left = results[1 - victim][0]
    assert left["pid"] == pid
    assert left["restarts"] >= 1
    assert left["first_epoch"] >= 1
    assert left["first_epoch"] == results[victim][0]["first_epoch"]
    log = (tmp_path / f"log-{1 - victim}.txt").read_text(encoding="utf-8")
    assert "lost a worker, restart 1 of 20" in log
    _check_against(alone, results)


@pytest.mark.slow
def test_folders_of_their_own_are_refused(tmp_path):
    ports = _free_ports()
    processes = []
    for index in range(2):
        (tmp_path / str(index)).mkdir()
        processes.append(_start(tmp_path / str(index), index, ports))
    for index, process in enumerate(processes):
        assert process.wait(timeout=300) == 1
        log = (tmp_path / str(index) / f"log-{index}.txt").read_text(encoding="utf-8")
        assert f"ValueError: Expected a folder that all workers share. Received: run={tmp_path / str(index)}" in log
        assert not (tmp_path / str(index) / "checkpoint.keras").exists()


# The choice


def _set_cluster(monkeypatch, cluster):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}}))


@pytest.mark.parametrize("cluster", [{"worker": ["a:1", "b:1"]}, {"chief": ["a:1"], "worker": ["b:1"]}])
def test_several_workers_are_chosen(cluster, monkeypatch):
    _set_cluster(monkeypatch, cluster)
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", lambda: "several workers")
    assert distribution.make_strategy() == "several workers"


@pytest.mark.parametrize("cluster", [None, {}, {"worker": ["a:1"]}])
def test_one_worker_with_one_device_needs_no_strategy(cluster, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if cluster is not None:
        _set_cluster(monkeypatch, cluster)
    for devices in (None, [], ["CPU:0"]):
        strategy = distribution.make_strategy(devices)
        assert type(strategy) is type(tf.distribute.get_strategy())
        assert distribution.is_chief(strategy)


@pytest.mark.parametrize("devices", [None, ["CPU:0", "CPU:1"]])
def test_several_devices_are_mirrored(devices, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda names: names)
    gpus = [tf.config.LogicalDevice(f"/device:GPU:{index}", "GPU") for index in range(2)]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: gpus if kind == "GPU" else [])
    assert distribution.make_strategy(devices) == (devices or ["/device:GPU:0", "/device:GPU:1"])


def test_port_that_is_still_taken_counts_as_a_lost_worker(monkeypatch):
    def fail():
        raise tf.errors.UnknownError(None, None, "Could not start gRPC server")

    _set_cluster(monkeypatch, {"worker": ["a:1", "b:1"]})
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", fail)
    with pytest.raises(tf.errors.UnavailableError, match="Could not start gRPC server"):
        distribution.make_strategy()


def test_batch_that_does_not_divide():
    class ThreeReplicas:
        num_replicas_in_sync = 3

    distribution.check_batch(6, ThreeReplicas())
    with pytest.raises(ValueError, match="Expected a batch that divides by the 3 replicas. Received: batch=8"):
        distribution.check_batch(8, ThreeReplicas())


def test_one_process_is_left_as_it_is(tmp_path):
    strategy = distribution.make_strategy()
    model = _make_model()
    distribution.make_fit_work(model)
    assert model.train_function is None
    distribution.check_run_is_shared(tmp_path / "run", strategy)
    distribution.wait_for_all(strategy)
    assert not list(tmp_path.iterdir())


# Starting anew


@pytest.fixture
def commands(monkeypatch):
    """What the process would have replaced itself with."""
    commands = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: commands.append([program, *arguments]))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "training.train", "--run=run"])
    monkeypatch.setenv("DEARTIFACT_RESTARTS", "0")
    _set_cluster(monkeypatch, {"worker": ["a:1", "b:1"]})
    return commands


def _raise(error):
    raise error


_LOST = tf.errors.UnavailableError(None, None, "Connection reset by peer\nmore about it")


def test_lost_worker_starts_the_same_command(commands):
    distribution.rejoin_on_lost_worker(lambda: _raise(_LOST))
    distribution.rejoin_on_lost_worker(lambda: _raise(_LOST))
    assert commands == [[sys.executable, sys.executable, "-m", "training.train", "--run=run"]] * 2
    assert os.environ["DEARTIFACT_RESTARTS"] == "2"


def test_restarts_are_bounded(commands, monkeypatch):
    monkeypatch.setenv("DEARTIFACT_RESTARTS", "2")
    distribution.rejoin_on_lost_worker(lambda: _raise(_LOST), limit=3)
    with pytest.raises(tf.errors.UnavailableError, match="Connection reset by peer"):
        distribution.rejoin_on_lost_worker(lambda: _raise(_LOST), limit=3)
    assert len(commands) == 1


@pytest.mark.parametrize(
    "error", [ValueError("no data"), KeyboardInterrupt(), tf.errors.InvalidArgumentError(None, None, "shapes")]
)
def test_other_errors_are_raised(error, commands):
    with pytest.raises(type(error)):
        distribution.rejoin_on_lost_worker(lambda: _raise(error))
    assert not commands


def test_one_process_has_no_worker_to_lose(commands, monkeypatch):
    monkeypatch.delenv("TF_CONFIG")
    with pytest.raises(tf.errors.UnavailableError):
        distribution.rejoin_on_lost_worker(lambda: _raise(_LOST))
    assert not commands


def test_nothing_is_started_after_the_end(commands):
    ran = []
    distribution.rejoin_on_lost_worker(lambda: ran.append(True))
    assert ran == [True]
    assert not commands


if __name__ == "__main__":
    # As setup.cfg has it.
    warnings.simplefilter("error")
    warnings.filterwarnings(
        "ignore", "__array__ implementation doesn't accept a copy", DeprecationWarning, r"keras\.src"
    )
    distribution.rejoin_on_lost_worker(lambda: _work(Path(sys.argv[1]), float(sys.argv[2])))
