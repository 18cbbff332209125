"""What both protocols give: one request, one answer or one `Failure`."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from keras_deartifact.engines.serving.retries import Cancellation

__all__ = ["OUTPUT", "Description", "Transport"]

OUTPUT = "restored"
"""The name of the pictures that the signatures of an export give."""


class Description(NamedTuple):
    """What a server says of a model.

    Attributes:
        version: that answered; None where the server does not tell.
        channels: the last axis of the input `images` by signature, as far as a signature has it.
        outputs: the names of the outputs by signature.
    """

    version: int | None
    channels: dict[str, int]
    outputs: dict[str, list[str]]


class Transport(Protocol):
    """A connection to a server and a model; several threads may use it at a time."""

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, NDArray[Any]],
        dtype: type[np.generic],
        seconds: float,
        cancellation: Cancellation,
    ) -> NDArray[Any]:
        """Runs a signature.

        Args:
            signature: name.
            inputs: by name; float32, uint8, or objects that are bytes.
            dtype: of the answer; REST does not tell it.
            seconds: until which there is an answer, or DEADLINE_EXCEEDED.
            cancellation: ends it.

        Returns:
            The signature's only output.

        Raises:
            Failure: there is none.
            Cancelled: of the cancellation.
        """

    def describe(self, seconds: float, cancellation: Cancellation) -> Description:
        """Asks what the model is; raises as `predict`."""

    def pin(self, version: int) -> None:
        """Asks this version, and no other, from now on."""

    def close(self) -> None:
        """Ends the connection; what is under way fails."""
