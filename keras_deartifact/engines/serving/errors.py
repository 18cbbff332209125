"""What can go wrong between the client and the server."""

__all__ = ["Cancelled", "Failure", "ServingError"]


class ServingError(ValueError):
    """The server cannot be used; the message is one line that names it and says what was tried."""


class Failure(Exception):
    """One request failed.

    Attributes:
        code: gRPC's name of the status, such as "UNAVAILABLE", whatever the transport; "GARBAGE" for an answer that is
            none.
        details: what the server or the transport says, in its own words.
        advice: what to do, where more is known than what the code says; None elsewhere.
    """

    def __init__(self, code: str, details: str, advice: str | None = None) -> None:
        super().__init__(f"{code}: {details}")
        self.code = code
        self.details = details
        self.advice = advice


class Cancelled(Exception):
    """Nobody waits for this request any more."""
