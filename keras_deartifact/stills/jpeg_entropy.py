"""Huffman code of JPEG: the quantised coefficients of one scan, sequential or progressive.

It is plain Python at about a million symbols a second, because no library of the base install gives coefficients. Bits
are read through windows of 40 bits, one for each byte of the data: shifted by up to 7 they hold the longest code (16
bits) together with the longest value behind it (15 bits).

Reference: ITU-T T.81, "Digital compression and coding of continuous-tone still images", annexes F and G.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

ZIGZAG = tuple(
    sorted(range(64), key=lambda index: (sum(divmod(index, 8)), divmod(index, 8)[sum(divmod(index, 8)) % 2 == 0]))
)
"""Row by row index of each coefficient, in the order in which a file has them."""

# A broken run of zeros may lead beyond the block; libjpeg ends it at the last coefficient, too.
_ORDER = ZIGZAG + (63,) * 16
_END = 64


class BrokenCodeError(ValueError):
    """The data are no Huffman code of these tables, or end too early."""


Blocks = Iterable[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class HuffmanTable:
    """A table by the next 16 bits.

    Attributes:
        codes: `(bits, symbol)` for each; 0 bits for what is no code.
        pairs: `(bits, run, size, value)` for the alternating-current symbols of a sequential scan. Where code and value
            fit in 16 bits, `bits` counts both; else `value` is 0 and `size` the number of bits that follow. An end of
            block has a run of 64, a run without a value 16.
    """

    codes: list[tuple[int, int]]
    pairs: list[tuple[int, int, int, int]]


@dataclass(frozen=True, eq=False)
class ScanComponent:
    """One component in a scan.

    Attributes:
        coefficients: quantised, block after block, each row by row; filled in by `decode_scan`.
        direct: its table for the first coefficient, or None.
        alternating: its table for the others, or None.
    """

    coefficients: "array[int]"
    direct: HuffmanTable | None
    alternating: HuffmanTable | None


@dataclass(frozen=True)
class Scan:
    """What a scan holds.

    Attributes:
        progressive: whether the file is.
        first: place of its first coefficient, in zigzag order.
        last: place of its last one.
        before: bit down to which earlier scans gave them, 0 for none; "successive approximation, high".
        now: bit down to which this one gives them.
    """

    progressive: bool
    first: int
    last: int
    before: int
    now: int


def huffman_table(counts: Sequence[int], symbols: Sequence[int]) -> HuffmanTable:
    """Builds a table.

    Args:
        counts: codes of 1 to 16 bits.
        symbols: in the order of their codes.

    Raises:
        BrokenCodeError: more codes than bits allow, or fewer symbols than codes.
    """
    codes = [(0, 0)] * 65536
    pairs = [(0, 0, 0, 0)] * 65536
    position = taken = 0
    for bits, count in enumerate(counts, 1):
        for _ in range(count):
            span = 1 << (16 - bits)
            if position + span > 65536 or taken >= len(symbols):
                raise BrokenCodeError("a Huffman table that contradicts itself")
            symbol = symbols[taken]
            codes[position : position + span] = [(bits, symbol)] * span
            pairs[position : position + span] = _pairs(bits, symbol, span)
            position, taken = position + span, taken + 1
    return HuffmanTable(codes, pairs)


def _pairs(bits: int, symbol: int, span: int) -> list[tuple[int, int, int, int]]:
    run, size = divmod(symbol, 16)
    if size == 0:
        return [(bits, 16 if run == 15 else _END, 0, 0)] * span
    if bits + size > 16:
        return [(bits, run, size, 0)] * span
    repeats = span >> size
    return [pair for extra in range(1 << size) for pair in [(bits + size, run, 0, _value(extra, size))] * repeats]


def _value(extra: int, size: int) -> int:
    """The number that `size` bits stand for: those that begin with 0 are negative."""
    return extra if extra >> (size - 1) else extra - (1 << size) + 1


def decode_scan(
    scan: Scan,
    components: Sequence[ScanComponent],
    intervals: Sequence[bytes],
    blocks: Sequence[Sequence[tuple[int, int]]],
) -> None:
    """Adds what a scan states to the coefficients of its components.

    Args:
        scan: what it holds.
        components: of the scan.
        intervals: the data between restart markers, without stuffed bytes.
        blocks: for each interval, `(component, offset of the block in its coefficients)` in coded order.

    Raises:
        BrokenCodeError: the data are broken or end too early.
    """
    if len(intervals) < len(blocks):
        raise BrokenCodeError("the picture ends too early")
    for data, block in zip(intervals, blocks, strict=False):
        reader = _Reader.of(data)
        try:
            _decoder(scan)(reader, scan, components, block)
        except IndexError as error:
            raise BrokenCodeError("the picture ends too early") from error
        except OverflowError as error:
            raise BrokenCodeError("a coefficient out of range") from error
        if reader.position > 8 * len(data):
            raise BrokenCodeError("the picture ends too early")


@dataclass(eq=False)
class _Reader:
    """Bits of an interval; `windows[i]` are the 40 from byte i on, zeros behind the end."""

    windows: "array[int]"
    position: int = 0

    @classmethod
    def of(cls, data: bytes) -> "_Reader":
        padded = np.frombuffer(data + bytes(12), np.uint8).astype(np.uint64)
        windows = np.zeros(len(padded) - 4, np.uint64)
        for place in range(5):
            windows |= padded[place : place + len(windows)] << np.uint64(32 - 8 * place)
        return cls(array("Q", windows.tobytes()))

    def bits(self, count: int) -> int:
        """The next bits, at most 16, as a number."""
        position = self.position
        self.position = position + count
        return (self.windows[position >> 3] >> (40 - (position & 7) - count)) & ((1 << count) - 1)

    def symbol(self, table: HuffmanTable | None) -> int:
        """The next symbol."""
        if table is None:
            raise BrokenCodeError("a scan without its Huffman table")
        position = self.position
        bits, symbol = table.codes[(self.windows[position >> 3] >> (24 - (position & 7))) & 0xFFFF]
        if not bits:
            raise BrokenCodeError("bits that are no Huffman code")
        self.position = position + bits
        return symbol

    def difference(self, table: HuffmanTable | None) -> int:
        """The next difference of first coefficients."""
        size = self.symbol(table)
        if size > 16:
            raise BrokenCodeError("a coefficient out of range")
        return _value(self.bits(size), size) if size else 0


def _decoder(scan: Scan) -> "Callable[[_Reader, Scan, Sequence[ScanComponent], Blocks], None]":
    if not scan.progressive:
        return _sequential
    if scan.first == 0:
        return _first_direct if scan.before == 0 else _refine_direct
    return _first_alternating if scan.before == 0 else _refine_alternating


def _sequential(reader: _Reader, scan: Scan, components: Sequence[ScanComponent], blocks: Blocks) -> None:
    windows, order = reader.windows, _ORDER
    before = [0] * len(components)
    for index, base in blocks:
        component = components[index]
        coefficients = component.coefficients
        before[index] += reader.difference(component.direct)
        coefficients[base] = before[index]
        if component.alternating is None:
            raise BrokenCodeError("a scan without its Huffman table")
        pairs = component.alternating.pairs
        position = reader.position
        place = 1
        while place < 64:
            window = windows[position >> 3] >> (7 - (position & 7))
            bits, run, size, value = pairs[(window >> 17) & 0xFFFF]
            position += bits
            place += run
            if value:
                coefficients[base + order[place]] = value
                place += 1
            elif size:
                position += size
                extra = (window >> (33 - bits - size)) & ((1 << size) - 1)
                coefficients[base + order[place]] = _value(extra, size)
                place += 1
            elif not bits:
                raise BrokenCodeError("bits that are no Huffman code")
        reader.position = position


def _first_direct(reader: _Reader, scan: Scan, components: Sequence[ScanComponent], blocks: Blocks) -> None:
    before = [0] * len(components)
    for index, base in blocks:
        before[index] += reader.difference(components[index].direct)
        components[index].coefficients[base] = before[index] << scan.now


def _refine_direct(reader: _Reader, scan: Scan, components: Sequence[ScanComponent], blocks: Blocks) -> None:
    for index, base in blocks:
        if reader.bits(1):
            components[index].coefficients[base] |= 1 << scan.now


def _first_alternating(reader: _Reader, scan: Scan, components: Sequence[ScanComponent], blocks: Blocks) -> None:
    coefficients, table = components[0].coefficients, components[0].alternating
    ended = 0
    for _, base in blocks:
        if ended:
            ended -= 1
            continue
        place = scan.first
        while place <= scan.last:
            run, size = divmod(reader.symbol(table), 16)
            if size:
                place += run
                coefficients[base + _ORDER[place]] = _value(reader.bits(size), size) << scan.now
                place += 1
            elif run == 15:
                place += 16
            else:
                ended = (1 << run) + reader.bits(run) - 1
                break


def _refine_alternating(reader: _Reader, scan: Scan, components: Sequence[ScanComponent], blocks: Blocks) -> None:
    coefficients, table = components[0].coefficients, components[0].alternating
    unit = 1 << scan.now
    ended = 0
    for _, base in blocks:
        place = scan.first
        while not ended and place <= scan.last:
            run, size = divmod(reader.symbol(table), 16)
            if size == 0 and run < 15:
                ended = (1 << run) + reader.bits(run)
                break
            new = (unit if reader.bits(1) else -unit) if size else 0
            place = _refine(reader, coefficients, base, range(place, scan.last + 1), unit, run)
            if new and place <= scan.last:
                coefficients[base + _ORDER[place]] = new
            place += 1
        if ended:
            _refine(reader, coefficients, base, range(place, scan.last + 1), unit, 64)
            ended -= 1


def _refine(reader: _Reader, coefficients: "array[int]", base: int, places: range, unit: int, zeros: int) -> int:
    """Adds a bit to each coefficient that is not 0, up to the zero after so many zeros; returns where that is."""
    for place in places:
        index = base + _ORDER[place]
        value = coefficients[index]
        if value:
            if reader.bits(1) and not abs(value) & unit:
                coefficients[index] = value + unit if value > 0 else value - unit
        elif zeros == 0:
            return place
        else:
            zeros -= 1
    return places.stop
