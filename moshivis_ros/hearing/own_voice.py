"""Is it the robot's own voice that the microphone hears?

What is left of it after the echo canceller, or all of it where there is none, is speech to any detector. It is told from the
user's by how loud it is: the robot's voice comes through at one level below what is played, which is learnt while it
plays, and who speaks over it is louder than that.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from moshivis_ros.audio import Float
from moshivis_ros.hearing import FRAME_SECONDS

AUDIBLE = -55.0  # dB of full scale: played sound below it is silence
BEFORE, AFTER = 0.5, 0.1  # seconds around a moment in which its echo was played: rooms, buffers, and wrong stamps
MARGIN = 9.0  # dB by which a user must be louder than the echo
LOUDEST = 0.0  # dB: what is played is not heard louder than it is, until that is learnt
FALL, RISE = 12.0, 1.5  # dB per second in which what comes through is learnt: downwards; upwards against a user who speaks
KEPT = 3.0  # seconds


def level(frame: Float) -> float:
    """Root mean square in dB of full scale; silence: -120."""
    return float(10 * np.log10(np.mean(np.square(frame), dtype=np.float64) + 1e-12))


class OwnVoice:
    """Two streams of levels with their times in nanoseconds, of one clock."""

    def __init__(self) -> None:
        self._played: deque[tuple[int, float]] = deque()
        self.through = LOUDEST  # dB over what is played

    def play(self, stamp: int, played: float) -> None:
        """`played`: level of the sound that leaves the loudspeaker at that time."""
        self._played.append((stamp, played))
        while stamp - self._played[0][0] > KEPT * 1e9 or stamp < self._played[0][0]:  # the latter: a clock was set
            self._played.popleft()

    def is_own(self, stamp: int, heard: float) -> bool:
        """Is sound of this level, heard at that time, no louder than the robot's own voice would be?"""
        first, last = stamp - BEFORE * 1e9, stamp + AFTER * 1e9
        loudest = max((played for time, played in self._played if first <= time <= last), default=-np.inf)
        if loudest < AUDIBLE:
            return False
        through = heard - loudest
        own = through < self.through + MARGIN
        if through < self.through:
            self.through = max(through, self.through - FALL * FRAME_SECONDS)
        elif own:
            self.through = min(through, LOUDEST)
        else:
            self.through = min(self.through + RISE * FRAME_SECONDS, LOUDEST)
        return own
