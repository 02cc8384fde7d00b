"""MATLAB files: a small, fast writer, and a reader whose failures are one sentence.

CUHK-SYSU keeps its protocols as arrays of structs: ``TestG4000`` of the real set lists 2,900 x 4,000
gallery images, some 35 million little MATLAB arrays.  scipy writes these one by one through Python; here a
value is encoded to bytes once, and repeated values (the same image in a thousand galleries) are joined from
those bytes.  Format: MathWorks, *MAT-File Format*, level 5.
"""

import os
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from pslib.errors import UserError

__all__ = [
    "char", "mat_bytes", "numeric", "read_mat", "read_names", "struct_array", "text_of", "unreadable", "write_mat",
]  # fmt: skip

_CELL, _STRUCT, _CHAR = 1, 2, 4  # array classes
_NUMERIC = {  # numpy type: (array class, data type)
    "float64": (6, 9),
    "float32": (7, 7),
    "int8": (8, 1),
    "uint8": (9, 2),
    "int16": (10, 3),
    "uint16": (11, 4),
    "int32": (12, 5),
    "uint32": (13, 6),
}


_BANNER = b"MATLAB 5.0 MAT-file, written by pslib".ljust(116) + b"\0" * 8 + struct.pack("<H", 0x0100) + b"IM"


def _element(kind: int, data: bytes) -> bytes:
    """One data element: type, length, data padded to eight bytes (a matrix's length includes its padding)."""
    return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def _header(array_class: int, shape: Sequence[int], name: str = "") -> bytes:
    flags = _element(6, struct.pack("<II", array_class, 0))
    return flags + _element(5, np.asarray(shape, "<i4").tobytes()) + _element(1, name.encode("ascii"))


def numeric(values: Any, name: str = "") -> bytes:
    """A numeric array of at least two dimensions, its numpy type kept."""
    array = np.atleast_2d(values)
    array_class, kind = _NUMERIC[array.dtype.name]
    little = array.astype(array.dtype.newbyteorder("<"))
    return _element(14, _header(array_class, array.shape, name) + _element(kind, little.tobytes(order="F")))


def char(text: str, name: str = "") -> bytes:
    """A row of characters, stored as MATLAB does in two bytes each."""
    return _element(14, _header(_CHAR, (1, len(text)), name) + _element(4, text.encode("utf-16-le")))


def struct_array(fields: Sequence[str], elements: Sequence[bytes]) -> bytes:
    """A row of structs; each of ``elements`` holds the encoded fields of one struct, joined in order."""
    return _element(14, _struct_start(fields, (1, len(elements))) + b"".join(elements))


def mat_bytes(variable: bytes) -> bytes:
    """A whole file of one encoded, named variable, uncompressed."""
    return _BANNER + variable


def _struct_start(fields: Sequence[str], shape: Sequence[int], name: str = "") -> bytes:
    names = b"".join(field.encode("ascii").ljust(32, b"\0") for field in fields)
    return _header(_STRUCT, shape, name) + struct.pack("<HHi", 5, 4, 32) + _element(1, names)


def write_mat(
    path: Path, name: str, fields: Sequence[str] | None, shape: Sequence[int], parts: Iterable[bytes]
) -> None:
    """Write one variable whose content comes in ``parts``: a cell array, or with ``fields`` a struct array.

    ``parts`` is gone through twice (the length stands before the content) and compressed as it comes, so a
    gallery list of gigabytes needs the memory of one part.  The file appears under its name only when whole.
    """
    start = _header(_CELL, shape, name) if fields is None else _struct_start(fields, shape, name)
    length = len(start) + sum(len(part) for part in parts)
    temporary = path.with_name(path.name + ".part")
    compressor = zlib.compressobj(1)
    with open(temporary, "wb") as file:
        file.write(_BANNER)
        file.write(struct.pack("<II", 15, 0))  # a compressed element; its length is known at the end
        packed = file.write(compressor.compress(struct.pack("<II", 14, length) + start))
        for part in parts:
            packed += file.write(compressor.compress(part))
        packed += file.write(compressor.flush())
        file.seek(132)
        file.write(struct.pack("<I", packed))
    os.replace(temporary, path)


def read_mat(path: Path, *keys: str) -> np.ndarray:
    """The variable under the first of ``keys`` that the file has; each way to fail is one sentence."""
    try:
        content = scipy.io.loadmat(path)
    except MemoryError:
        raise
    except Exception as error:  # scipy raises many kinds on damaged files, TypeError and IndexError among them
        raise unreadable(path, error) from None
    for key in keys:
        if key in content:
            return content[key]
    there = ", ".join(key for key in content if not key.startswith("__")) or "nothing"
    raise UserError(f"{path} has no variable {' or '.join(keys)} (it holds {there}): restore it from the data set.")


def unreadable(path: Path, error: Exception) -> UserError:
    """The sentence about a file that ``error`` kept from being read."""
    remedy = "restore it from the data set, or draw the set again."
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path} is missing: {remedy}")
    if path.is_dir():  # each reader and system has another error for it
        return UserError(f"{path} is a folder, not a MATLAB file: {remedy}")
    why = f"{type(error).__name__}: it is truncated or damaged"
    return UserError(f"{path} cannot be read as a MATLAB file ({why}): {remedy}")


def text_of(value: Any, where: str) -> str:
    """The text in a cell or field as scipy reads it; ``where`` names its place for the UserError if there is none."""
    text = value
    while isinstance(text, np.ndarray) and text.size:
        text = text.flat[0]
    if not isinstance(text, str) or not text:
        raise UserError(f"{where} holds no text where a name is expected: restore the file from the data set.")
    return text


def read_names(path: Path, key: str) -> list[str]:
    """The names in cell array ``key`` of a file, each once; UserError for an empty, a numeric or a repeated one."""
    entries = enumerate(read_mat(path, key).ravel(), start=1)
    names = [text_of(entry, f"entry {place} of {path}") for place, entry in entries]
    repeated = next((name for name, times in Counter(names).items() if times > 1), None)
    if repeated is not None:
        raise UserError(f"{path} lists {repeated} more than once: restore it from the data set.")
    return names
