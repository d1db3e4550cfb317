"""Reads what ELF files (System V ABI, chapter 4) say about code: segments, and functions by address."""

from __future__ import annotations

import bisect
import struct
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Functions", "read_functions"]

_LOADED, _FUNCTION, _IFUNC = 1, 2, 10
_SYMBOLS, _DYNAMIC_SYMBOLS = 2, 11


@dataclass(frozen=True)
class Functions:
    """The functions of a library.

    Attributes:
        segments: ``(offset in the file, size, address)`` of what is loaded.
        starts: of the functions, ascending.
        ends: in the same order.
        names: as the linker knows them.
    """

    segments: tuple[tuple[int, int, int], ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    names: tuple[str, ...]

    def at(self, offset: int) -> str | None:
        """The function whose code lies at an offset in the file; None where the library names none."""
        for first, size, address in self.segments:
            if first <= offset < first + size:
                place = address + offset - first
                index = bisect.bisect_right(self.starts, place) - 1
                return self.names[index] if index >= 0 and place < self.ends[index] else None
        return None


def read_functions(path: Path) -> Functions:
    """The functions that a library or program names, from its full table of symbols where it was not stripped.

    Raises:
        ValueError: it is no little-endian ELF file.
    """
    data = path.read_bytes()
    if data[:4] != b"\x7fELF" or data[5] != 1:
        raise ValueError(f"{path} is no little-endian ELF file.")
    wide = data[4] == 2
    header = struct.unpack_from("<QQQ" if wide else "<III", data, 24)
    counts = struct.unpack_from("<6H", data, 52 if wide else 40)
    _, program_size, programs, section_size, sections, _ = counts
    segments = []
    for index in range(programs):
        at = header[1] + index * program_size
        kind = struct.unpack_from("<I", data, at)[0]
        offset, address = struct.unpack_from("<QQ" if wide else "<II", data, at + (8 if wide else 4))
        (size,) = struct.unpack_from("<Q" if wide else "<I", data, at + (32 if wide else 16))
        if kind == _LOADED:
            segments.append((offset, size, address))
    tables = [_section(data, header[2] + index * section_size, wide) for index in range(sections)]
    symbols = {kind: (offset, size, link) for kind, offset, size, link in tables}
    table = symbols.get(_SYMBOLS) or symbols.get(_DYNAMIC_SYMBOLS)
    found = _functions(data, table[0], table[1], tables[table[2]][1], wide) if table else {}
    ordered = sorted(found.items())
    starts, ends = tuple(start for start, _ in ordered), tuple(start + size for start, (size, _) in ordered)
    return Functions(tuple(segments), starts, ends, tuple(name for _, (_, name) in ordered))


def _section(data: bytes, at: int, wide: bool) -> tuple[int, int, int, int]:
    kind = struct.unpack_from("<I", data, at + 4)[0]
    offset, size, link = struct.unpack_from("<QQI" if wide else "<III", data, at + (24 if wide else 16))
    return kind, offset, size, link


def _functions(data: bytes, offset: int, size: int, names: int, wide: bool) -> dict[int, tuple[int, str]]:
    found: dict[int, tuple[int, str]] = {}
    layout = struct.Struct("<IBBHQQ" if wide else "<IIIBBH")
    for entry in layout.iter_unpack(data[offset : offset + size - size % layout.size]):
        name, info, address, length = (
            (entry[0], entry[1], entry[4], entry[5]) if wide else (entry[0], entry[3], entry[1] & ~1, entry[2])
        )
        if info & 15 in (_FUNCTION, _IFUNC) and address and length:
            start = names + name
            found[address] = (length, data[start : data.index(b"\0", start)].decode(errors="replace"))
    return found
