"""Loads a model server: `python -m serving.load --server=127.0.0.1:8500 --model=shuffle_nano --concurrency=1,4,16`.

For each number of requests at a time it sends `--requests` tiles of noise, one after another, and prints

    concurrency   requests that are under way at any time
    tiles/s       answers that are right in shape, over the time from the first request to the last answer
    MB/s          bytes of the tiles, one way, in millions
    p50 p95 p99   milliseconds from a request to its answer, encoding and decoding included
    errors        what failed, by gRPC's names; nothing is tried again

What it measures includes this program: with one processor for both, it takes its share.
"""

import collections
import itertools
import json
import threading
import time
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags

from keras_deartifact import console, quantiser
from keras_deartifact.engines import Server
from keras_deartifact.engines.serving.client import NETWORK, WITH_MAP, Client
from keras_deartifact.engines.serving.errors import Failure

FLAGS = flags.FLAGS

# Noise is as hard as anything for a network, and no easier to send; a few different tiles keep caches honest.
_DIFFERENT_TILES = 8


class Load(NamedTuple):
    """What was measured at a concurrency.

    Attributes:
        concurrency: requests at a time.
        requests: that were sent.
        seconds: from the first request to the last answer.
        tiles_per_second: that came back.
        megabytes_per_second: of the tiles that came back, one way.
        milliseconds: p50, p95 and p99 of those that came back; None where none did.
        errors: how many failed, by kind.
    """

    concurrency: int
    requests: int
    seconds: float
    tiles_per_second: float
    megabytes_per_second: float
    milliseconds: tuple[float, float, float] | None
    errors: dict[str, int]


def measure(client: Client, concurrency: int, requests: int, tile: int, as_float: bool, most_seconds: float) -> Load:
    """Sends requests from as many threads.

    Args:
        client: to the server.
        concurrency: threads, each with one request at a time.
        requests: how many, over all threads.
        tile: side in pixels, a multiple of 16.
        as_float: whether tiles are float32, by the signature `network`, or uint8, by `restore_with_map`.
        most_seconds: after which no request is sent any more.
    """
    inputs = _inputs(client, tile, as_float)
    signature, dtype = (NETWORK, np.float32) if as_float else (WITH_MAP, np.uint8)
    numbers = itertools.count()
    lock = threading.Lock()
    taken: list[float] = []
    errors: collections.Counter[str] = collections.Counter()

    def run() -> None:
        while True:
            with lock:
                number = next(numbers)
            if number >= requests or time.perf_counter() - started > most_seconds:
                return
            given = inputs[number % len(inputs)]
            before = time.perf_counter()
            try:
                answer = client.attempt(signature, given, dtype, client.server.deadline_seconds)
                kind = None if answer.shape == given["images"].shape else "GARBAGE"
            except Failure as failure:
                kind = failure.code
            seconds = time.perf_counter() - before
            with lock:
                if kind is None:
                    taken.append(seconds)
                else:
                    errors[kind] += 1

    threads = [threading.Thread(target=run) for _ in range(concurrency)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    percentiles = np.percentile(np.array(taken) * 1e3, [50, 95, 99]).tolist() if taken else None
    return Load(
        concurrency=concurrency,
        requests=len(taken) + errors.total(),
        seconds=seconds,
        tiles_per_second=len(taken) / seconds,
        megabytes_per_second=len(taken) * inputs[0]["images"].nbytes / seconds / 1e6,
        milliseconds=None if percentiles is None else tuple(percentiles),
        errors=dict(errors),
    )


def _inputs(client: Client, tile: int, as_float: bool) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    steps = quantiser.constant_map(tile, tile)[None]
    if as_float:
        shape = (1, tile, tile, client.channels)
        return [
            {"images": generator.random(shape, np.float32), "quantiser_map": steps[..., None]}
            for _ in range(_DIFFERENT_TILES)
        ]
    return [
        {"images": generator.integers(0, 256, (1, tile, tile, 3), np.uint8), "quantiser_map": steps}
        for _ in range(_DIFFERENT_TILES)
    ]


def table(loads: list[Load]) -> list[str]:
    """Returns the lines to print."""
    lines = ["concurrency  tiles/s    MB/s  p50 ms  p95 ms  p99 ms  errors"]
    for each in loads:
        shown = ["-"] * 3 if each.milliseconds is None else [f"{value:.1f}" for value in each.milliseconds]
        errors = ", ".join(f"{count} {kind}" for kind, count in sorted(each.errors.items())) or "none"
        lines.append(
            f"{each.concurrency:11d}  {each.tiles_per_second:7.1f} {each.megabytes_per_second:7.1f}  "
            + "  ".join(f"{value:>6}" for value in shown)
            + f"  {errors}"
        )
    return lines


def run() -> list[Load]:
    """Measures what the flags say.

    Raises:
        ValueError: a flag is out of range, or there is no such server or model.
    """
    try:
        numbers = [int(each) for each in FLAGS.concurrency]
    except ValueError as error:
        raise ValueError(f"Expected numbers in --concurrency. Received: {','.join(FLAGS.concurrency)}") from error
    if not numbers or min(numbers) < 1 or max(numbers) > 1024:
        raise ValueError(f"Expected --concurrency of 1 to 1024. Received: {','.join(FLAGS.concurrency)}")
    if FLAGS.tile % quantiser.BLOCK:
        raise ValueError(f"Expected a --tile that is a multiple of {quantiser.BLOCK}. Received: {FLAGS.tile}")
    server = Server(
        FLAGS.server,
        version=FLAGS.version,
        ca=FLAGS.ca,
        cert=FLAGS.cert,
        key=FLAGS.key,
        deadline_seconds=FLAGS.deadline,
    )
    client = Client(server, FLAGS.model)
    try:
        # The first one of a size is slow on a server that was not warmed up.
        measure(client, 1, 1, FLAGS.tile, FLAGS.float, FLAGS.seconds)
        return [measure(client, each, FLAGS.requests, FLAGS.tile, FLAGS.float, FLAGS.seconds) for each in numbers]
    finally:
        client.close()


def main(argv: list[str]) -> None:
    """Measures, and prints a table or JSON."""
    del argv
    try:
        loads = run()
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {console.sentence(error)}") from error
    if FLAGS.json:
        print(json.dumps([each._asdict() for each in loads], indent=2))
    else:
        print("\n".join(table(loads)))


def define_flags() -> None:
    """Defines the flags. Not at import: programs share names of flags, and tests import several programs."""
    flags.DEFINE_string("server", None, "HOST:PORT of gRPC, grpcs://HOST:PORT, or http[s]://HOST:PORT.", required=True)
    flags.DEFINE_string("model", None, "Name of the model there.", required=True)
    flags.DEFINE_string("version", None, "Number or label of its version; the newest by default.")
    flags.DEFINE_list("concurrency", ["1", "4", "16"], "How many requests at a time, one measurement each.")
    flags.DEFINE_integer("requests", 200, "How many requests, for each measurement.", lower_bound=1)
    flags.DEFINE_integer("tile", 256, "Side of a tile in pixels, a multiple of 16.", lower_bound=16, upper_bound=4096)
    flags.DEFINE_bool("float", False, "Send float32 to the signature network, not uint8 to restore_with_map.")
    flags.DEFINE_float("deadline", 30.0, "Seconds for one request.")
    flags.DEFINE_float("seconds", 60.0, "After which a measurement sends nothing any more.", lower_bound=0.1)
    flags.DEFINE_string("ca", None, "PEM file of who signs the server's certificate.")
    flags.DEFINE_string("cert", None, "PEM file of the certificate to show.")
    flags.DEFINE_string("key", None, "PEM file of its key.")
    flags.DEFINE_bool("json", False, "Print JSON.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
