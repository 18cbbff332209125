"""Training on several GPUs or several machines, and going on after a machine was lost.

One command, started once per machine with its own `TF_CONFIG`, as TensorFlow describes it:

    TF_CONFIG='{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'

Every worker runs the same program on the same data and the same run folder (a shared file system). The chief, worker 0,
alone writes there. What was measured with Keras 3.15 and TensorFlow 2.21, two workers on one machine, CPU:

- Two workers end with the same bits, and within 1e-6 of one process with the same global batch (4 steps of the testing
  GAN, every state variable; 40 steps of a smaller one, killed and resumed on the way).
- A worker that is killed (SIGKILL, 3 to 8 s) or frozen (SIGSTOP, 7 to 10 s) makes every other one raise one of
  `_LOST_WORKER`, whichever of them is the chief. TensorFlow's coordination service does it: its heartbeats time out
  after 10 s, and at the start it waits an hour for the others (its source; 150 s were tried). Both are its defaults,
  which no public function or environment variable changes.
- Reading a metric is a collective operation: all workers or none. Reading a weight, and saving a model, is not.
- Creating a variable inside `strategy.scope()` is one too, so that `fit` and what the chief alone does stay outside.
"""

import json
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from absl import logging

__all__ = [
    "check_batch",
    "check_run_is_shared",
    "is_chief",
    "make_fit_work",
    "make_strategy",
    "rejoin_on_lost_worker",
    "share",
    "wait_for_all",
]

# Carries the number of restarts over to the program that takes this one's place.
_RESTARTS = "DEARTIFACT_RESTARTS"
# What the workers that are left raise. Seen: the first three. The others are there in case; a restart too many does no
# harm. Not UnknownError, which is how an error in a tf.data function written in Python arrives.
_LOST_WORKER = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.CancelledError,
)


def _worker_count() -> int:
    """Returns the number of training workers that `TF_CONFIG` names, 1 without it."""
    cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    return max(1, len(cluster.get("chief", [])) + len(cluster.get("worker", [])))


def make_strategy(devices: list[str] | None = None) -> tf.distribute.Strategy:
    """Returns how this process trains: over the workers of `TF_CONFIG`, else over its GPUs, else on one device.

    To be called before anything else of TensorFlow runs: several workers have to be set up first. It returns once all
    of them are there, for which it waits up to an hour.

    Args:
        devices: logical devices in place of the visible GPUs, such as `["CPU:0", "CPU:1"]`; not for several workers,
            each of which uses all of its GPUs.
    """
    if _worker_count() > 1:
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.UnknownError as error:
            # A process that is still dying has the port.
            raise tf.errors.UnavailableError(None, None, str(error)) from error
    devices = devices or [device.name for device in tf.config.list_logical_devices("GPU")]
    return tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else tf.distribute.get_strategy()


def _spans_workers(strategy: tf.distribute.Strategy) -> bool:
    # With one worker in TF_CONFIG make_strategy() never makes this class.
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process writes the run's files: the only one, or the first of several workers."""
    return bool(strategy.extended.should_checkpoint)


def check_batch(batch: int, strategy: tf.distribute.Strategy) -> None:
    """Checks that every replica gets as many samples: a mean of the replicas' means is the batch's mean only then.

    Raises:
        ValueError: `batch`, that of all replicas together, does not divide by their number.
    """
    replicas = strategy.num_replicas_in_sync
    if batch % replicas:
        raise ValueError(f"Expected a batch that divides by the {replicas} replicas. Received: batch={batch}")


def _sum(value: int, strategy: tf.distribute.Strategy) -> int:
    """Returns the sum over the replicas, each worker having brought its own value."""

    @tf.function
    def total() -> tf.Tensor:
        return strategy.reduce("SUM", strategy.run(lambda: tf.constant(value, tf.int64)), axis=None)

    return int(total())


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Returns when every worker has called this.

    The end of a run needs it: workers that left while the chief was writing its last checkpoint could not come back to
    help it, should it be lost right then.
    """
    if _spans_workers(strategy):
        _sum(0, strategy)


def check_run_is_shared(run: Path, strategy: tf.distribute.Strategy) -> None:
    """Checks that all workers see the chief's files; from folders of their own they would go on from other epochs.

    Raises:
        ValueError: a worker's `run` is another folder. All workers raise.
    """
    if not _spans_workers(strategy):
        return
    path = run / "workers.txt"
    if is_chief(strategy):
        run.mkdir(parents=True, exist_ok=True)
        path.write_text(str(secrets.randbelow(2**31) + 1))
    wait_for_all(strategy)
    token = int(path.read_text()) if path.exists() else 0
    # All have the chief's token where nobody's differs.
    expected = _sum(token if is_chief(strategy) else 0, strategy) // _sum(int(is_chief(strategy)), strategy)
    different = _sum(int(token != expected), strategy)
    if is_chief(strategy):
        path.unlink()
    if different:
        raise ValueError(f"Expected a folder that all workers share. Received: run={run}")


def share(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the dataset so marked that each worker trains on its part of every batch.

    Each worker makes whole batches and keeps its part: the samples are those of one process, and the work on the data
    is not divided. TensorFlow's automatic choice would deal out files instead where it finds some, and `OFF` would give
    every worker the same samples.
    """
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def make_fit_work(model: keras.Model) -> None:
    """Makes `fit` and `evaluate` of a compiled model work over several workers; other models are left as they are.

    Keras 3.15 fails there in two places: `fit` reduces a nested batch at once, which only a single process may,
    and the mean of the logs over the workers is taken along the first axis of scalars. So the model gets its two step
    functions from here. The logs of a step are the mean over all replicas. `compile` undoes this.
    """
    strategy = model.distribute_strategy
    if not _spans_workers(strategy):
        return

    def averaged(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def step_and_average(batch: Any) -> Any:
            logs = step(batch)
            values = tf.nest.flatten(logs)
            if not values:
                return logs
            # In one piece: every collective operation is a round trip.
            stacked = tf.stack([tf.cast(value, tf.float32) for value in values])
            mean = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, stacked)
            return tf.nest.pack_sequence_as(logs, tf.unstack(mean))

        @tf.function(reduce_retracing=True, autograph=False)
        def run(iterator: Any) -> Any:
            logs = strategy.run(step_and_average, args=(next(iterator),))
            return tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], logs)

        return run

    # It builds what is not built yet; a model that fit may train here is.
    model._maybe_symbolic_build = lambda **_: None
    model.train_function = averaged(model.train_step)
    model.test_function = averaged(model.test_step)


def rejoin_on_lost_worker(main: Callable[[], None], limit: int = 20) -> None:
    """Runs `main`; where another worker was lost, starts this program anew, which waits for all to be back.

    A lost worker leaves TensorFlow's cluster unusable for the lifetime of a process, so that this process replaces
    itself: the same command, environment and process number. `main` has to make the strategy itself, and to go on from
    the run's last checkpoint. A killed worker has to be started again from outside, with the same command. One that
    ends with another error leaves the others waiting for it, up to an hour for each restart that they have.

    Args:
        main: the whole of the training.
        limit: restarts after which the error is raised. A worker that is back before the others noticed uses up a few.

    Raises:
        tf.errors.OpError: a worker was lost once too often.
    """
    try:
        main()
    except _LOST_WORKER as error:
        restarts = int(os.environ.get(_RESTARTS, "0")) + 1
        if _worker_count() == 1 or restarts > limit:
            raise
        logging.warning("lost a worker, restart %d of %d: %s", restarts, limit, str(error).partition("\n")[0])
    else:
        return
    os.environ[_RESTARTS] = str(restarts)
    sys.stdout.flush()
    sys.stderr.flush()
    # The port, and the GPUs, must not stay open on behalf of the program that is gone.
    for descriptor in os.listdir("/dev/fd"):
        if int(descriptor) > 2 and os.path.exists(f"/dev/fd/{descriptor}"):
            os.set_inheritable(int(descriptor), False)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
