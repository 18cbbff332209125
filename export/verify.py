"""Compares an artefact with its Keras model, both as users run them: through `engines.load` and `restore_frames`.

On real pictures of odd sizes after several codecs, in batches, and once cut into tiles. An artefact in float32 has to
agree with the Keras model in every number; one of lower precision may cost some PSNR, a mean over the pictures and
codecs.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from export import saved_model
from export.pictures import Example
from keras_deartifact import engines, image, metrics, restore

__all__ = [
    "LARGEST_DIFFERENCE",
    "PSNR_COST_DB",
    "Batch",
    "Parity",
    "batches",
    "check",
    "check_changes",
    "check_signatures",
    "measure",
    "one_by_one",
    "restored_by",
]

LARGEST_DIFFERENCE = 1e-5
"""In float32, in intensity, times `Parity.largest_result`: a 400th of an 8-bit level.

Engines add up in different orders. With random weights ONNX Runtime is within 3.1e-6 of Keras for every generator, and
nearer to the result in float64 than Keras itself, by a third."""

PSNR_COST_DB = {"float16": 0.02, "dynamic_int8": 0.10, "int8": 0.10}

# The smallest that leaves something between the margins of `restore.MARGIN`.
_TILE = 160
_NOTHING = 1e-4

Floats = NDArray[np.float32]


class Batch(NamedTuple):
    """What goes to a restorer at once.

    Attributes:
        originals: uint8 `(n, height, width, 3)`.
        compressed: the same shape and dtype.
        quantiser_maps: float32 `(n, ceil(height / 16), ceil(width / 16))`.
        in_tiles: whether it is cut.
    """

    originals: NDArray[np.uint8]
    compressed: NDArray[np.uint8]
    quantiser_maps: Floats
    in_tiles: bool = False


@dataclass(frozen=True)
class Parity:
    """How far an artefact is from its Keras model.

    Attributes:
        max_difference: the largest difference of a sample, in intensity (an 8-bit level is 1/255).
        mean_difference: the mean of the absolute differences.
        psnr_keras_db: of the Keras model's results, 8 bits, RGB, the mean over the pictures and codecs.
        psnr_cost_db: what the artefact's results have less.
        largest_result: the Keras model's largest absolute result, at least 1.
    """

    max_difference: float
    mean_difference: float
    psnr_keras_db: float
    psnr_cost_db: float
    largest_result: float


def batches(examples: Sequence[Example]) -> list[Batch]:
    """Returns each picture's examples as a batch, and the first of them once more, to be cut into tiles."""
    groups = [list(group) for _, group in itertools.groupby(examples, lambda example: id(example.original))]
    whole = [_stacked(group) for group in groups]
    return [*whole, _stacked(groups[0])._replace(in_tiles=True)]


def one_by_one(examples: Sequence[Example]) -> list[Batch]:
    """Returns each example by itself, for an artefact that takes one picture of one size."""
    return [_stacked([example]) for example in examples]


def restored_by(restorer: engines.Restorer, given: Sequence[Batch]) -> list[Floats]:
    """Returns what a restorer makes of each batch, float32, not clipped.

    Raises:
        ValueError: its results are not finite, or of another shape.
    """
    return [
        restore.restore_frames(
            restorer,
            image.to_float(batch.compressed),
            batch.quantiser_maps,
            **({"tile": _TILE, "whole_pixels": 0} if batch.in_tiles else {}),
        )
        for batch in given
    ]


def check_changes(given: Sequence[Batch], expected: Sequence[Floats]) -> None:
    """Checks that the Keras model does something that a comparison can show.

    Raises:
        ValueError: it does not.
    """
    largest = max(
        float(np.abs(restored - image.to_float(batch.compressed)).max())
        for batch, restored in zip(given, expected, strict=True)
    )
    if largest < _NOTHING:
        raise ValueError("The generator changes nothing: there is nothing that a comparison could show.")


def measure(
    restorer: engines.Restorer, given: Sequence[Batch], expected: Sequence[Floats], clipped: bool = False
) -> Parity:
    """Compares a restorer with the Keras model.

    Args:
        restorer: the artefact's.
        given: the batches.
        expected: what the Keras model makes of them.
        clipped: whether the artefact clips its results to `[0, 1]`; the expected ones are clipped, too, then.

    Raises:
        ValueError: as `restored_by`, or every picture comes back without any error, as flat ones do.
    """
    results = restored_by(restorer, given)
    wanted = [np.clip(each, 0.0, 1.0) for each in expected] if clipped else list(expected)
    differences = np.concatenate(
        [np.abs(result - each).ravel() for result, each in zip(results, wanted, strict=True)], dtype=np.float32
    )
    pairs = [
        (_psnr(original, keras_result), _psnr(original, result))
        for batch, all_keras, all_results in zip(given, expected, results, strict=True)
        if not batch.in_tiles
        for original, keras_result, result in zip(batch.originals, all_keras, all_results, strict=True)
    ]
    # A flat picture may come back without any error.
    finite = [pair for pair in pairs if math.inf not in pair]
    if not finite:
        raise ValueError("Every picture is restored without any error: choose pictures that compression harms.")
    psnr_keras, psnr = np.mean(finite, axis=0).tolist()
    return Parity(
        max_difference=float(differences.max()),
        mean_difference=float(differences.mean(dtype=np.float64)),
        psnr_keras_db=psnr_keras,
        psnr_cost_db=psnr_keras - psnr,
        largest_result=max(1.0, *(float(np.abs(each).max()) for each in wanted)),
    )


def check(name: str, precision: str, parity: Parity) -> None:
    """Checks an artefact against what its precision allows.

    Raises:
        ValueError: it is further from the Keras model. In one line, with the figure.
    """
    if precision == "float32":
        allowed = LARGEST_DIFFERENCE * parity.largest_result
        if not parity.max_difference <= allowed:
            raise ValueError(f"{name} differs from the Keras model by {parity.max_difference:.2g} > {allowed:.2g}.")
    # A gain is as suspicious: it is another network then.
    elif not abs(parity.psnr_cost_db) <= PSNR_COST_DB[precision]:
        raise ValueError(
            f"{name} differs from the Keras model by {-parity.psnr_cost_db:+.3g} dB of PSNR; "
            f"{PSNR_COST_DB[precision]:g} dB are allowed for {precision}."
        )


def check_signatures(folder: Path, batch: Batch, restorer: engines.Restorer) -> None:
    """Checks the signatures of a SavedModel that take pictures and files, on one batch.

    They may differ by a level, where a result lies half-way between two.

    Args:
        folder: the SavedModel's.
        batch: of any size.
        restorer: the Keras model's.

    Raises:
        ValueError: one of them gives something else.
    """
    module = tf.saved_model.load(str(folder))
    frames = batch.compressed
    files = [tf.io.encode_png(frame).numpy() for frame in frames]
    by_default = restore.restore_frames(restorer, frames)
    wanted: dict[str, tuple[dict[str, Any], NDArray[np.uint8]]] = {
        "serving_default": ({"images": frames}, by_default),
        "restore_with_map": (
            {"images": frames, "quantiser_map": batch.quantiser_maps},
            restore.restore_frames(restorer, frames, batch.quantiser_maps),
        ),
        "restore_encoded": ({"encoded_bytes": files}, by_default),
    }
    for name, (inputs, expected) in wanted.items():
        given = {key: tf.constant(value) for key, value in inputs.items()}
        (answer,) = module.signatures[name](**given).values()
        result = answer.numpy()
        if name == "restore_encoded":
            result = np.stack([tf.io.decode_png(each).numpy() for each in result])
        difference = np.abs(result.astype(np.int16) - expected).max()
        if difference > 1:
            raise ValueError(f"The signature {name} differs from the Keras model by {difference} levels.")
    missing = set(saved_model.SIGNATURES) - set(module.signatures)
    if missing:
        raise ValueError(f"The signatures {sorted(missing)} are missing.")


def _stacked(examples: Sequence[Example]) -> Batch:
    return Batch(*(np.stack(arrays) for arrays in zip(*(example[1:] for example in examples), strict=True)))


def _psnr(original: NDArray[np.uint8], restored: Floats) -> float:
    return metrics.psnr(original, image.to_uint8(restored))
