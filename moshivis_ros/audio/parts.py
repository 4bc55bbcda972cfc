"""The recordings that one file holds, without belief in what its headers say about lengths.

Whoever writes sound as it comes, into a pipe or until the power fails, cannot go back to say how long it is: the header
says 0, or "unknown", or what was true a minute ago. And files that are joined end to end have headers in their middle.
FFmpeg reads on to the end of what it is given, but for the WAV family and across headers of FLAC and Ogg it goes by the
first of them. So each recording is given to it as a file of its own.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

UNKNOWN = 0xFFFFFFFF  # as the length of a chunk
LONGEST = 0x7FFFFFFF  # of an AIFF file
WAVE = (b"RIFF", b"RIFX", b"RF64", b"BW64")
# What programs put after the sound: believed even where the file ends in the middle of it.
AFTER = (b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML", b"cue ", b"fact", b"smpl", b"inst", b"PEAK", b"JUNK", b"junk",
         b"PAD ", b"FLLR", b"afsp", b"DISP", b"levl", b"_PMX", b"axml", b"chna", b"umid", b"plst", b"acid")  # fmt: skip
NEXT_WAVE = re.compile(rb"(?:RIFF|RIFX|RF64|BW64)....WAVE", re.DOTALL)
STARTS = {b"fLaC": re.compile(rb"fLaC\0\0\0\x22"), b"OggS": re.compile(rb"OggS\0[\2\6]")}
BIG_ENDIAN = {
    (1, 16): 3,
    (1, 24): 4,
    (1, 32): 5,
    (3, 32): 6,
    (3, 64): 7,
}  # (tag, bits) of WAV -> number of AU
PIECE = 1 << 20  # bytes searched at once


class Part:
    """A file of `head` and then the bytes [start, end) of another: what FFmpeg asks of a file, read-only."""

    def __init__(self, file: BinaryIO, start: int, end: int, kind: str = "", head: bytes = b"") -> None:
        self._file, self._start, self._head = file, start, head
        self._size = len(head) + end - start
        self._at = 0
        self.kind = kind  # FFmpeg's name, where it is known

    def read(self, size: int) -> bytes:
        size = max(0, min(size, self._size - self._at))
        head = self._head[self._at : self._at + size]
        self._file.seek(self._start + max(0, self._at - len(self._head)))
        data = head + self._file.read(size - len(head))
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at


def parts(file: BinaryIO) -> Iterator[Part]:
    """The recordings in a file, in their order; the whole file where it is of a kind that cannot be taken apart."""
    end = file.seek(0, 2)
    magic = _bytes(file, 0, 12)
    if magic[:4] in WAVE and magic[8:] == b"WAVE":
        yield from _waves(file, end)
    elif (
        magic[:4] == b"FORM"
        and magic[8:] in (b"AIFF", b"AIFC")
        and int.from_bytes(magic[4:8], "big") + 8 != end
    ):
        yield _aiff(file, end)
    else:
        starts = _starts(file, end, magic[:4]) if magic[:4] in STARTS else [0]
        for start, stop in zip(starts, [*starts[1:], end]):
            yield Part(file, start, stop)


def _waves(file: BinaryIO, end: int) -> Iterator[Part]:
    at, order, form, size64 = 0, "<", b"", 0
    while at + 8 <= end:
        name, size = struct.unpack(f"{order}4sI", _bytes(file, at, 8))
        body = at + 8
        if name in WAVE:
            order, form = ">" if name == b"RIFX" else "<", b""
            at = body + 4
            continue
        if name == b"ds64":
            size64 = int.from_bytes(_bytes(file, body + 8, 8), "little")
        elif name == b"fmt ":
            form = _bytes(file, body, min(size, PIECE))
        elif name == b"data":
            if size == UNKNOWN and size64:
                size = size64
            stop = _end_of_sound(file, body, size, end, order)
            if len(form) >= 16 and stop > body:
                kind, head = _head(form, order)
                # A sample that was half written is none.
                align = max(1, struct.unpack_from(f"{order}H", form, 12)[0])
                yield Part(file, body, body + (stop - body) // align * align, kind, head)
            size = stop - body
        at = body + size
        if size & 1 and not _follows(file, at, end, order):  # there are programs that leave the padding out
            at += 1


def _aiff(file: BinaryIO, end: int) -> Part:
    """An AIFF file that says something wrong of its length, with its sound to the end."""
    at = 12
    while at + 8 <= end:
        name, size = struct.unpack(">4sI", _bytes(file, at, 8))
        if name == b"SSND":
            head = bytearray(_bytes(file, 0, at + 8))
            head[4:8] = struct.pack(">I", LONGEST)
            head[at + 4 :] = struct.pack(">I", LONGEST - at)
            return Part(file, at + 8, end, "aiff", bytes(head))
        at += 8 + size + (size & 1)
    return Part(file, 0, end)


def _head(form: bytes, order: str) -> tuple[str, bytes]:
    """The name of a kind of file, and its head for sound of unknown length of this form."""
    tag, channels, rate, _, _, bits = struct.unpack_from(f"{order}HHIIHH", form)
    if order == ">" and (tag, bits) in BIG_ENDIAN:  # FFmpeg knows no big-endian WAV files
        return "au", struct.pack(">4s5I", b".snd", 24, UNKNOWN, BIG_ENDIAN[tag, bits], rate, channels)
    if order == ">":
        form = struct.pack("<HHIIHH", *struct.unpack_from(">HHIIHH", form)) + form[16:]
    form += b"\0" * (len(form) & 1)
    return "wav", struct.pack("<4sI8sI", b"RIFF", UNKNOWN, b"WAVEfmt ", len(form)) + form + struct.pack(
        "<4sI", b"data", UNKNOWN
    )


def _end_of_sound(file: BinaryIO, start: int, size: int, end: int, order: str) -> int:
    """Where the sound of a WAV file ends that begins at `start` and says that it has `size` bytes."""
    said = start + size
    if size != UNKNOWN and said <= end and any(_follows(file, at, end, order) for at in (said, said + 1)):
        return said
    return next(_found(file, start, end, NEXT_WAVE), end)


def _follows(file: BinaryIO, at: int, end: int, order: str) -> bool:
    """Does what lies there make sense after the sound: nothing, chunks up to the end, or another WAV file?"""
    while at < end:
        head = _bytes(file, at, 12)
        if len(head) < 8:
            return False
        if NEXT_WAVE.match(head) or head[:4] in AFTER:
            return True
        if not all(32 <= byte < 127 for byte in head[:4]):
            return False
        (size,) = struct.unpack_from(f"{order}I", head, 4)
        at += 8 + size + (size & 1)
    return at <= end + 1


def _starts(file: BinaryIO, end: int, magic: bytes) -> list[int]:
    """Where FLAC files, or groups of Ogg streams that begin together, begin."""
    starts, last_end = [], -1
    for start in _found(file, 0, end, STARTS[magic]):
        if start != last_end or magic != b"OggS":
            starts.append(start)
        if magic == b"OggS":
            segments = _bytes(file, start + 26, 256)
            count = sum(segments[:1])  # 0 where the file ends there
            last_end = start + 27 + count + sum(segments[1 : 1 + count])
    return starts


def _found(file: BinaryIO, start: int, end: int, pattern: re.Pattern[bytes]) -> Iterator[int]:
    """The positions of a pattern of at most 16 bytes."""
    for at in range(start, end, PIECE):
        for match in pattern.finditer(_bytes(file, at, min(PIECE + 15, end - at))):
            if match.start() < PIECE:
                yield at + match.start()


def _bytes(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)
