"""The times of copied packets: complete, in order, and exact to the sample where the source's clock is coarser."""

# PyAV's Packet is generic in its stubs alone, so annotations must not be evaluated.
from __future__ import annotations

from fractions import Fraction

from av.audio.stream import AudioStream
from av.packet import Packet
from av.stream import Stream

from keras_deartifact.video import containers


class Clock:
    """The times of one stream's packets, in the order in which they are read.

    Milliseconds (Matroska, FLV) and 1/90000 s (MPEG) cannot say when most audio packets begin. MP4 counts samples: a
    packet that begins within one tick of the source after the samples of its predecessor begins there.
    """

    def __init__(self, stream: Stream) -> None:
        """Reads what the stream says of its packets.

        Args:
            stream: of the file that the packets come from.
        """
        self._tick = containers.time_base(stream)
        self._samples = 0
        self._sample: Fraction | None = None
        if isinstance(stream, AudioStream) and stream.codec_context is not None and stream.codec_context.sample_rate:
            self._samples = stream.codec_context.frame_size
            self._sample = Fraction(1, stream.codec_context.sample_rate)
        # Subtitles may begin together; elsewhere only a damaged file has two packets at a time.
        self._step = 1 if stream.type in ("audio", "video") else 0
        self._last: int | None = None
        self._written: int | None = None
        self._end = 0
        self._expected: Fraction | None = None

    def complete(self, packet: Packet[Stream]) -> None:
        """Gives a packet the decoding time that it lacks or that lies before its predecessor's: muxers refuse both.

        Args:
            packet: as it was read; changed.
        """
        dts = packet.dts if packet.dts is not None else packet.pts
        if dts is None:
            dts = self._end
        if self._last is not None:
            dts = max(dts, self._last + self._step)
        if packet.dts != dts or packet.pts is None:
            packet.dts = dts
            packet.pts = dts if packet.pts is None else max(packet.pts, dts)
        self._last = dts
        self._end = dts + (packet.duration or 0)

    def set(self, packet: Packet[Stream], tick: Fraction) -> None:
        """Moves an audio packet to the sample at which it begins, where the target can say that and the source cannot.

        Args:
            packet: complete; changed.
            tick: seconds a tick of the target.
        """
        if self._sample is None or not self._samples or tick != self._sample or self._tick <= tick:
            return
        if packet.pts is None or packet.pts != packet.dts:
            self._expected = None
            return
        stated = packet.pts * self._tick
        begin = stated
        if self._expected is not None and abs(stated - self._expected) <= self._tick:
            begin = self._expected
        ticks = round(begin / tick)
        if self._written is not None:
            ticks = max(ticks, self._written + 1)
        stated_samples = (packet.duration or 0) * self._tick / tick
        # The last packet may be shorter.
        whole = abs(stated_samples - self._samples) * tick <= self._tick
        packet.time_base = tick
        packet.pts = packet.dts = self._written = ticks
        packet.duration = self._samples if whole else round(stated_samples)
        self._expected = (ticks + packet.duration) * tick
