"""Tiles of frames through a server: many at a time, in order, each tried until it is there.

All of them by the version of the model that answered first, whatever else the server loads meanwhile: a picture or a
video of two versions would have seams.
"""

import functools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from keras_deartifact import image
from keras_deartifact.engines.serving.errors import Cancelled, Failure, ServingError
from keras_deartifact.engines.serving.grpc_transport import GrpcTransport
from keras_deartifact.engines.serving.rest_transport import RestTransport
from keras_deartifact.engines.serving.retries import Cancellation, persist, sentence
from keras_deartifact.engines.serving.server import Server
from keras_deartifact.engines.serving.transport import OUTPUT, Description, Transport

__all__ = ["NETWORK", "WITH_MAP", "Client"]

NETWORK = "network"
WITH_MAP = "restore_with_map"

_GONE = "the server had this version before, and two are not mixed: start again with one that it has now"

# Of the first contact: whoever mistypes an address should not wait for a server to restart.
_CONNECT_SECONDS = 10.0

_Result = TypeVar("_Result")


class Client:
    """A model on a server. Several threads may use it at a time.

    Attributes:
        server: see `Server`.
        model: name of the model there.
        version: number of the version that answers everything.
        description: what the server said of it.
    """

    def __init__(self, server: Server, model: str) -> None:
        """Connects, and asks what the model is.

        Raises:
            ServingError: the server is not there, has no such model, or one that is no export of this package, or
                does not tell its version.
            OSError: a certificate cannot be read.
        """
        self.server = server
        self.model = model
        self.version: int | None = None
        self._transport: Transport = (RestTransport if server.is_rest else GrpcTransport)(server, model)
        self._outage = threading.Event()
        # Each thread has one tile at a time, from its encoding to its answer: that is the bound.
        self._pool = ThreadPoolExecutor(server.in_flight, "deartifact-serving")
        try:
            patience = min(_CONNECT_SECONDS, server.patience_seconds)
            self.description = self._persist("its signatures", self._transport.describe, patience, Cancellation())
            self._check(self.description)
            self.version = self._one_version(self.description)
            self._transport.pin(self.version)
        except BaseException:
            self.close()
            raise

    @property
    def channels(self) -> int:
        """Of the images that the network takes."""
        return self.description.channels[NETWORK]

    def restore(self, images: NDArray[Any], quantiser_map: NDArray[Any]) -> NDArray[Any]:
        """Restores images of any size, cut into tiles.

        Args:
            images: float32 `(n, height, width, channels)` in `[0, 1]`, by the signature `network`; or uint8 of three
                channels, by `restore_with_map`, which takes a quarter of the bytes. Sides are multiples of 16.
            quantiser_map: float32 `(n, height / 16, width / 16, 1)`, log2 steps.

        Returns:
            An array of the same shape and dtype; float32 as the network has it.

        Raises:
            ServingError: a tile did not come back; the others are given up.
        """
        result = np.empty_like(images)
        cancellation = Cancellation()
        grid = image.tile_grid(images.shape[1], images.shape[2], self.server.tile, self.server.margin)
        tiles: list[Future[None]] = []
        # An interrupt may come while they are handed over, too.
        try:
            for number in range(len(images)):
                for each in grid:
                    work = functools.partial(
                        self._restore_tile, images, quantiser_map, result, number, each, cancellation
                    )
                    tiles.append(self._pool.submit(self._work, work, cancellation))
            wait(tiles, return_when=FIRST_EXCEPTION)
        finally:
            cancellation.cancel()
            for tile in tiles:
                tile.cancel()
        if cancellation.cause is not None:
            raise cancellation.cause
        return result

    def predict(
        self, signature: str, inputs: Mapping[str, NDArray[Any]], dtype: type[np.generic] = np.float32
    ) -> NDArray[Any]:
        """Runs a signature in the calling thread, with retries.

        Args:
            signature: of the export's.
            inputs: by name; float32, uint8, or an array of bytes objects.
            dtype: of the answer: np.float32, np.uint8, or np.object_ for bytes.

        Returns:
            The signature's only output.

        Raises:
            ServingError: it failed.
        """
        return self._predict(signature, inputs, dtype, Cancellation())

    def close(self) -> None:
        """Ends the connection."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._transport.close()

    def attempt(
        self, signature: str, inputs: Mapping[str, NDArray[Any]], dtype: type[np.generic], seconds: float
    ) -> NDArray[Any]:
        """Runs a signature in the calling thread once; raises `Failure`. For those that count failures."""
        return self._transport.predict(signature, inputs, dtype, seconds, Cancellation())

    def _predict(
        self,
        signature: str,
        inputs: Mapping[str, NDArray[Any]],
        dtype: type[np.generic],
        cancellation: Cancellation,
    ) -> NDArray[Any]:
        def request(seconds: float, cancellation: Cancellation) -> NDArray[Any]:
            try:
                return self._transport.predict(signature, inputs, dtype, seconds, cancellation)
            except Failure as failure:
                if failure.code == "NOT_FOUND":
                    raise Failure(failure.code, failure.details, _GONE) from failure
                raise

        return self._persist(f"{signature!r}", request, self.server.patience_seconds, cancellation)

    def _persist(
        self,
        what: str,
        request: Callable[[float, Cancellation], _Result],
        patience_seconds: float,
        cancellation: Cancellation,
    ) -> _Result:
        return persist(
            lambda seconds: request(seconds, cancellation),
            self._name(what),
            self.server.deadline_seconds,
            patience_seconds,
            cancellation,
            self._outage,
        )

    def _name(self, what: str) -> str:
        version = self.server.version if self.version is None else self.version
        pinned = "" if version is None else f" {'version' if isinstance(version, int) else 'label'} {version}"
        return f"{self.server.name}, asked for {what} of the model {self.model!r}{pinned},"

    def _work(self, action: Callable[[], None], cancellation: Cancellation) -> None:
        if cancellation.is_cancelled:
            raise Cancelled
        try:
            action()
        except BaseException as error:
            # Here, not in the thread that waits: this one would have sent the next tile by then.
            cancellation.cancel(error)
            raise

    def _restore_tile(
        self,
        images: NDArray[Any],
        quantiser_map: NDArray[Any],
        result: NDArray[Any],
        number: int,
        tile: image.Tile,
        cancellation: Cancellation,
    ) -> None:
        blocks = tuple(slice(side.start // image.GRID, side.stop // image.GRID) for side in tile.source)
        one = slice(number, number + 1)
        source = np.ascontiguousarray(images[one, *tile.source])
        steps = np.ascontiguousarray(quantiser_map[one, *blocks])
        is_uint8 = source.dtype == np.uint8
        signature = WITH_MAP if is_uint8 else NETWORK
        inputs = {"images": source, "quantiser_map": steps[..., 0] if is_uint8 else steps}
        restored = self._predict(signature, inputs, source.dtype.type, cancellation)
        wrong = None
        if restored.dtype != source.dtype or restored.shape != source.shape:
            wrong = f"{restored.dtype} {restored.shape} instead of {source.dtype} {source.shape}"
        elif not is_uint8 and not np.isfinite(restored).all():
            wrong = "numbers that are not finite"
        if wrong is not None:
            raise ServingError(sentence(self._name(f"{signature!r}"), Failure("GARBAGE", wrong), 1, 0.0))
        # No two tiles share a pixel of it.
        result[one, *tile.destination] = restored[:, *tile.inner]

    def _check(self, description: Description) -> None:
        given = [name for name, outputs in description.outputs.items() if outputs == [OUTPUT]]
        missing = [name for name in (NETWORK, WITH_MAP) if name not in given or name not in description.channels]
        if missing or description.channels[NETWORK] not in (1, 3):
            raise ServingError(
                f"{self._name('its signatures')} has {sorted(description.outputs)} and not those of an export of this "
                f"package: {NETWORK!r} of 1 or 3 channels and {WITH_MAP!r}, which give {OUTPUT!r} alone."
            )

    def _one_version(self, description: Description) -> int:
        wanted, found = self.server.version, description.version
        if isinstance(wanted, int):
            if found not in (None, wanted):
                raise ServingError(f"{self._name('its signatures')} answers as version {found}.")
            return wanted
        if found is None:
            raise ServingError(
                f"{self._name('its signatures')} does not tell its version, so that two could be mixed: choose one by "
                "its number."
            )
        return found
