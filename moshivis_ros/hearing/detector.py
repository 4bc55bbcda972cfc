"""Is this speech? Silero's detector, frame by frame: 0.1 ms of a core for each 32 ms of sound."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moshivis_ros.audio import Float
from moshivis_ros.errors import MissingDependencyError
from moshivis_ros.hearing import FRAME_SIZE, MISSING

CONTEXT = 64  # samples before a frame that the network wants to see again
STATE = (1, 1, 128)


class SpeechDetector:
    """A stream of frames, one after the other. Raises MissingDependencyError without faster-whisper."""

    def __init__(self) -> None:
        try:
            from faster_whisper.vad import get_vad_model
        except ImportError as error:
            raise MissingDependencyError(MISSING) from error
        self._run = get_vad_model().session.run
        self._hidden: NDArray[np.float32] = np.zeros(STATE, np.float32)
        self._cell: NDArray[np.float32] = np.zeros(STATE, np.float32)
        self._sound: NDArray[np.float32] = np.zeros((1, CONTEXT + FRAME_SIZE), np.float32)

    def __call__(self, frame: Float) -> float:
        """float32 [512] at 16 kHz -> the probability that somebody speaks in it."""
        self._sound[0, :CONTEXT] = self._sound[0, -CONTEXT:]
        self._sound[0, CONTEXT:] = frame
        given: dict[str, Any] = {"input": self._sound, "h": self._hidden, "c": self._cell}
        probability, self._hidden, self._cell = self._run(None, given)
        return float(probability.item())
