"""Is it the robot's own voice that the microphone hears?

What is left of it after the echo canceller, or all of it where there is none, is speech to any detector. It is told from the
user's by how loud it is: the robot's voice comes through at one level below what is played, which is learnt while it
plays, and who speaks over it is louder than that.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from moshivis_ros.audio import Float

AUDIBLE = -55.0  # dB of full scale: played sound below it is silence
BEFORE, AFTER = (
    0.5,
    0.1,
)  # seconds around a moment in which its echo was played: rooms, buffers, and wrong stamps
MARGIN = 9.0  # dB by which a user must be louder than the echo
UNKNOWN = 0.0  # dB over what is played, at which its echo is expected until that is learnt
BLOCK = 16  # frames, half a second: in each the loudest sound that was played is compared with the loudest that was heard,
DELAY = 0.2  # which comes up to so many seconds later
LOUD = -40.0  # dB; of less, nothing is learnt
BLOCKS = 8  # the softest of so many counts: in one of them nobody will have spoken over it
KEPT = 10.0  # seconds for which what was played is remembered


def level(frame: Float) -> float:
    """Root mean square in dB of full scale; silence: -120."""
    return float(10 * np.log10(np.mean(np.square(frame), dtype=np.float64) + 1e-12))


class OwnVoice:
    """Two streams of levels, one for each 32 ms, with their times in nanoseconds of one clock."""

    def __init__(self) -> None:
        self._played: deque[tuple[int, float]] = deque()
        self._heard: list[tuple[int, float]] = []  # of the block
        self._learnt: deque[float] = deque(maxlen=BLOCKS)

    def play(self, stamp: int, played: float) -> None:
        """`played`: level of the sound that leaves the loudspeaker at that time."""
        self._played.append((stamp, played))
        while (
            stamp - self._played[0][0] > KEPT * 1e9 or stamp < self._played[0][0]
        ):  # the latter: a clock was set
            self._played.popleft()

    def is_own(self, stamp: int, heard: float) -> bool:
        """Is sound of this level, heard at that time, no louder than the robot's own voice would be?"""
        self._heard.append((stamp, heard))
        if len(self._heard) == BLOCK:
            self._learn()
            self._heard = []
        loudest = self._loudest(stamp - BEFORE * 1e9, stamp + AFTER * 1e9)
        return loudest >= AUDIBLE and heard - loudest < min(self._learnt, default=UNKNOWN) + MARGIN

    def _learn(self) -> None:
        played = self._loudest(self._heard[0][0], self._heard[-1][0] - DELAY * 1e9)
        if played >= LOUD:
            self._learnt.append(max(heard for _, heard in self._heard) - played)

    def _loudest(self, first: float, last: float) -> float:
        return max((played for time, played in self._played if first <= time <= last), default=-np.inf)
