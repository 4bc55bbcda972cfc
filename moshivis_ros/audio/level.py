"""Whether a stretch of sound is silence, against the noise of its room."""

from __future__ import annotations

from collections import deque

import numpy as np

from moshivis_ros.audio import Float

WINDOW = 43  # frames (3.5 s) whose quietest is the noise of the room
ALWAYS, NEVER = 1e-3, 2e-2  # of full scale: always silence; never silence, however loud the room
RATIO = 2.0  # times the quietest of the window


class Quiet:
    """One source of sound, frame by frame."""

    def __init__(self) -> None:
        self._levels: deque[float] = deque(maxlen=WINDOW)
        self._frames = 0

    def hear(self, samples: Float) -> int:
        """Frames of silence in a row, up to this one, float32 [1920]."""
        level = float(np.sqrt(np.mean(np.square(samples))))
        self._levels.append(level)
        quiet = level < max(ALWAYS, min(NEVER, RATIO * min(self._levels)))
        self._frames = self._frames + 1 if quiet else 0
        return self._frames
