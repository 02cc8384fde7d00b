"""Reads CUHK-SYSU's protocol files row by row, fast and in little memory.

``TestG4000`` of the real set holds 2,900 queries x 4,000 gallery images: some 35 million little MATLAB arrays, for each
of which a general reader makes several Python objects.  Here one query is unpacked at a time, and equal bytes are
decoded once: the same image stands in a thousand galleries.  Format: MathWorks, *MAT-File Format*, level 5.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pslib.data.matfile import read_mat, unreadable
from pslib.errors import UserError

__all__ = ["ProtocolRow", "read_protocol"]

_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
_QUERY, _GALLERY = ("imname", "idlocate", "idname"), ("imname", "idlocate")
_TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le", 18: "utf-32-le"}


@dataclass(frozen=True, eq=False)
class ProtocolRow:
    """One query and its gallery as the file has them: boxes ``[x, y, w, h]`` int64, None where she is absent."""

    image: str
    box: np.ndarray  # (4,)
    person: str
    gallery: list[str]
    boxes: list[np.ndarray | None]


def read_protocol(path: Path, key: str) -> Iterator[ProtocolRow]:
    """The rows of variable ``key`` in a protocol file; each way to fail is one sentence (UserError)."""
    try:
        with open(path, "rb") as file:
            fields, count, stream = _open_struct(file, key)
            decoder = _Decoder()
            order = [fields.index("Query"), fields.index("Gallery")]
            for _ in range(count):
                values = [stream.matrix() for _ in fields]
                yield decoder.row(*(values[place] for place in order))
            stream.finish()
    except _NoProtocolError:
        read_mat(path, key)  # says what the file holds instead
        raise UserError(f"{path} is no protocol file (fields Query and Gallery): restore it from the set.") from None
    except _NoFieldError as error:
        raise UserError(f"{path} has {error}: restore it from the data set.") from None
    except (OSError, EOFError, zlib.error, struct.error, ValueError, IndexError, KeyError) as error:
        raise unreadable(path, error) from None


class _NoProtocolError(Exception):
    """The variable is missing, or no array of Query and Gallery."""


class _NoFieldError(Exception):
    """A query or gallery lacks what every row needs; says which."""


class _Stream:
    """Bytes of one variable, unpacked as they are asked for."""

    def __init__(self, file: BinaryIO, compressed: bool):
        self.file, self.unpack, self.tail = file, zlib.decompressobj() if compressed else None, b""

    def take(self, count: int) -> bytes:
        if self.unpack is None:
            data = self.file.read(count)
            if len(data) < count:
                raise EOFError
            return data
        data = bytearray()
        while len(data) < count:
            if not self.tail:
                self.tail = self.file.read(1 << 18)
            ended = not self.tail
            piece = self.unpack.decompress(self.tail, count - len(data))
            self.tail = self.unpack.unconsumed_tail
            if ended and not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def finish(self) -> None:
        """Read the checksum, so that a file cut just before its end is noticed."""
        while self.unpack is not None and not self.unpack.eof:
            piece = self.tail or self.file.read(1 << 18)
            if not piece:
                raise EOFError
            self.unpack.decompress(piece)
            self.tail = b""

    def element(self) -> tuple[int, bytes]:
        """Type and data of the next element, the small four-byte form included; padding is passed over."""
        first, second = struct.unpack("<II", tag := self.take(8))
        if first >> 16:
            return first & 0xFFFF, tag[4 : 4 + (first >> 16)]
        return first, self.take(second + -second % 8)[:second]

    def matrix(self) -> bytes:
        """A nested matrix with its tag."""
        tag = self.take(8)
        kind, count = struct.unpack("<II", tag)
        if kind != _MATRIX:
            raise ValueError
        return tag + self.take(count)


def _open_struct(file: BinaryIO, key: str) -> tuple[list[str], int, _Stream]:
    """Go to variable ``key``, a struct array: its field names, its number of rows, the bytes that follow."""
    if file.read(128)[126:] != b"IM":
        raise EOFError
    while tag := file.read(8):
        kind, count = struct.unpack("<II", tag)
        after = file.tell() + count
        stream = _Stream(file, compressed=kind == _COMPRESSED)
        if kind == _COMPRESSED:
            kind, _ = struct.unpack("<II", stream.take(8))
        if kind == _MATRIX:
            flags, shape, name = stream.element()[1], stream.element()[1], stream.element()[1]
            if name.decode("ascii") == key and flags[0] == 2:
                width = struct.unpack("<i", stream.element()[1])[0]
                names = stream.element()[1]
                fields = [names[i : i + width].split(b"\0")[0].decode("ascii") for i in range(0, len(names), width)]
                if not {"Query", "Gallery"} <= set(fields):
                    raise _NoProtocolError
                return fields, int(np.prod(np.frombuffer(shape, "<i4"))), stream
        file.seek(after)
    raise _NoProtocolError


class _Decoder:
    """Turns the bytes of matrices into values, each distinct one once."""

    def __init__(self) -> None:
        self.texts: dict[bytes, str] = {}
        self.boxes: dict[bytes, np.ndarray | None] = {}

    def row(self, query: bytes, gallery: bytes) -> ProtocolRow:
        asked, shown = self.columns(query), self.columns(gallery)
        for part, columns, needed in (("Query", asked, _QUERY), ("Gallery", shown, _GALLERY)):
            if lacking := [field for field in needed if field not in columns]:
                raise _NoFieldError(f"a {part} without the field {lacking[0]}")
        image, person = self.text(asked["imname"][0]), self.text(asked["idname"][0])
        box = self.box(asked["idlocate"][0])
        if box is None:
            raise ValueError
        names = [self.texts[data] if data in self.texts else self.text(data) for data in shown["imname"]]
        boxes = [self.boxes[data] if data in self.boxes else self.box(data) for data in shown["idlocate"]]
        return ProtocolRow(image, box, person, names, boxes)

    @staticmethod
    def columns(data: bytes) -> dict[str, list[bytes]]:
        """Field name -> the encoded matrices of all elements of a struct array."""
        place = 8
        parts = []
        for _ in range(5):  # flags, shape, name, length of a field name, field names
            first, second = struct.unpack_from("<II", data, place)
            if first >> 16:
                parts.append(data[place + 4 : place + 4 + (first >> 16)])
                place += 8
            else:
                parts.append(data[place + 8 : place + 8 + second])
                place += 8 + second + -second % 8
        count, width = int(np.prod(np.frombuffer(parts[1], "<i4"))), struct.unpack("<i", parts[3])[0]
        fields = [parts[4][i : i + width].split(b"\0")[0].decode("ascii") for i in range(0, len(parts[4]), width)]
        # matrices begin at multiples of eight bytes; where each would end is found for all places at once
        words = np.frombuffer(data, "<u4", offset=place)
        following = (np.arange(len(words) // 2) + words[1::2] // 8 + 1).tolist()
        at, starts = 0, [0]
        for _ in range(count * len(fields)):
            at = following[at]
            starts.append(at)
        edges = [place + 8 * start for start in starts]
        matrices = [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]
        return {field: matrices[index :: len(fields)] for index, field in enumerate(fields)}

    @staticmethod
    def content(matrix: bytes) -> tuple[int, bytes]:
        """Type and data of a character or numeric matrix."""
        place = 8
        for number in range(4):  # flags, shape, name, data
            first, second = struct.unpack_from("<II", matrix, place)
            if first >> 16:
                kind, data, step = first & 0xFFFF, matrix[place + 4 : place + 4 + (first >> 16)], 8
            else:
                kind, data, step = first, matrix[place + 8 : place + 8 + second], 8 + second + -second % 8
            place += step
            if number == 2 and place >= len(matrix):  # an empty array may end before its data
                return 2, b""
        return kind, data

    def text(self, matrix: bytes) -> str:
        kind, data = self.content(matrix)
        self.texts[matrix] = text = data.decode(_TEXT[kind])
        return text

    def box(self, matrix: bytes) -> np.ndarray | None:
        kind, data = self.content(matrix)
        values = np.frombuffer(data, _NUMBERS[kind]).astype(np.int64)
        if values.size not in (0, 4):
            raise ValueError
        self.boxes[matrix] = found = values if values.size else None
        return found
