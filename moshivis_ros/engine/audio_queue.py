"""Sound on its way to the model: bounded, and silence where none comes."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

import numpy as np

from moshivis_ros.audio import FRAME_SIZE, SAMPLE_RATE, Float
from moshivis_ros.audio.framing import AudioInput

FRAME_SECONDS = FRAME_SIZE / SAMPLE_RATE
PATIENCE = 2 * FRAME_SECONDS  # without sound, before silence takes its place


class AudioQueue:
    """put() from one thread; get() from another, which is paced by it."""

    def __init__(self, max_backlog: int) -> None:
        self._frames: deque[tuple[int, Float]] = deque()
        self._max_backlog = max_backlog
        self._changed = threading.Condition()
        self._input = AudioInput()
        self._late = self._silent = 0
        self.start(0)

    def start(self, now: int) -> None:
        """Forget what waits. `now`: nanoseconds, the stamp of the first silence."""
        with self._changed:
            self._frames.clear()
            self._input.restart()
            self._stamp = now
            self._deadline = time.monotonic() + PATIENCE

    def put(self, data: bytes, **fields: Any) -> None:
        """Takes what AudioInput.push() takes, and raises the same AudioError."""
        frames = self._input.push(data, **fields)
        with self._changed:
            self._frames.extend(frames)
            while len(self._frames) > self._max_backlog:
                self._frames.popleft()
                self._late += 1
            self._changed.notify()

    def get(self) -> tuple[int, Float]:
        """The next frame (stamp in nanoseconds, float32 [1920]): sound within 160 ms, or else silence every
        80 ms.
        """
        with self._changed:
            while not self._frames:
                remaining = self._deadline - time.monotonic()
                if remaining <= 0:
                    self._silent += 1
                    self._deadline += min(FRAME_SECONDS, FRAME_SECONDS - remaining)
                    stamp = self._stamp
                    samples: Float = np.zeros(FRAME_SIZE, np.float32)
                    break
                self._changed.wait(remaining)
            else:
                stamp, samples = self._frames.popleft()
                self._deadline = time.monotonic() + PATIENCE
            self._stamp = stamp + FRAME_SIZE * 1_000_000_000 // SAMPLE_RATE
            return stamp, samples

    @property
    def counts(self) -> dict[str, int]:
        """What went wrong so far, by name."""
        counts = self._input.counts
        return {
            "audio messages lost": counts.lost,
            "audio messages repeated": counts.repeated,
            "audio messages refused": counts.refused,
            "samples not finite": counts.replaced,
            "frames dropped (too slow)": self._late,
            "frames of silence (no audio)": self._silent,
        }
