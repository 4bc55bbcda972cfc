"""Sound on its way to the model: messages in from one thread, frames out to another, which is paced by them."""

from __future__ import annotations

import threading
import time
from typing import Any

from moshivis_ros.audio import Float
from moshivis_ros.audio.framing import AudioInput
from moshivis_ros.engine.pacing import FRAME, Pacer


class AudioQueue:
    """`max_backlog`: frames of 80 ms by which the model may be behind.

    `simulated`: paced by the times that tick() and put() give, not by this machine's clock: while they stand still,
    nothing is due.
    """

    def __init__(self, max_backlog: int, *, simulated: bool = False) -> None:
        self._pacer = Pacer(max_backlog * FRAME)
        self._simulated = simulated
        self._changed = threading.Condition()
        self._input = AudioInput()
        self._gap = False  # messages are missing before the next frame
        self._jumped = self._now = 0
        self.start(0)

    def start(self, now: int) -> None:
        """Forget what waits. `now`: nanoseconds of the node's clock, the stamp of the first silence."""
        with self._changed:
            self._now = now
            self._input.restart()
            self._pacer.start(self._time(), now)
            self._changed.notify()

    def tick(self, now: int) -> None:
        """The simulated clock shows this."""
        with self._changed:
            self._now = max(self._now, now)  # messages are not in order to the last tick
            self._changed.notify()

    def jump(self, now: int) -> None:
        """The simulated clock has jumped: sound that waits is dropped, counted, and stamps begin anew here."""
        with self._changed:
            self._jumped += self._pacer.waiting
            self._input.restart()
            self._pacer.start(now, now)
            self._now = now
            self._changed.notify()

    def put(self, data: bytes, *, now: int, stamp: int, index: int | None = None, **fields: Any) -> None:
        """Takes what AudioInput.push() takes, and raises the same AudioError. `now`: of the node's clock, when the
        message came; `stamp` the same: the source does not say when it was in the air.
        """
        if self._simulated:
            self.tick(now)
        lost = self._input.counts.lost
        frames = self._input.push(data, stamp=stamp, index=index, **fields)
        self._gap |= self._input.counts.lost > lost
        with self._changed:
            for frame_stamp, samples in frames:
                missing = None if index is None else self._gap
                self._pacer.put(self._time(), samples, frame_stamp, stamped=stamp != now, lost=missing)
                self._gap = False
            self._changed.notify()

    def get(self, quiet: bool = True) -> tuple[int, Float]:
        """The next frame (stamp in nanoseconds, float32 [1920]), when it is due. `quiet`: the robot is not speaking."""
        with self._changed:
            while (frame := self._pacer.take(self._time(), quiet)) is None:
                wait = None if self._simulated else max(self._pacer.due - self._time(), 0) / 1e9
                self._changed.wait(wait)
            return frame

    def _time(self) -> int:
        return self._now if self._simulated else time.monotonic_ns()

    @property
    def counts(self) -> dict[str, int]:
        """What went wrong so far, by name."""
        counts = self._input.counts
        return {
            "audio messages lost": counts.lost,
            "audio messages repeated": counts.repeated,
            "audio messages refused": counts.refused,
            "audio messages cut (too long)": counts.cut,
            "samples not finite": counts.replaced,
            "frames dropped (too slow)": self._pacer.dropped,
            "frames dropped (clock jumped)": self._jumped,
            "frames of silence (no audio)": self._pacer.silent,
            "frames of silence skipped": self._pacer.skipped,
        }
