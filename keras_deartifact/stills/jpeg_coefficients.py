"""The quantised DCT coefficients of a JPEG file, exactly as it states them, and the planes that they stand for.

    plane block = DCT^-1(coefficients * table) + 128

with the orthonormal 8x8 DCT. Sequential and progressive Huffman files of 8 bits, of any number of components.
"""

import os
import re
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keras_deartifact.stills import jpeg_entropy
from keras_deartifact.stills.jpeg_entropy import BrokenCodeError, HuffmanTable, Scan, ScanComponent

SEQUENTIAL, PROGRESSIVE = (0xC0, 0xC1), (0xC2,)
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_ARITHMETIC = (0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_MAXIMUM_COEFFICIENTS = 1 << 30

Floats = npt.NDArray[np.float32]

DCT = np.array(
    [[np.sqrt((1 if row == 0 else 2) / 8) * np.cos((2 * column + 1) * row * np.pi / 16) for column in range(8)]
     for row in range(8)]
)  # fmt: skip
"""Orthonormal: `DCT @ block @ DCT.T` are the coefficients of a block, rows are vertical frequencies."""

_DCT = DCT.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Component:
    """One component of a JPEG.

    Attributes:
        identifier: the file's number for it.
        across: its samples for `Coefficients.across` of the picture's, horizontally; 1 to 4.
        down: the same vertically.
        table: int `(8, 8)`, the quantiser steps, vertical frequencies in rows.
        quantised: int16 `(rows, columns, 8, 8)`, of the blocks that hold pixels of the picture.
    """

    identifier: int
    across: int
    down: int
    table: npt.NDArray[np.int64]
    quantised: npt.NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class Coefficients:
    """What a JPEG states.

    Attributes:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        components: in the file's order.
        adobe_transform: of the Adobe marker: 0 none, 1 YCbCr, 2 YCCK; None without the marker.
    """

    height: int
    width: int
    components: tuple[Component, ...]
    adobe_transform: int | None

    @property
    def across(self) -> int:
        """The largest horizontal sampling factor."""
        return max(component.across for component in self.components)

    @property
    def down(self) -> int:
        """The largest vertical sampling factor."""
        return max(component.down for component in self.components)


def to_blocks(plane: Floats) -> Floats:
    """Coefficients `(rows, columns, 8, 8)` of a plane `(8 * rows, 8 * columns)` around 0."""
    return np.ascontiguousarray(transformed(plane).transpose(0, 2, 1, 3))


def from_blocks(coefficients: Floats) -> Floats:
    """The plane of coefficients, the inverse of `to_blocks`."""
    return inverse(coefficients.transpose(0, 2, 1, 3))


def transformed(plane: Floats) -> Floats:
    """Coefficients `(rows, 8, columns, 8)`, in the places of their blocks, by two products of large matrices."""
    height, width = plane.shape
    down: Floats = _DCT @ plane.reshape(height // 8, 8, width)
    return np.asarray(down.reshape(-1, 8) @ _DCT.T, np.float32).reshape(height // 8, 8, width // 8, 8)


def inverse(coefficients: Floats) -> Floats:
    """The plane of coefficients `(rows, 8, columns, 8)`, the inverse of `transformed`."""
    rows, _, columns, _ = coefficients.shape
    across: Floats = coefficients.reshape(-1, 8) @ _DCT
    return np.asarray(_DCT.T @ across.reshape(rows, 8, 8 * columns), np.float32).reshape(8 * rows, 8 * columns)


def read_coefficients(path: str | os.PathLike[str]) -> Coefficients:
    """Reads the coefficients of a JPEG file; of a multi-picture one those of its first picture.

    Args:
        path: the file.

    Raises:
        ValueError: no JPEG, a broken one, or one that is coded arithmetically, without loss, hierarchically or with
            more than 8 bits. One line, with the path.
        OSError: the file system does not give it.
    """
    with open(path, "rb") as stream:
        data = stream.read()
    try:
        return _File(data).read()
    except _Unsupported as error:
        raise ValueError(f"expected {error}. Received: path={os.fspath(path)}") from error
    except (BrokenCodeError, IndexError, KeyError, struct.error) as error:
        reason = str(error) if isinstance(error, BrokenCodeError) else "broken header"
        raise ValueError(f"expected a whole JPEG ({reason}). Received: path={os.fspath(path)}") from error


class _Unsupported(Exception):
    """What was expected."""


@dataclass(eq=False)
class _Part:
    """A component while it is read; `wide` and `high` are in blocks, with those that only fill up a unit."""

    identifier: int
    across: int
    down: int
    table_number: int
    rows: int
    columns: int
    high: int
    wide: int
    coefficients: "array[int]"
    table: npt.NDArray[np.int64] | None = None


class _File:
    """Walks through a file's segments, and keeps the tables that are in force."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._tables: dict[int, npt.NDArray[np.int64]] = {}
        self._huffman: dict[int, HuffmanTable] = {}
        self._restart = 0
        self._parts: list[_Part] = []
        self._height = self._width = 0
        self._progressive = False
        self._adobe: int | None = None

    def read(self) -> Coefficients:
        if self._data[:2] != b"\xff\xd8":
            raise _Unsupported("a JPEG file")
        position = 2
        while True:
            marker, start, position = self._segment(position)
            body = self._data[start:position]
            if marker == 0xD9:
                break
            if marker in _FRAMES:
                self._frame(marker, body)
            elif marker == 0xDB:
                self._quantisation(body)
            elif marker == 0xC4:
                self._huffman_tables(body)
            elif marker == 0xDD:
                (self._restart,) = struct.unpack_from(">H", body)
            elif marker == 0xEE and body[:5] == b"Adobe":
                self._adobe = body[11]
            elif marker == 0xDA:
                position = self._scan(body, position)
        if not self._parts or any(part.table is None for part in self._parts):
            raise BrokenCodeError("the picture ends too early")
        components = tuple(_component(part) for part in self._parts)
        return Coefficients(self._height, self._width, components, self._adobe)

    def _segment(self, position: int) -> tuple[int, int, int]:
        """The marker at or after a position, and where its content begins and ends."""
        match = re.compile(rb"\xff+([\x01-\xfe])").search(self._data, position)
        if match is None:
            raise BrokenCodeError("the picture ends too early")
        marker, start = match[1][0], match.end()
        if marker == 0xD9 or marker == 0x01 or 0xD0 <= marker <= 0xD8:
            return marker, start, start
        (length,) = struct.unpack_from(">H", self._data, start)
        return marker, start + 2, start + length

    def _quantisation(self, body: bytes) -> None:
        while body:
            precision, number = divmod(body[0], 16)
            size = 128 if precision else 64
            steps = np.frombuffer(body[1 : 1 + size], ">u2" if precision else np.uint8)
            if len(steps) != 64 or not steps.all():
                raise BrokenCodeError("a broken quantisation table")
            table = np.empty(64, np.int64)
            table[list(jpeg_entropy.ZIGZAG)] = steps
            self._tables[number] = table.reshape(8, 8)
            body = body[1 + size :]

    def _huffman_tables(self, body: bytes) -> None:
        while body:
            counts = list(body[1:17])
            end = 17 + sum(counts)
            self._huffman[body[0]] = jpeg_entropy.huffman_table(counts, list(body[17:end]))
            body = body[end:]

    def _frame(self, marker: int, body: bytes) -> None:
        if marker not in SEQUENTIAL + PROGRESSIVE:
            if marker in _ARITHMETIC:
                hint = "change that without loss, for example with 'jpegtran -copy all -optimize'"
                raise _Unsupported(f"a JPEG with Huffman code, not with arithmetic code; {hint}")
            raise _Unsupported("a JPEG with Huffman code, not one coded without loss or hierarchically")
        if self._parts:
            raise BrokenCodeError("two pictures in one")
        bits, self._height, self._width, count = struct.unpack_from(">BHHB", body)
        if bits != 8:
            raise _Unsupported(f"a JPEG of 8 bits, not {bits}")
        entries = [struct.unpack_from("BBB", body, 6 + 3 * index) for index in range(count)]
        factors = [divmod(factor, 16) for _, factor, _ in entries]
        if not self._height or not self._width or not all(1 <= each <= 4 for pair in factors for each in pair):
            raise BrokenCodeError("broken header")
        across, down = (max(sizes) for sizes in zip(*factors, strict=True))
        units = _up(self._height, 8 * down), _up(self._width, 8 * across)
        if 64 * units[0] * units[1] * sum(wide * high for wide, high in factors) > _MAXIMUM_COEFFICIENTS:
            raise _Unsupported(f"a JPEG of at most {_MAXIMUM_COEFFICIENTS} coefficients")
        self._progressive = marker in PROGRESSIVE
        for (identifier, _, number), (wide, high) in zip(entries, factors, strict=True):
            rows = _up(_up(self._height * high, down), 8)
            columns = _up(_up(self._width * wide, across), 8)
            shape = units[0] * high, units[1] * wide
            coefficients = array("h", bytes(128 * shape[0] * shape[1]))
            self._parts.append(_Part(identifier, wide, high, number, rows, columns, *shape, coefficients))

    def _scan(self, body: bytes, position: int) -> int:
        """Decodes a scan; returns where it ends."""
        count = body[0]
        named = {part.identifier: part for part in self._parts}
        chosen = [(named[body[1 + 2 * index]], body[2 + 2 * index]) for index in range(count)]
        first, last, bits = body[1 + 2 * count : 4 + 2 * count]
        if not chosen or not 0 <= first <= last < 64 or (self._progressive and first and count > 1):
            raise BrokenCodeError("broken header")
        parts = [part for part, _ in chosen]
        for part in parts:
            if part.table is None:
                part.table = self._tables[part.table_number]
        components = [
            ScanComponent(part.coefficients, self._huffman.get(tables >> 4), self._huffman.get(16 + (tables & 15)))
            for part, tables in chosen
        ]
        match = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]").search(self._data, position)
        end = len(self._data) if match is None else match.start()
        intervals = [
            each.replace(b"\xff\x00", b"\xff") for each in re.split(rb"\xff+[\xd0-\xd7]", self._data[position:end])
        ]
        blocks = _blocks(parts, self._restart)
        scan = Scan(self._progressive, first, last, *divmod(bits, 16))
        jpeg_entropy.decode_scan(scan, components, intervals, list(blocks))
        return end


def _up(number: int, divisor: int) -> int:
    return -(-number // divisor)


def _blocks(parts: Sequence[_Part], restart: int) -> Iterator[list[tuple[int, int]]]:
    """The blocks of each restart interval, as `(part, offset)`."""
    if len(parts) == 1:
        part = parts[0]
        offsets = 64 * (np.arange(part.rows)[:, None] * part.wide + np.arange(part.columns))
        units = offsets.reshape(-1, 1)
        owners = [0]
    else:
        high, wide = parts[0].high // parts[0].down, parts[0].wide // parts[0].across
        columns, owners = [], []
        for index, part in enumerate(parts):
            for row in range(part.down):
                for column in range(part.across):
                    rows = np.arange(high)[:, None] * part.down + row
                    columns.append(64 * (rows * part.wide + np.arange(wide) * part.across + column).ravel())
                    owners.append(index)
        units = np.stack(columns, axis=1)
    step = restart or len(units)
    for start in range(0, len(units), step):
        yield [pair for unit in units[start : start + step].tolist() for pair in zip(owners, unit, strict=True)]


def _component(part: _Part) -> Component:
    blocks = np.frombuffer(part.coefficients, np.int16).reshape(part.high, part.wide, 8, 8)
    quantised = np.ascontiguousarray(blocks[: part.rows, : part.columns])
    if part.table is None:
        raise BrokenCodeError("the picture ends too early")
    return Component(part.identifier, part.across, part.down, part.table, quantised)
