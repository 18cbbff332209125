"""LiteRT: runs .tflite files, those of 8-bit integers and those of one size among them.

An integer input or output stands for a real number by its scale and its zero point:

    real = scale * (integer - zero_point)

Images of scale 1/255 that begin at the lowest integer are what frames are: uint8 frames go in and come out as they are.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_deartifact.engines import blending, graph, shipped
from keras_deartifact.engines.network import Network, fixed_shape

__all__ = ["Interpreter", "interpreter", "load"]

_LEVEL = np.float32(1 / 255)


class Interpreter(NamedTuple):
    """A file that is ready to run.

    Attributes:
        run: takes the inputs in the order of their names, float32, or uint8 where `takes_uint8` says so.
        shapes: of the inputs; -1 for any size.
        takes_uint8: for each input, whether it takes uint8 frames in `[0, 255]`.
    """

    run: Callable[..., NDArray[Any]]
    shapes: list[list[int]]
    takes_uint8: list[bool]


class _Numbers(NamedTuple):
    """How an input or output holds real numbers; scale 0 for float32."""

    dtype: Any
    scale: np.float32
    zero_point: int

    @property
    def is_frames(self) -> bool:
        integer = np.dtype(self.dtype)
        return (
            integer.itemsize == 1
            and self.zero_point == np.iinfo(integer).min
            and bool(np.isclose(self.scale, _LEVEL, rtol=1e-5, atol=0.0))
        )

    def from_real(self, array: NDArray[Any]) -> NDArray[Any]:
        if array.dtype == np.uint8:
            # From [0, 255] to [-128, 127] is the highest bit.
            return array if self.dtype == np.uint8 else (array ^ np.uint8(0x80)).view(np.int8)
        if not self.scale:
            return array
        limits = np.iinfo(self.dtype)
        integers = np.rint(array / self.scale)
        integers += self.zero_point
        return np.clip(integers, limits.min, limits.max, out=integers).astype(self.dtype)

    def to_real(self, array: NDArray[Any]) -> NDArray[Any]:
        if not self.scale:
            return array
        real = array.astype(np.float32)
        real -= self.zero_point
        real *= self.scale
        return real

    def to_frames(self, array: NDArray[Any]) -> NDArray[Any]:
        return array if self.dtype == np.uint8 else array.view(np.uint8) ^ np.uint8(0x80)


def _numbers(entry: dict[str, Any], is_images: bool) -> _Numbers:
    dtype, (scale, zero_point) = entry["dtype"], entry["quantization"]
    if dtype == np.float32:
        return _Numbers(dtype, np.float32(0), 0)
    if dtype == np.uint8 and not scale and is_images:
        # The file itself makes real numbers of the levels.
        return _Numbers(dtype, _LEVEL, 0)
    if dtype not in (np.uint8, np.int8, np.int16) or not scale:
        raise ValueError(
            f"Expected {entry['name']} of float32, or of integers with a scale. "
            f"Received: dtype={np.dtype(dtype)}, quantization={entry['quantization']}"
        )
    return _Numbers(dtype, np.float32(scale), int(zero_point))


def interpreter(path: Path, threads: int, names: Sequence[str], contents: bytes | None = None) -> Interpreter:
    """Loads a file whose inputs have names that end with these, images first.

    Args:
        path: the file.
        threads: of the engine.
        names: of the inputs.
        contents: instead of what is in the file.

    Raises:
        ValueError: the file is no such model, or damaged.
        RuntimeError: likewise.
    """
    from ai_edge_litert.interpreter import Interpreter as Runtime

    runtime = Runtime(model_path=None if contents else str(path), model_content=contents or None, num_threads=threads)
    if not shipped.is_as_shipped(path):
        graph.check(path.read_bytes())
    given = {entry["name"].split(":")[0]: entry for entry in runtime.get_input_details()}
    inputs = [entry for wanted in names for name, entry in given.items() if name.endswith(wanted)]
    if not len(inputs) == len(names) == len(given):
        raise ValueError(f"Expected the inputs {list(names)}. Received: {sorted(given)}")
    output = runtime.get_output_details()[0]
    numbers = [_numbers(entry, entry is inputs[0]) for entry in inputs]
    result = _numbers(output, True)
    shapes: list[tuple[int, ...]] = []

    def run(*arrays: NDArray[Any]) -> NDArray[Any]:
        if [array.shape for array in arrays] != shapes:
            for entry, array in zip(inputs, arrays, strict=True):
                runtime.resize_tensor_input(entry["index"], array.shape)
            runtime.allocate_tensors()
            shapes[:] = [array.shape for array in arrays]
        for entry, array, kind in zip(inputs, arrays, numbers, strict=True):
            runtime.set_tensor(entry["index"], kind.from_real(array))
        runtime.invoke()
        restored: NDArray[Any] = runtime.get_tensor(output["index"])
        return (
            result.to_frames(restored) if arrays[0].dtype == np.uint8 and result.is_frames else result.to_real(restored)
        )

    return Interpreter(
        run,
        [[int(side) for side in entry["shape_signature"]] for entry in inputs],
        [each.is_frames for each in numbers],
    )


def load(path: Path, threads: int | None, other: Path | None = None, share: float = 0.0) -> Network:
    """Loads a generator, or one that has a share of another's weights; see `ENGINES`."""
    contents = None if other is None else blending.blended(path.read_bytes(), other.read_bytes(), share)
    loaded = interpreter(path, threads or os.cpu_count() or 1, ("images", "quantiser_map"), contents)
    batch, tile = fixed_shape(*loaded.shapes)
    return Network(loaded.run, loaded.shapes[0][-1], batch, tile, takes_uint8=loaded.takes_uint8[0])
