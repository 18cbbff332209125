"""Compares how fast samples are made with how fast a training step takes them.

    python -m training.benchmark --config=shuffle_nano --data=DIR --video=DIR

Both are timed alone, in turns, in this process on this machine; the median of the turns counts. The input pipeline has
to be at least twice as fast as the step, or training waits for it.
"""

import itertools
import statistics
import time
from typing import Any

import tensorflow as tf
from absl import app, flags

from training import datasets, train

FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Prints the two rates and their ratio."""
    del argv
    try:
        config = train.named(FLAGS.config)
        dataset, _ = datasets.make_datasets(config, datasets.find_sources(config, FLAGS.data, FLAGS.video), 0)
        model = train.make_model(config, backbone=train.load_backbone(config, FLAGS.vgg_weights))
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    batches = iter(dataset)
    held = list(itertools.islice(batches, 2))
    size = int(held[0][1].shape[0])

    def make() -> Any:
        return next(batches)

    def step() -> Any:
        return model.train_on_batch(held[0][0], held[0][1], held[0][2])

    def rate(act: Any) -> float:
        start = time.perf_counter()
        for _ in range(FLAGS.batches):
            act()
        return FLAGS.batches * size / (time.perf_counter() - start)

    for _ in range(5):
        make()
        step()
    rates: dict[str, list[float]] = {"made": [], "trained": []}
    for _ in range(FLAGS.turns):
        rates["made"].append(rate(make))
        rates["trained"].append(rate(step))
    made, trained = statistics.median(rates["made"]), statistics.median(rates["trained"])
    print(f"{FLAGS.config}, batches of {size}, TensorFlow {tf.__version__}")
    for name, values in rates.items():
        print(f"  samples {name:8s} {statistics.median(values):7.0f} /s   ({min(values):.0f} to {max(values):.0f})")
    print(f"  ratio {made / trained:.1f}")


if __name__ == "__main__":
    train.define_data_flags()
    flags.DEFINE_integer("batches", 60, "Batches of a turn.", lower_bound=1)
    flags.DEFINE_integer("turns", 5, "Turns of each.", lower_bound=1)
    app.run(main)
