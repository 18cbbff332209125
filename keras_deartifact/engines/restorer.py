"""A loaded network as a function on frames, and what else can stand in its place."""

import functools
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from keras_deartifact import image, quantiser
from keras_deartifact.engines.network import Network
from keras_deartifact.engines.serving import ServingError

__all__ = ["LoadedPredictor", "LoadedRestorer", "Predictor", "Restorer", "reason"]

# The radius of what cannot be measured, and the side of the pictures that it is measured on.
_RADIUS, _MEASURED_SIDE = 64, 384

_LUMA_WEIGHTS = np.array(image.LUMA_WEIGHTS, np.float32)


class Restorer(Protocol):
    """See the package."""

    def __call__(self, frames: NDArray[Any], quantiser_map: NDArray[np.float32] | None = None) -> NDArray[Any]:
        """Restores frames."""


class Predictor(Protocol):
    """A function that returns log2 steps of every 16x16 block, float32 `(n, rows, columns)` as `quantiser.map_shape`.

    The frames are `(n, height, width, 3)` RGB, float32 in `[0, 1]`. Of partial blocks at the right and at the bottom it
    says what their neighbours say: padded, they would mislead it.
    """

    def __call__(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predicts quantiser maps."""


class LoadedRestorer:
    """The `Restorer` of a model.

    Attributes:
        path: the file, or the folder of a SavedModel; the name of a model on a server.
        engine: key of `ENGINES`, or "serving".
        provider: of ONNX Runtime; None for another engine.
        threads: that the engine was asked for.
        has_other_threads: whether it has another number all the same.
        tile: height and width in pixels of the only frames that it takes, None for any. `restore.restore_frames` cuts
            others to that size.
        log2_step: mean of the quantiser map that it was given last, for who looks on; None before.
        version: of a model on a server; None for a file.
        notes: what the user should know, a line each: why this engine was chosen, what was asked for in vain.
        perception: share of the perceptual variant in the weights.
    """

    def __init__(
        self, network: Network, path: Path, engine: str, threads: int | None = None, notes: tuple[str, ...] = ()
    ) -> None:
        self.path = path
        self.engine = engine
        self.provider = network.provider
        self.threads = threads or os.cpu_count() or 1
        self.has_other_threads = network.has_other_threads
        self.tile = network.tile
        self.log2_step: float | None = None
        self.version = network.version
        self.notes = notes + network.notes
        self.perception = 0.0
        self._network = network

    def __call__(self, frames: NDArray[Any], quantiser_map: NDArray[np.float32] | None = None) -> NDArray[Any]:
        """Restores frames.

        Raises:
            ValueError: the frames or the map have another shape or dtype than they should, or the engine fails on them.
        """
        maps = self._checked_map(frames, quantiser_map)[..., None]
        self.log2_step = float(maps.mean())
        is_uint8 = frames.dtype == np.uint8
        network = self._network
        if network.channels == 1:
            images = image.to_float(frames) if is_uint8 else frames
            luma = (images @ _LUMA_WEIGHTS)[..., None]
            restored = images + (self._run(luma, maps) - luma)
        else:
            images = image.to_float(frames) if is_uint8 and not network.takes_uint8 else np.ascontiguousarray(frames)
            restored = self._run(images, maps)
        return image.to_uint8(restored) if is_uint8 and restored.dtype != np.uint8 else restored

    @functools.cached_property
    def radius(self) -> int:
        """How far what lies beyond an edge at a multiple of 16 reaches, in pixels: measured once, of a model at hand.

        The result is compared with that of the same noise with another block of 16x16 in its middle.
        """
        if self.engine == "serving" or self.tile is not None:
            return _RADIUS
        side, block, middle = _MEASURED_SIDE, quantiser.BLOCK, _MEASURED_SIDE // 2
        noise = np.random.default_rng(0).random((2, 1, side, side, 3), np.float32)
        noise[1, :, :middle] = noise[0, :, :middle]
        noise[1, :, middle + block :] = noise[0, :, middle + block :]
        noise[1, :, :, :middle] = noise[0, :, :, :middle]
        noise[1, :, :, middle + block :] = noise[0, :, :, middle + block :]
        differs = (self(noise[0]) != self(noise[1])).any(axis=(0, 3))
        places = np.concatenate(np.nonzero(differs))
        reach = int(max(middle - places.min(), places.max() + 1 - middle - block, 0)) if len(places) else 0
        # One that finds the range of its values as it goes (`dynamic_int8`) changes a little everywhere.
        return reach if reach < middle - block else _RADIUS

    def _checked_map(self, frames: NDArray[Any], quantiser_map: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """The map to use, if it and the frames are as they should be."""
        if frames.dtype not in (np.uint8, np.float32) or frames.ndim != 4 or frames.shape[3] != 3:
            raise ValueError(
                "Expected uint8 or float32 frames (n, height, width, 3). "
                f"Received: frames.dtype={frames.dtype}, frames.shape={frames.shape}"
            )
        count, height, width, _ = frames.shape
        if self.tile not in (None, (height, width)):
            raise ValueError(
                f"{self.path.name} takes frames of one size only, {self.tile[0]}x{self.tile[1]} (height x width); "
                f"restore.restore_frames cuts others to it. Received: shape={frames.shape}"
            )
        shape = (count, height // quantiser.BLOCK, width // quantiser.BLOCK)
        if height % quantiser.BLOCK or width % quantiser.BLOCK:
            raise ValueError(f"Expected sides that divide by {quantiser.BLOCK}. Received: shape={frames.shape}")
        if quantiser_map is None:
            return np.full(shape, quantiser.DEFAULT_LOG2_STEP, np.float32)
        if quantiser_map.shape != shape:
            raise ValueError(f"Expected a quantiser map {shape}. Received: quantiser_map.shape={quantiser_map.shape}")
        return np.ascontiguousarray(quantiser_map, np.float32)

    def _run(self, images: NDArray[Any], maps: NDArray[Any]) -> NDArray[Any]:
        batch = self._network.batch or len(images)
        try:
            if batch == len(images):
                return self._network.run(images, maps)
            parts = []
            for start in range(0, len(images), batch):
                # The last batch is filled up with its last image.
                chosen = np.minimum(np.arange(start, start + batch), len(images) - 1)
                parts.append(self._network.run(images[chosen], maps[chosen])[: len(images) - start])
            return np.concatenate(parts)
        except (MemoryError, ServingError):
            raise
        except Exception as error:  # Four runtimes, each with its own ways to fail.
            raise ValueError(
                f"{self.path}: the engine {self.engine!r} fails on {len(images)} frames of "
                f"{images.shape[1]}x{images.shape[2]} (height x width): {reason(error)}"
            ) from error


class LoadedPredictor:
    """The `Predictor` of a model.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, run: Callable[..., NDArray[Any]]) -> None:
        self.path = path
        self._run = run

    def __call__(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predicts quantiser maps."""
        shape = quantiser.map_shape(*frames.shape[1:3])
        height, width = (side // quantiser.BLOCK * quantiser.BLOCK for side in frames.shape[1:3])
        whole = frames[:, :height, :width] if height and width else image.pad_to_multiple(frames, quantiser.BLOCK)
        predicted = self._run(np.ascontiguousarray(whole))[..., 0]
        missing = [(0, total - given) for total, given in zip(shape, predicted.shape[1:], strict=True)]
        return np.pad(predicted, [(0, 0), *missing], mode="edge")


def reason(error: Exception) -> str:
    """What an engine says, in one line that is not long."""
    return textwrap.shorten(str(error), 200) or type(error).__name__
