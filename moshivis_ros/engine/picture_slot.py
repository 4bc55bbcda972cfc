"""One picture in memory that two processes share: the newest wins."""

from __future__ import annotations

import fcntl
import mmap
import os
import pickle
import struct
from typing import Any

_HEAD = struct.Struct(
    "=QQ"
)  # bytes of the pickled fields, bytes of the picture; no fields: the slot is empty


class PictureSlot:
    """put() replaces what is there, take() empties it, newest() leaves it. All copy, and none waits for more than another's
    copy.

    The memory has no name: it goes when the last process that has it goes, however that happens. `descriptor`
    is None for a new slot, or the file descriptor that was inherited from the process which made it.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = os.memfd_create("moshivis_picture") if descriptor is None else descriptor
        if descriptor is None:
            os.truncate(self.descriptor, mmap.PAGESIZE)
        # A lock belongs to an open file, and an inherited descriptor is the same open file: so open it anew.
        self._lock = os.open(f"/proc/self/fd/{self.descriptor}", os.O_RDWR)
        self._memory = mmap.mmap(self.descriptor, 0)

    def put(self, fields: dict[str, Any], data: memoryview) -> None:
        head = pickle.dumps(fields)
        size = _HEAD.size + len(head) + data.nbytes
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            if size > len(self._memory):
                os.truncate(self.descriptor, size)
                self._memory = mmap.mmap(self.descriptor, 0)
            self._memory[: _HEAD.size] = _HEAD.pack(0, 0)  # a process that dies here leaves no mixture of two
            self._memory[_HEAD.size : _HEAD.size + len(head)] = head
            self._memory[_HEAD.size + len(head) : size] = data
            self._memory[: _HEAD.size] = _HEAD.pack(len(head), data.nbytes)
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def take(self) -> tuple[dict[str, Any], bytearray] | None:
        """The fields and the bytes of the newest picture, or None if there is none since the last take()."""
        return self._read(leave=False)

    def newest(self) -> tuple[dict[str, Any], bytearray] | None:
        """As take(), but the picture stays."""
        return self._read(leave=True)

    def _read(self, leave: bool) -> tuple[dict[str, Any], bytearray] | None:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            head, size = _HEAD.unpack(self._memory[: _HEAD.size])
            if not head:
                return None
            start = _HEAD.size + head
            if start + size > len(self._memory):
                self._memory = mmap.mmap(self.descriptor, 0)
            fields = pickle.loads(self._memory[_HEAD.size : start])
            data = bytearray(memoryview(self._memory)[start : start + size])
            if not leave:
                self._memory[: _HEAD.size] = _HEAD.pack(0, 0)
            return fields, data
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        self._memory.close()
        os.close(self._lock)
        os.close(self.descriptor)
