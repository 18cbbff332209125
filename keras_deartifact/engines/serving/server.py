"""Where a server is and how to talk to it."""

import os
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from keras_deartifact import image

__all__ = ["Server"]

_PORTS = {"grpc": None, "grpcs": None, "http": 80, "https": 443}
_SECURE = ("grpcs", "https")

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Server:
    """A model server and how it is used.

    Attributes:
        address: "HOST:PORT" or "grpc://HOST:PORT" of gRPC, "grpcs://HOST:PORT" of gRPC over TLS, or the
            "http[s]://HOST[:PORT][/PATH]" of REST. A plain "HOST:PORT" uses TLS where a certificate is given.
        version: number of the model's version, or its label; text of digits is a number; None for whatever the server
            takes, the newest. A restorer keeps the one that it found, whatever is newest or has the label later.
        ca: PEM file of the certificates that sign the server's; None for those that are usually trusted.
        cert: PEM file of the client's own certificate; None to show none.
        key: PEM file of its key.
        tile: side of what is sent at a time, margins included, in pixels; a multiple of 16. The default is 1.8 MB of
            float32, so that it fits below the 4 MB that gRPC takes where nobody told it otherwise.
        margin: of a tile, in pixels, at least the radius of the network's receptive field.
        in_flight: the most tiles that are encoded, sent or waited for at any time, over all threads.
        deadline_seconds: for one request.
        patience_seconds: for one tile, over all tries.

    Raises:
        ValueError: an address of another form, a certificate without its key or for an address without TLS, or a number
            out of range.
    """

    address: str
    version: int | str | None = None
    ca: StrPath | None = None
    cert: StrPath | None = None
    key: StrPath | None = None
    tile: int = 384
    margin: int = 64
    in_flight: int = 16
    deadline_seconds: float = 30.0
    patience_seconds: float = 120.0

    def __post_init__(self) -> None:
        parts = _split(self.address)
        if (self.cert is None) != (self.key is None):
            raise ValueError("Expected a client certificate together with its key. Received: only one of them")
        if "://" in self.address and parts.scheme not in _SECURE and (self.ca or self.cert):
            raise ValueError(
                f"Expected an address of grpcs:// or https://, because certificates are given. Received: {self.address}"
            )
        if self.in_flight < 1:
            raise ValueError(f"Expected in_flight of at least 1. Received: in_flight={self.in_flight}")
        for name in ("deadline_seconds", "patience_seconds"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ValueError(f"Expected {name} above 0. Received: {name}={getattr(self, name)}")
        if isinstance(self.version, str) and self.version.isdecimal():
            object.__setattr__(self, "version", int(self.version))
        if isinstance(self.version, int) and self.version < 0 or self.version == "":
            raise ValueError(f"Expected a version's number or label. Received: version={self.version!r}")
        # It says what is wrong with a tile.
        image.tile_grid(image.GRID, image.GRID, self.tile, self.margin)

    @property
    def is_rest(self) -> bool:
        """Whether it is asked by REST, not gRPC."""
        return _split(self.address).scheme.startswith("http")

    @property
    def is_secure(self) -> bool:
        """Whether the connection is encrypted."""
        given = self.ca is not None or self.cert is not None
        return _split(self.address).scheme in _SECURE or ("://" not in self.address and given)

    @property
    def host(self) -> str:
        """Name or number, of IPv6 without brackets."""
        return _split(self.address).hostname or ""

    @property
    def port(self) -> int:
        """Of the address."""
        parts = _split(self.address)
        return parts.port or _PORTS[parts.scheme] or 0

    @property
    def path(self) -> str:
        """What comes before /v1 in the addresses of REST, without a slash at its end."""
        return _split(self.address).path.rstrip("/")

    @property
    def name(self) -> str:
        """For the reader."""
        protocol = ("REST" if self.is_rest else "gRPC") + (" over TLS" if self.is_secure else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port} ({protocol})"

    def read(self, name: str) -> bytes | None:
        """Returns the contents of `ca`, `cert` or `key`; None where there is none.

        Raises:
            OSError: the file cannot be read.
        """
        file: StrPath | None = getattr(self, name)
        if file is None:
            return None
        with open(file, "rb") as stream:
            return stream.read()


def _split(address: str) -> SplitResult:
    try:
        parts = urlsplit(address if "://" in address else f"grpc://{address}")
        has_port = parts.port is not None
    except ValueError:
        # A port that is no number, or half of a bracket.
        parts, has_port = SplitResult("", "", "", "", ""), False
    is_rest = parts.scheme in ("http", "https")
    extra = parts.query or parts.fragment or "@" in parts.netloc or (parts.path and not is_rest)
    if parts.scheme not in _PORTS or not parts.hostname or extra or not (has_port or is_rest):
        raise ValueError(
            "Expected an address HOST:PORT of gRPC, grpcs://HOST:PORT over TLS, or http[s]://HOST:PORT of REST. "
            f"Received: {address}"
        )
    return parts
