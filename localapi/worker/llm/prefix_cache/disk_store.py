"""Slices of prompt caches on disk, so that they outlive the worker.

Each slice is a safetensors file below `folder/<fingerprint>/`, with the tokens, the arrays and a checksum over all of
it. It is written under another name and renamed when complete, because a worker may be killed at any time. Files are
private to the user, because they hold conversations. The byte limit applies to the whole folder, and the least recently
used file is deleted first, whichever model it belongs to: files of a model that was changed or removed must not fill
the disk forever, and a worker that misses a file only computes again. This module knows neither conversations nor the
tree.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import sys
import time
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_flatten, tree_map

from localapi.system.os_errors import advise

TokenArray = npt.NDArray[np.int32]
Arrays = tuple[mx.array, ...]
SliceKind = Literal["whole", "near"]

PORTION_BYTES = 8 * 1024 * 1024
"""Bytes written at once, which takes about ten milliseconds, for which a new request has to wait."""
REST_SECONDS = 60
"""Pause after a failed write."""
STALE_SECONDS = 600
"""Age at which an unfinished file must belong to a killed worker."""
MAX_HEADER_BYTES = 16 * 1024 * 1024
FORMAT = "localapi prefix 1"
_NO_SUM = "00000000"
_DTYPES = {
    "BOOL": mx.bool_, "U8": mx.uint8, "I8": mx.int8, "U16": mx.uint16, "I16": mx.int16, "U32": mx.uint32,
    "I32": mx.int32, "U64": mx.uint64, "I64": mx.int64, "F16": mx.float16, "BF16": mx.bfloat16, "F32": mx.float32,
}  # fmt: skip
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True, eq=False)
class CacheSlice:
    """The content of a model's caches for one stretch of tokens, evaluated and in its own buffers."""

    sequences: Mapping[int, Arrays] = field(default_factory=dict)
    """Layer → arrays with tokens on axis 2, up to the last of the stretch; not always from its first."""
    states: Mapping[int, Any] = field(default_factory=dict)
    """Layer → its cache's `state` after the last token: arrays in lists and tuples."""

    @cached_property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in arrays_in(self))

    def __bool__(self) -> bool:
        return bool(self.sequences or self.states)

    def cut(self, end: int, low: int, high: int) -> CacheSlice:
        """Return what this slice, which ends at `end`, holds of `low` to `high`: contiguous, but not evaluated."""
        sequences = {}
        for layer, arrays in self.sequences.items():
            first = end - arrays[0].shape[2]
            if max(low, first) < high:
                between = slice(max(low, first) - first, high - first)
                sequences[layer] = tuple(mx.contiguous(array[..., between, :]) for array in arrays)
        states = {}
        if high == end:
            states = tree_map(lambda leaf: mx.contiguous(leaf) if isinstance(leaf, mx.array) else leaf, self.states)
        return CacheSlice(sequences, states)

    def better_than(self, other: CacheSlice | None) -> CacheSlice | None:
        """Return both slices in one if this one holds anything that the other does not; otherwise None."""
        if other is None:
            return self

        def held(data: CacheSlice, layer: int) -> int:
            return data.sequences[layer][0].shape[2] if layer in data.sequences else 0

        more = {layer: arrays for layer, arrays in self.sequences.items() if held(self, layer) > held(other, layer)}
        if not more and (other.states or not self.states):
            return None
        return CacheSlice({**other.sequences, **more}, other.states or self.states)


@dataclass(frozen=True, eq=False)
class StoredSlice:
    """A file's path, and what it contains, without its arrays."""

    path: Path
    kind: SliceKind
    start: int
    """The start of its stretch, which ends with `tokens`."""
    tokens: TokenArray


def fingerprint(folder: Path, *settings: object) -> str:
    """Return 32 hexadecimal digits that change with anything that the contents of a cache depend on.

    Weights count by name, size, time and header, because reading gigabytes would take longer than it saves. `settings`:
    everything else that changes a cache's contents, such as adapters and the KV cache's quantization.
    """
    digest = hashlib.blake2b(digest_size=16)
    for package in ("mlx", "mlx-lm"):
        digest.update(importlib.metadata.version(package).encode())
    digest.update(repr(settings).encode())
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        size, changed = file.stat().st_size, 0
        if file.suffix == ".safetensors":
            changed = file.stat().st_mtime_ns
            with file.open("rb") as stream:
                content = stream.read(min(int.from_bytes(stream.read(8), "little"), MAX_HEADER_BYTES))
        elif file.suffix in {".json", ".jinja", ".txt", ".model", ".tiktoken"}:
            content = file.read_bytes()
        else:
            continue
        digest.update(repr((str(file.relative_to(folder)), size, changed, len(content))).encode() + content)
    return digest.hexdigest()


class PrefixStore:
    """The files of one model. A failure to read or write prints a line to stderr and never raises."""

    def __init__(self, folder: Path, fingerprint: str, *, max_bytes: int) -> None:
        self._root = folder
        self._folder = folder / fingerprint
        self._fingerprint = fingerprint
        self._max_bytes = max_bytes
        self._rests_until = 0.0
        """Time of the monotonic clock before which nothing is written."""
        try:
            self._make_folders()
            for path in self._root.glob("*/*.tmp"):
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink(missing_ok=True)
        except OSError as error:
            self._rest(error)
        self._size = sum(size for _, size, _ in self._files())

    def records(self) -> Iterator[StoredSlice]:
        """Yield the stored slices, each after those that it continues."""
        whole: list[StoredSlice] = []
        near: list[StoredSlice] = []
        for path in self._folder.glob("*.safetensors"):
            record = self._record(path)
            if record is not None:
                (whole if record.kind == "whole" else near).append(record)
        # A stretch may be part of a longer file that shares it, so only its start shows what a file continues.
        yield from sorted(whole, key=lambda record: (record.start, len(record.tokens)))
        yield from sorted(near, key=lambda record: len(record.tokens))

    def read(self, record: StoredSlice) -> CacheSlice | None:
        """Return the arrays of a file; None if it is missing or damaged."""
        with _reported(record.path), record.path.open("rb") as stream:
            header = _header(stream, self._fingerprint)
            arrays, total = _arrays(stream, header)
            tokens = np.array(arrays[0])
            if f"{total:08x}" != header["__metadata__"]["crc32"] or not np.array_equal(tokens, record.tokens):
                raise ValueError("its checksum is wrong")
            form = json.loads(header["__metadata__"]["form"])

            def tree(form: Any) -> Any:
                if isinstance(form, dict):
                    return arrays[form["array"]] if "array" in form else tuple(tree(item) for item in form["tuple"])
                return [tree(item) for item in form] if isinstance(form, list) else form

            return CacheSlice(
                {int(layer): tuple(arrays[i] for i in numbers) for layer, numbers in form["sequences"].items()},
                {int(layer): tree(state) for layer, state in form["states"].items()},
            )
        return None

    def write(
        self, tokens: TokenArray, data: CacheSlice, *, kind: SliceKind, start: int
    ) -> Generator[None, None, StoredSlice | None]:
        """Write a portion at each `next`; return the record, or None if it cannot be stored."""
        if time.monotonic() < self._rests_until or data.nbytes > self._max_bytes:
            return None
        digest = hashlib.blake2b(tokens.tobytes(), digest_size=12).hexdigest()
        record = StoredSlice(self._folder / f"{kind}-{start}-{len(tokens)}-{digest}.safetensors", kind, start, tokens)
        unfinished = record.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._make_folders()
            self._make_room(data.nbytes)
            with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
                yield from _write(stream, self._fingerprint, record, data)
            self._size += unfinished.stat().st_size
            unfinished.replace(record.path)
        except (TypeError, KeyError):  # a state that this format cannot express
            return None
        except OSError as error:
            self._rest(error)
            return None
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
        return record

    def touch(self, records: Sequence[StoredSlice]) -> None:
        """Mark these files as used. The first ones are deleted first when the limit is reached."""
        now = time.time_ns()
        for i, path in enumerate(dict.fromkeys(record.path for record in records)):
            try:
                os.utime(path, ns=(now + i, now + i))
            except OSError:  # deleted by another worker
                continue

    def _record(self, path: Path) -> StoredSlice | None:
        with _reported(path), path.open("rb") as stream:
            header = _header(stream, self._fingerprint)
            about = header["__metadata__"]
            _, end = header["tokens"]["data_offsets"]
            tokens = np.frombuffer(stream.read(end), np.int32)
            size = stream.tell() - end + max(entry["data_offsets"][1] for entry in _entries(header))
            start, kind = int(about["start"]), about["kind"]
            if size != path.stat().st_size or not 0 <= start < len(tokens) or kind not in get_args(SliceKind):
                raise ValueError("its size is wrong")
            return StoredSlice(path, kind, start, tokens)
        return None

    def _files(self) -> list[tuple[int, int, Path]]:
        """Return time of last use, size and path of all files in the folder, including those of other models."""
        files = []
        for path in self._root.glob("*/*.safetensors"):
            try:
                state = path.stat()
            except OSError:
                continue
            files.append((state.st_mtime_ns, state.st_size, path))
        return sorted(files)

    def _make_room(self, nbytes: int) -> None:
        if self._size + nbytes <= self._max_bytes:
            return
        files = self._files()  # counted again, because other workers write here, too
        self._size = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._size + nbytes <= self._max_bytes:
                break
            path.unlink(missing_ok=True)
            self._size -= size

    def _make_folders(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def _rest(self, error: OSError) -> None:
        """Stop writing for a while, for example if the disk is full."""
        self._rests_until = time.monotonic() + REST_SECONDS
        message = f"prompt caches are not stored in {self._root} for {REST_SECONDS} s: {advise(error)}"
        print(message, file=sys.stderr, flush=True)  # noqa: T201


def arrays_in(tree: Any) -> list[mx.array]:
    """Return the arrays in a slice, or in lists, tuples and dicts."""
    if isinstance(tree, CacheSlice):
        tree = [tree.sequences, tree.states]
    leaves: list[tuple[str, Any]] = tree_flatten(tree)  # type: ignore[assignment]  # a list without a `destination`
    return [leaf for _, leaf in leaves if isinstance(leaf, mx.array)]


def _write(stream: BinaryIO, fingerprint: str, record: StoredSlice, data: CacheSlice) -> Iterator[None]:
    """Write the header without a checksum, then the arrays, then the header again."""
    arrays = [mx.array(record.tokens), *arrays_in(data)]
    number = iter(range(1, len(arrays)))
    form = {
        "sequences": {layer: [next(number) for _ in arrays] for layer, arrays in data.sequences.items()},
        "states": {layer: _formed(state, number) for layer, state in data.states.items()},
    }
    about = {
        "crc32": _NO_SUM, "format": FORMAT, "fingerprint": fingerprint, "kind": record.kind,
        "start": str(record.start), "form": json.dumps(form),
    }  # fmt: skip
    header = _encoded(about, arrays)
    stream.write(header)
    total = zlib.crc32(header)
    written = 0
    for array in arrays:
        if not array.size:
            continue
        content = np.array(array.reshape(-1).view(mx.uint8), copy=False).data
        for i in range(0, len(content), PORTION_BYTES):
            portion = content[i : i + PORTION_BYTES]
            total = zlib.crc32(portion, total)
            stream.write(portion)
            written += len(portion)
            if written >= PORTION_BYTES:
                written = 0
                yield
    stream.seek(0)
    stream.write(_encoded({**about, "crc32": f"{total:08x}"}, arrays))


def _encoded(about: dict[str, str], arrays: Sequence[mx.array]) -> bytes:
    """Return the header of a safetensors file. The tokens come first, so that they can be read alone."""
    header: dict[str, Any] = {"__metadata__": about}
    offset = 0
    for i, array in enumerate(arrays):
        end = offset + array.nbytes
        entry = {"dtype": _DTYPE_NAMES[array.dtype], "shape": array.shape, "data_offsets": [offset, end]}
        header[str(i) if i else "tokens"] = entry
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _header(stream: BinaryIO, fingerprint: str) -> dict[str, Any]:
    length = int.from_bytes(stream.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError("its header is invalid")
    header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise TypeError("its header is invalid")
    about = header["__metadata__"]
    if about["format"] != FORMAT or about["fingerprint"] != fingerprint:
        raise ValueError("it belongs to another model or version")
    return header


def _entries(header: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """Return the header's entries of the arrays in their order in the file."""
    return [header["tokens"], *(header[str(i)] for i in range(1, len(header) - 1))]


def _arrays(stream: BinaryIO, header: dict[str, Any]) -> tuple[list[mx.array], int]:
    """Return all arrays in memory, and the file's checksum. The stream must be at the end of the header."""
    start = stream.tell()
    stream.seek(0)
    beginning = stream.read(start)
    total = zlib.crc32(beginning.replace(header["__metadata__"]["crc32"].encode(), _NO_SUM.encode(), 1))
    arrays = []
    for entry in _entries(header):
        dtype, (first, end) = _DTYPES[entry["dtype"]], entry["data_offsets"]
        if stream.tell() != start + first:
            raise ValueError("its arrays are in unexpected places")
        content = np.fromfile(stream, np.uint8, end - first)
        total = zlib.crc32(content.data, total)
        array = mx.array(content).view(dtype) if content.size else mx.array([], dtype=dtype)
        arrays.append(array.reshape(entry["shape"]))
    mx.eval(arrays)
    return arrays, total


def _formed(tree: Any, number: Iterator[int]) -> Any:
    """Return the tree as JSON, with numbers in place of its arrays."""
    if isinstance(tree, mx.array):
        return {"array": next(number)}
    if isinstance(tree, tuple):
        return {"tuple": [_formed(item, number) for item in tree]}
    return [_formed(item, number) for item in tree] if isinstance(tree, list) else tree


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Report that a file cannot be read, and delete it if it is damaged. A missing file is normal."""
    try:
        yield
    except FileNotFoundError:
        pass
    except OSError as error:  # it is kept, because a drive may have been disconnected
        print(f"{path} cannot be read now: {advise(error)}", file=sys.stderr, flush=True)  # noqa: T201
    except (ValueError, LookupError, TypeError, RuntimeError) as error:
        print(f"{path} is damaged and will not be used: {error}", file=sys.stderr, flush=True)  # noqa: T201
        with contextlib.suppress(OSError):
            path.unlink()
