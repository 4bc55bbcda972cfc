"""Is this frame silence, or the noise of the room? By its level: no model, a few microseconds."""

from __future__ import annotations

from collections import deque

import numpy as np

from moshivis_ros.audio import Float

RMS = (1e-3, 2e-2)  # of full scale: always silence; never silence, however loud the room
RATIO = 2.0  # times the quietest of the last seconds
WINDOW = 43  # frames (3.5 s)


class Quiet:
    """Frames of one source, one after the other."""

    def __init__(self) -> None:
        self._levels: deque[float] = deque(maxlen=WINDOW)

    def __call__(self, samples: Float) -> bool:
        """float32 [n], one frame."""
        level = float(np.sqrt(np.mean(np.square(samples))))
        self._levels.append(level)
        low, high = RMS
        return level < max(low, min(high, RATIO * min(self._levels)))
