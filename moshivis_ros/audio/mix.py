"""Stamped sound of several sides -> one recording with a channel for each, as it comes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from moshivis_ros.audio import SAMPLE_RATE, Float

JITTER = 0.04  # seconds by which the stamps of continuous sound may be off
PATIENCE = 10  # seconds for which a side may be behind another
LONGEST_GAP = 3600.0  # seconds; more, or a step back by more than PATIENCE, is a clock that was set
LATE = 0.5  # seconds by which sound without stamps may come too late and be continuous nevertheless


class Arrivals:
    """Numbers and stamps for the messages of a stream that brings none: one goes on where the last has ended, however
    unevenly they arrive, unless none has come for longer, or the clock was set.
    """

    def __init__(self) -> None:
        self._number = 0
        self._end = 0

    def take(self, now: int, seconds: float) -> tuple[int, int]:
        """A message of this length that has come `now` (ns) -> its number, and the stamp (ns) of its first sample."""
        early = (self._end - now) / 1e9
        stamp = self._end if -LATE < early < PATIENCE else now
        self._end = stamp + round(seconds * 1e9)
        self._number += 1
        return self._number - 1, stamp


class Mix:
    """Sound is put where its stamps say, silence where there was none; time begins with the first sound of side 0.

    Keeps PATIENCE seconds. What comes later than that is left out.
    """

    def __init__(self, sides: int) -> None:
        self._sides = sides
        self._origin: int | None = None  # stamp of sample 0, nanoseconds
        self._early: deque[tuple[int, int, Float]] = deque(
            maxlen=125
        )  # of other sides, before the first of side 0
        self._blocks: deque[Float] = deque()  # [SAMPLE_RATE, sides]
        self._first = 0  # sample at which the first of them begins
        self._ends: list[int | None] = [None] * sides  # sample after the last of each side
        self.late = 0  # samples left out

    def add(self, side: int, stamp: int, samples: Float) -> Iterator[Float]:
        """float32 [n] of one side, `stamp` (ns) its first sample -> what is complete then: float32 [1 s, sides] each."""
        if self._origin is not None:
            yield from self._put(side, stamp, samples)
        elif side:
            self._early.append((side, stamp, samples))
        else:
            self._origin = stamp
            yield from self._put(0, stamp, samples)
            for early in self._early:
                if early[1] + early[2].size * 1_000_000_000 // SAMPLE_RATE > stamp:
                    yield from self._put(*early)
            self._early.clear()

    def rest(self) -> Iterator[Float]:
        """What has not been given yet."""
        end = max((end for end in self._ends if end is not None), default=0)
        for number, block in enumerate(self._blocks):
            yield block[: max(0, end - self._first - number * SAMPLE_RATE)]

    @property
    def begun(self) -> bool:
        return self._origin is not None

    def seconds(self, stamp: int) -> float:
        """A time of the sides' clock, nanoseconds, as one of the recording, which must have begun."""
        assert self._origin is not None
        return (stamp - self._origin) / 1e9

    def end(self, side: int) -> int | None:
        """The stamp after the last sound of a side, nanoseconds; None without any."""
        end = self._ends[side]
        return (
            None if end is None or self._origin is None else self._origin + end * 1_000_000_000 // SAMPLE_RATE
        )

    def _put(self, side: int, stamp: int, samples: Float) -> Iterator[Float]:
        assert self._origin is not None
        start = (stamp - self._origin) * SAMPLE_RATE // 1_000_000_000
        expected = self._ends[side]
        newest = max((end for end in self._ends if end is not None), default=0)
        if not self._first - PATIENCE * SAMPLE_RATE <= start <= newest + LONGEST_GAP * SAMPLE_RATE:
            self._origin += (start - newest) * 1_000_000_000 // SAMPLE_RATE
            start = newest
        elif expected is not None and abs(start - expected) < JITTER * SAMPLE_RATE:
            start = expected
        self._ends[side] = start + samples.size
        if self._first > start:
            self.late += min(self._first - start, samples.size)
        rest = samples[max(0, self._first - start) :]
        at = max(start, self._first)
        while rest.size:
            while self._first + len(self._blocks) * SAMPLE_RATE <= at:
                self._blocks.append(np.zeros((SAMPLE_RATE, self._sides), np.float32))
                if len(self._blocks) > PATIENCE:
                    self._first += SAMPLE_RATE
                    yield self._blocks.popleft()
            number, offset = divmod(at - self._first, SAMPLE_RATE)
            room = self._blocks[number][offset : offset + rest.size, side]
            room[:] = rest[: room.size]
            at += room.size
            rest = rest[room.size :]
