"""The zips in one file: usually one, several if files were concatenated (`cat a.zip b.zip`)."""

import os
import struct
import zipfile
from typing import BinaryIO

from fundus.containers.members import MOST_INDEX
from fundus.storage.objects import FetchFailed

BROKEN = (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError)
MOST_PARTS = 1_000
LOCAL = struct.Struct("<4sHHHHHLLLHH")
"""The header of a member, followed by its name, extra field and data."""
END = struct.Struct("<4s4H2LH")
"""The record at the end of a zip, followed by a comment."""
MOST_COMMENT = 1 << 16
INDEXED = struct.Struct("<4s6H3L5H2L")
"""The entry of a member in a zip's index, followed by its name, extra field and comment."""
TURN = 1 << 32
"""The value at which offsets of 32 bits wrap around to 0."""
MOST_BETWEEN = 1 << 17
"""Most bytes between a member's data and the next header: an extra field and a data descriptor."""
PROGRAMS = (b"MZ", b"\x7fELF", b"#!")
"""First bytes of a program that unpacks the zip after it."""
MARK = 4
"""Bytes of the mark before a zip that may have been split."""


def parts(file: BinaryIO) -> tuple[list[zipfile.ZipFile], str]:
    """Read the indexes of all zips in a file.

    Returns:
        The indexes in the order of the file, with offsets from its beginning, and a text that
        reports bytes outside of all zips, or is empty.

    Raises:
        FetchFailed: the index of the last zip is broken, or the indexes are too large.
    """
    found: list[zipfile.ZipFile] = []
    strange = ""
    stop = file.seek(0, os.SEEK_END)
    budget = [MOST_INDEX]
    while stop > MARK or not found:
        window = _Window(file, stop, budget)
        try:
            index = zipfile.ZipFile(window)
        except BROKEN as error:
            if not found:
                raise FetchFailed("decode_failed", "a broken zip archive") from error
            if not window.at(0, MARK).startswith(PROGRAMS):
                strange = "more stands before the zip archive, which is not read"
            break
        end, offset = _end(window)
        if window.at(end, stop).strip(b"\0"):
            strange = "more follows the end of the zip archive, which is not read"
        _unwrap(index, offset)
        found.append(index)
        if len(found) > MOST_PARTS:
            raise FetchFailed("too_large", f"more than {MOST_PARTS} zip archives in one file")
        stop = max(0, min([index.start_dir, *(i.header_offset for i in index.infolist())]))
    return found[::-1], strange


def _end(window: "_Window") -> tuple[int, int]:
    """(end of a zip including its comment, offset of its index as the zip states it)."""
    start = max(0, window.stop - END.size - MOST_COMMENT)
    tail = window.at(start, window.stop)
    at = tail.rfind(b"PK\5\6")
    *_, offset, comment = END.unpack_from(tail, at)
    return min(start + at + END.size + comment, window.stop), offset


def _unwrap(index: zipfile.ZipFile, offset: int) -> None:
    """Correct the offsets in zips above 4 GiB of macOS, which writes no zip64 and wraps offsets.

    Members follow one another in the order of the index. If that does not lead to the index, the
    zip follows other bytes instead, and its offsets stay as they are.
    """
    turns = index.start_dir - offset
    if turns <= 0 or turns % TURN:
        return
    end, offsets = 0, []
    for info in index.infolist():
        offsets.append(end + (info.header_offset - end) % TURN)
        end = offsets[-1] + LOCAL.size + len(info.orig_filename) + info.compress_size
    if 0 <= index.start_dir - end <= MOST_BETWEEN:
        for info, real in zip(index.infolist(), offsets, strict=True):
            info.header_offset = real


class _Window:
    """The first `stop` bytes of a file; `budget[0]` bounds the bytes read in all."""

    def __init__(self, file: BinaryIO, stop: int, budget: list[int]) -> None:
        self.file, self.stop, self.budget = file, stop, budget

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self.stop}[whence]
        return self.file.seek(base + offset)

    def tell(self) -> int:
        return self.file.tell()

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.stop - self.tell())
        size = left if size < 0 else size
        if size > self.budget[0]:
            raise FetchFailed("too_large", f"an index of {size} bytes (at most {MOST_INDEX})")
        self.budget[0] -= min(size, left)
        return _names_as_bytes(self.file.read(min(size, left)))

    def at(self, start: int, stop: int) -> bytes:
        self.seek(start)
        return self.file.read(stop - start)

    def close(self) -> None:
        """Do nothing: the file is the caller's."""


def _names_as_bytes(index: bytes) -> bytes:
    """The index without its UTF-8 marks: zipfile refuses a zip with a wrongly marked name."""
    whole, at = bytearray(index), 0
    while index.startswith(b"PK\1\2", at) and at + INDEXED.size <= len(index):
        whole[at + 9] &= 0xF7
        lengths = struct.unpack_from("<3H", index, at + 28)
        at += INDEXED.size + sum(lengths)
    return bytes(whole) if at else index
