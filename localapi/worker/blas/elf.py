"""Remove a prefix from the names that a shared library exports, in its bytes.

scipy-openblas32 exports every function as `scipy_NAME`, so that it can coexist with another BLAS. MLX looks for NAME. A
name in an ELF file is an offset into a table of strings, so the end of a name is a name too: moving the offset by the
length of the prefix renames a symbol in place. Only the hash table by which the loader finds names must be rebuilt. The
GNU table needs its symbols in another order; the older System V table does not, is as good for glibc and musl, and fits
in the same place.

Layouts: the System V ABI, https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html, chapters 4 and 5.
"""

from __future__ import annotations

import struct
from typing import Final

_MAGIC: Final = b"\x7fELF\x02\x01"  # 64 bits, little-endian: x86-64 and arm64
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_GNU_HASH = 0, 4, 5, 6, 0x6FFFFEF5
_PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")  # type, flags, offset, address, physical, file size, memory, align
_DYNAMIC: Final = struct.Struct("<qQ")  # tag, value
_SYMBOL: Final = struct.Struct("<IBBHQQ")  # name, info, other, section, value, size


class NotRenamable(ValueError):
    """The file is not a shared library of the expected form."""


def without_prefix(library: bytes, prefix: bytes) -> bytes:
    """Return the library with every exported `prefix + NAME` named NAME. Raise NotRenamable."""
    data = bytearray(library)
    try:
        if not data.startswith(_MAGIC):
            raise NotRenamable("it is not a 64-bit little-endian ELF file")
        if _rename(data, prefix) == 0:
            raise NotRenamable(f"it exports no names with the prefix {prefix.decode()}")
    except (struct.error, IndexError) as error:
        raise NotRenamable(f"its tables are damaged: {error}") from error
    return bytes(data)


def _rename(data: bytearray, prefix: bytes) -> int:
    """Rename the symbols in place; return their number."""
    tables, gnu_entry = _tables(data)
    symbols, strings, gnu_hash = tables[_DT_SYMTAB], tables[_DT_STRTAB], tables[_DT_GNU_HASH]
    count, room = _gnu_hash_extent(data, gnu_hash)

    buckets = [0] * min(count, room // 4 - 2 - count)
    if not buckets:
        raise NotRenamable("its hash table is too small")
    chain = [0] * count
    renamed = 0
    for index in range(1, count):
        place = symbols + index * _SYMBOL.size
        name, _, _, section, _, _ = _SYMBOL.unpack_from(data, place)
        if section == 0:  # undefined: imported from elsewhere
            continue
        if data.startswith(prefix, strings + name):
            name += len(prefix)
            struct.pack_into("<I", data, place, name)
            renamed += 1
        bucket = _system_v_hash(data[strings + name : data.index(0, strings + name)]) % len(buckets)
        chain[index] = buckets[bucket]
        buckets[bucket] = index
    struct.pack_into(f"<{2 + len(buckets) + count}I", data, gnu_hash, len(buckets), count, *buckets, *chain)
    struct.pack_into("<q", data, gnu_entry, _DT_HASH)
    return renamed


def _tables(data: bytearray) -> tuple[dict[int, int], int]:
    """Return the offsets of the three tables by tag, and of the dynamic entry that names the hash table."""
    segments, dynamic = _segments(data)
    values: dict[int, int] = {}
    places: dict[int, int] = {}
    for place in range(*dynamic, _DYNAMIC.size):
        tag, value = _DYNAMIC.unpack_from(data, place)
        if tag == _DT_NULL:
            break
        values[tag], places[tag] = value, place
    wanted = (_DT_STRTAB, _DT_SYMTAB, _DT_GNU_HASH)
    if _DT_HASH in values or not values.keys() >= set(wanted):
        raise NotRenamable("its dynamic section has another form")
    offsets = {
        tag: values[tag] - start + place
        for tag in wanted
        for start, length, place in segments
        if start <= values[tag] < start + length
    }
    if len(offsets) != len(wanted):
        raise NotRenamable("a table lies outside the file")
    return offsets, places[_DT_GNU_HASH]


def _segments(data: bytearray) -> tuple[list[tuple[int, int, int]], tuple[int, int]]:
    """Return address, size and offset of the loaded segments, and where the dynamic section starts and ends."""
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    loaded = []
    dynamic = (0, 0)
    for number in range(count):
        kind, _, place, address, _, length, _, _ = _PROGRAM_HEADER.unpack_from(data, table + number * size)
        if kind == _PT_LOAD:
            loaded.append((address, length, place))
        elif kind == _PT_DYNAMIC:
            dynamic = (place, place + length)
    return loaded, dynamic


def _gnu_hash_extent(data: bytearray, table: int) -> tuple[int, int]:
    """Return how many symbols there are, and the size of the table in bytes, neither of which it states."""
    bucket_count, first, bloom_words, _ = struct.unpack_from("<4I", data, table)
    buckets = table + 16 + 8 * bloom_words
    chains = buckets + 4 * bucket_count
    last = max(struct.unpack_from(f"<{bucket_count}I", data, buckets), default=0)
    if last < first:
        raise NotRenamable("it exports nothing")
    while not struct.unpack_from("<I", data, chains + 4 * (last - first))[0] & 1:  # the last of a chain is odd
        last += 1
    return last + 1, chains + 4 * (last + 1 - first) - table


def _system_v_hash(name: bytes | bytearray) -> int:
    value = 0
    for character in name:
        value = (value << 4) + character
        high = value & 0xF0000000
        value = (value ^ high >> 24) & ~high
    return value
