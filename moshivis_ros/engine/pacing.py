"""When the next frame of sound is due, and which it is. Pure: times in, decisions out; no thread, no clock of its own.

One frame goes to the model for every 80 ms of the source's own time, however its messages are cut and delayed:

- A frame is due `delay` after its stamp. The delay grows at once when a frame comes later than that, and shrinks while
  nobody speaks to what the last seconds needed: so messages of 2 s are heard 2 s late and evenly, and ordinary ones at
  once.
- A source that is later than it has been known to be is replaced by silence, 80 ms at a time. When its sound comes
  after all, as many frames of silence are left out of it later (the *debt*); until then stamps run ahead by them.
- Sound that never comes (a gap in the stamps) is silence, and no debt.

Stamps rise strictly, 80 ms from frame to frame, unless the source's own clock jumps; then they follow it. All times are
nanoseconds: `now` of the clock that paces, stamps of the clock that the source has.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from moshivis_ros.audio import FRAME_SIZE, SAMPLE_RATE, Float
from moshivis_ros.audio.quiet import Quiet

FRAME = FRAME_SIZE * 1_000_000_000 // SAMPLE_RATE
SECOND = 1_000_000_000
FIRST_PATIENCE = 2 * FRAME  # until silence, when nothing has come yet
PATIENCE = FRAME  # beyond the delay, until a source that used to be punctual is replaced by silence
LONG_PATIENCE = 11 * SECOND // 10  # the same for one that was late before
MEMORY = 60 * SECOND  # for which a source counts as late after it was
WINDOW = 7 * SECOND // 2  # of frames whose lateness the delay covers
SPARE = SECOND  # by which the delay may exceed that while somebody speaks
CATCH_UP = FRAME // 2  # by which the delay shrinks from frame to frame
FOLLOW = 64  # frames in which stamps that disagree with the samples counted are believed
FOLLOW_MOST = 1_000_000  # by which a stamp is corrected at most; 80_000 (0.1 %) where it is only a guess
GUESS_MOST = 80_000
GAP = SECOND // 2  # by which stamps of messages without numbers must be ahead before sound counts as missing
JUMP = SECOND  # by which stamps of sound without a gap may be off before they come from another clock
OTHER_CLOCK = 4 * SECOND  # the same where sound is missing, or has only begun
LONGEST_FILL = 50  # frames of silence for sound that is missing and that nobody waited for
QUIET_FRAMES = 3  # in a row before one is left out: the stop within a word is no silence


@dataclass(frozen=True)
class Waiting:
    at: int  # on the timeline that paces: as stamps, but without the jumps of the source's clock
    stamp: int
    samples: Float
    quiet: bool = False  # and so were those before it
    other_clock: bool = False  # the stamps before it are of another one


class Pacer:
    """`max_backlog`: nanoseconds by which the model may be behind before the oldest sound is dropped."""

    def __init__(self, max_backlog: int) -> None:
        self._max_backlog = max_backlog
        self.silent = self.skipped = self.dropped = 0  # frames; only ever grow
        self.start(0, 0)

    def start(self, now: int, stamp: int) -> None:
        """Forget what waits. `stamp`: of the first silence."""
        self._waiting: deque[Waiting] = deque()
        self._out = self._stamp = self._at = (
            stamp - FRAME
        )  # of the newest frame that was taken, and that came
        self._came = now
        self._known = False  # the source has begun
        self._delay = 0
        self._lateness: deque[tuple[int, int]] = deque()  # (now, lateness) of the frames of the window
        self._late_at = now - MEMORY
        self._debt = 0  # frames of silence to leave out
        self._fed = 0  # silences since the newest frame came
        self._quiet = Quiet()
        self._quiet_run = 0
        self._silence_at = now + FIRST_PATIENCE

    @property
    def due(self) -> int:
        """The `now` at which take() has something, if nothing comes before."""
        return self._waiting[0].at + self._delay if self._waiting else self._silence_at

    @property
    def waiting(self) -> int:
        """Frames."""
        return len(self._waiting)

    def put(self, now: int, samples: Float, stamp: int, *, stamped: bool, lost: bool | None) -> None:
        """A frame float32 [1920] came. `stamped`: the source says when it was in the air, else `stamp` is a guess;
        `lost`: messages before it are missing, by their numbers; None where they have none.
        """
        error = stamp - (self._stamp + FRAME)
        passed = max(now - self._came, FRAME)
        if not stamped:
            missing = self._fed > SECOND // FRAME
        elif lost is False:  # the source itself made a pause, or its clock was set
            missing = GAP < error < 2 * passed
        else:
            missing = abs(error) > (GAP if lost is None else FRAME // 2)
        begins = missing or not self._known
        other_clock = stamped and (abs(error + FRAME - passed) > OTHER_CLOCK if begins else abs(error) > JUMP)
        if other_clock:
            self._at += passed if begins else FRAME
            self._stamp = stamp
        elif begins:
            self._at += error + FRAME
            self._stamp = stamp
            self._account_for(round(error / FRAME))
        else:
            self._debt += self._fed
            most = FOLLOW_MOST if stamped else GUESS_MOST
            step = FRAME + max(-most, min(most, error // FOLLOW))
            self._at += step
            self._stamp += step
        self._note(now, now - self._at)
        self._came, self._known, self._fed = now, True, 0
        stamp = stamp if stamped else self._stamp
        self._waiting.append(Waiting(self._at, stamp, samples, self._is_quiet(samples), other_clock))

    def take(self, now: int, quiet: bool) -> tuple[int, Float] | None:
        """The frame that is due (stamp, float32 [1920]), or None. `quiet`: the robot is not speaking."""
        while self._waiting and now >= self.due:
            overdue = now - self.due
            frame = self._waiting.popleft()
            if self._waiting and overdue > self._max_backlog:
                self.dropped += 1
                self._debt = max(self._debt - 1, 0)
                continue
            if self._debt and frame.quiet:
                self.skipped += 1
                self._debt -= 1
                self._shrink(now, FRAME)
                continue
            stamp = frame.stamp + self._debt * FRAME
            self._out = stamp if frame.other_clock else max(stamp, self._out + 1)
            patience = LONG_PATIENCE if now - self._late_at < MEMORY else PATIENCE
            self._silence_at = frame.at + FRAME + self._delay + patience
            idle = quiet and frame.quiet and overdue < CATCH_UP
            if idle or self._delay - self._needed(now) > SPARE:
                self._shrink(now, CATCH_UP)
            return self._out, frame.samples
        if self._waiting or now < self._silence_at:
            return None
        self.silent += 1
        self._fed += 1
        self._silence_at = (
            max(self._silence_at, now - SECOND) + FRAME
        )  # not all that a sleeping machine missed
        self._out += FRAME
        return self._out, np.zeros(FRAME_SIZE, np.float32)

    def _account_for(self, missing: int) -> None:
        """So many frames of the source never come: silence took the place of some, or of more than those."""
        fill = missing - self._fed
        if fill < 0:
            self._debt -= fill
        elif self._known and fill <= LONGEST_FILL:
            silence = np.zeros(FRAME_SIZE, np.float32)
            before = [n * FRAME for n in range(fill, 0, -1)]
            self._waiting.extend(Waiting(self._at - n, self._stamp - n, silence) for n in before)
            self.silent += fill

    def _note(self, now: int, lateness: int) -> None:
        if not self._known:
            self._delay = lateness
        elif lateness > self._delay + PATIENCE // 2:
            self._late_at = now
        self._delay = max(self._delay, lateness)
        self._lateness.append((now, lateness))

    def _needed(self, now: int) -> int:
        """The delay that the frames of the window needed."""
        while len(self._lateness) > 1 and now - self._lateness[0][0] > WINDOW:
            self._lateness.popleft()
        return max((lateness for _, lateness in self._lateness), default=self._delay)

    def _shrink(self, now: int, by: int) -> None:
        self._delay = max(self._delay - by, min(self._needed(now), self._delay))

    def _is_quiet(self, samples: Float) -> bool:
        """This frame and those before it are silence, or the noise of the room."""
        self._quiet_run = self._quiet_run + 1 if self._quiet(samples) else 0
        return self._quiet_run >= QUIET_FRAMES
