"""Run PCM through FFmpeg's encoders and filters, with PyAV. Only this module and `decoder` use PyAV.

Importing this module costs 31 MB and 80 ms or more, so `encoder` and `tempo` import it when they first need it.
Encoders release the interpreter lock, filters do not (PyAV 18.1).
"""

from __future__ import annotations

import io
import weakref
from collections.abc import Iterator
from fractions import Fraction

import av
from av.filter import Graph

from localapi.audio.formats import Format

BLOCKS_PER_SECOND = 50


class Frames:
    """Splitter of PCM into frames of 20 ms, so that the result does not depend on how the PCM was split before."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._sample_rate_hz = sample_rate_hz
        self.block_bytes = 2 * max(1, sample_rate_hz // BLOCKS_PER_SECOND)
        self._time_base = Fraction(1, sample_rate_hz)
        self._rest = b""
        self.samples = 0
        """Number of samples in the frames so far."""

    def feed(self, pcm: bytes) -> Iterator[av.AudioFrame]:
        data = self._rest + pcm if self._rest else pcm
        whole = len(data) - len(data) % self.block_bytes
        self._rest = data[whole:]
        for start in range(0, whole, self.block_bytes):
            yield self._frame(data[start : start + self.block_bytes])

    def finish(self) -> Iterator[av.AudioFrame]:
        """Yield the rest; half a sample is dropped."""
        rest, self._rest = self._rest[: len(self._rest) & ~1], b""
        if rest:
            yield self._frame(rest)

    def _frame(self, pcm: bytes) -> av.AudioFrame:
        frame = av.AudioFrame("s16", "mono", samples=len(pcm) // 2)
        frame.planes[0].update(pcm)
        frame.sample_rate = self._sample_rate_hz
        frame.time_base = self._time_base
        frame.pts = self.samples
        self.samples += frame.samples
        return frame


class Muxer:
    """Writer of PCM to a file in a format with a codec.

    A streamed file is written without seeking, so its header has no length. Otherwise all bytes come from `finish`, and
    the header is complete: it has the length (FLAC), or the encoder's delay (MP3), which players cut off.
    """

    def __init__(self, format: Format, sample_rate_hz: int, *, streamed: bool) -> None:  # noqa: A002  # OpenAI's word
        self._frames = Frames(sample_rate_hz)
        self._sink = _Stream() if streamed else io.BytesIO()
        self._container = av.open(self._sink, "w", format=format.container, options=dict(format.options))
        stream = self._container.add_stream(format.codec or "", rate=format.rate_for(sample_rate_hz), layout="mono")
        if not isinstance(stream, av.AudioStream):
            raise TypeError(f"{format.codec!r} is not an audio encoder")
        self._stream = stream
        self._stream.codec_context.format = format.sample_format
        if format.bit_rate is not None:
            self._stream.bit_rate = format.bit_rate
        self._container.start_encoding()
        # The container and its stream reference each other; closing breaks the cycle without garbage collection.
        weakref.finalize(self, self._container.close)

    def feed(self, pcm: bytes) -> bytes:
        for frame in self._frames.feed(pcm):
            self._encode(frame)
        return self._written()

    def finish(self) -> bytes:
        for frame in self._frames.finish():
            self._encode(frame)
        if self._frames.samples == 0:  # players refuse an empty file
            for frame in self._frames.feed(bytes(self._frames.block_bytes)):
                self._encode(frame)
        self._encode(None)
        self._container.close()
        return self._sink.getvalue() if isinstance(self._sink, io.BytesIO) else self._written()

    def _encode(self, frame: av.AudioFrame | None) -> None:
        # The stream resamples, and splits into the encoder's own frames.
        self._container.mux(self._stream.encode(frame))

    def _written(self) -> bytes:
        return self._sink.taken() if isinstance(self._sink, _Stream) else b""


class Filters:
    """Chain of FFmpeg's filters from PCM to PCM."""

    def __init__(self, sample_rate_hz: int, *filters: tuple[str, str]) -> None:
        self._frames = Frames(sample_rate_hz)
        self._graph = Graph()
        source = self._graph.add_abuffer(sample_rate=sample_rate_hz, format="s16", layout="mono")
        chain = [self._graph.add(name, arguments) for name, arguments in filters]
        form = self._graph.add("aformat", "sample_fmts=s16:channel_layouts=mono")
        self._graph.link_nodes(source, *chain, form, self._graph.add("abuffersink")).configure()

    def feed(self, pcm: bytes) -> bytes:
        return b"".join(piece for frame in self._frames.feed(pcm) for piece in self._filtered(frame))

    def finish(self) -> bytes:
        rest = [piece for frame in self._frames.finish() for piece in self._filtered(frame)]
        return b"".join([*rest, *self._filtered(None)])

    def _filtered(self, frame: av.AudioFrame | None) -> Iterator[bytes]:
        self._graph.push(frame)
        while True:
            try:
                out = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            if isinstance(out, av.AudioFrame):
                yield bytes(out.planes[0])[: 2 * out.samples]


class _Stream(io.RawIOBase):
    """Output of a muxer, without seeking."""

    def __init__(self) -> None:
        super().__init__()
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # PyAV hands over bytes
        self._written += data
        return len(data)

    def taken(self) -> bytes:
        """Return the bytes written since the last call."""
        data = bytes(self._written)
        self._written.clear()
        return data
