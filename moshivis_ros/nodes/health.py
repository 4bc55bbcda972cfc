"""How the conversation is doing, for /diagnostics and the log."""

from __future__ import annotations

import platform
import time
from collections import deque
from collections.abc import Iterator, Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from moshivis_ros.engine.events import Spoken

BUDGET_MS = 80.0  # one frame
WINDOW = 750  # frames, one minute
LOST_AFTER = 1.0  # seconds without a message from a source that has a publisher
LARGE_IMAGES = (
    "large best-effort pictures get lost on the way: let the camera publish reliably, use image/compressed, or "
    "start its driver with FASTDDS_DEFAULT_PROFILES_FILE set to share/moshivis_ros/config/large_images.xml"
)

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Source:
    """Messages of one kind: are there publishers, and when did the last message come?"""

    def __init__(self, name: str, hint: str = "") -> None:
        self.name, self._hint = name, hint
        self._since = time.monotonic()
        self.last: float | None = None

    def came(self) -> None:
        self.last = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since the last message, or since the start."""
        return time.monotonic() - (self._since if self.last is None else self.last)

    def problem(self, publishers: Mapping[str, int], needed: bool) -> str | None:
        """What to tell the user, given the number of publishers by topic. `needed`: it should have a
        publisher.
        """
        topics = " and ".join(publishers)
        if self.age < LOST_AFTER:
            return None
        if not any(publishers.values()):
            return f"no {self.name}: nothing publishes {topics}" if needed or self.last is not None else None
        hint = f"; {self._hint}" if self._hint else ""
        return f"no {self.name} for {self.age:.0f} s, though {topics} has a publisher{hint}"


class Health:
    """Collects frames, and says what has become worse."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=WINDOW)
        self._counts: dict[str, int] = {}
        self._reported: dict[str, int] = {}
        self._memory: dict[str, float] = {}
        self._frames = self._overruns = 0
        self.renewals = 0  # of the context, by the engine that runs
        self._clock = -1

    def begin(self) -> None:
        """A new conversation: how long the frames of the last one took is over."""
        self._times.clear()

    def clock_stands(self, now: int) -> bool:
        """The node's clock shows what it showed at the last call."""
        before, self._clock = self._clock, now
        return now == before

    def add(self, spoken: Spoken) -> None:
        self._times.append(spoken.milliseconds)
        self._frames += 1
        self._overruns += spoken.milliseconds > BUDGET_MS
        self._memory = spoken.memory
        self.renewals = spoken.renewals
        self._counts = {**spoken.counts, "steps over 80 ms": self._overruns}

    def news(self) -> Iterator[str]:
        """What went wrong since the last call, in words."""
        counts = dict(self._counts)
        for name, count in counts.items():
            more = count - self._reported.get(name, 0)
            if more > 0 and "silence" not in name:  # its own problem says more
                yield f"{name}: {more} ({count} in all)"
        self._reported = counts

    def engine(self, state: str, failure: str | None) -> DiagnosticStatus:
        """`state`: of the node, in a word; `failure`: why there is no engine that could work."""
        times = np.array(list(self._times)) if self._times else np.zeros(1)
        p50, p99 = np.percentile(times, [50, 99])
        level, message = OK, state
        if failure:
            level, message = ERROR, failure
        elif state == "talking" and p99 > BUDGET_MS:
            level, message = (
                WARN,
                f"{state}, but slower than real time: p99 {p99:.0f} ms of {BUDGET_MS:.0f} ms a frame",
            )
        values = {
            "frame time p50 (ms)": p50,
            "frame time p99 (ms)": p99,
            "budget (ms)": BUDGET_MS,
            "frames": self._frames,
            "context renewals": self.renewals,
            **self._counted("steps"),
            **self._memory,
        }
        return status("engine", level, message, values)

    def audio(self, problem: str | None, dropped: int) -> DiagnosticStatus:
        values = {
            **self._counted("audio", "samples", "frames"),
            "audio messages dropped (engine busy)": dropped,
        }
        return status("audio", WARN if problem else OK, problem or "hearing", values)

    def camera(self, problem: str | None, source: Source) -> DiagnosticStatus:
        age = {} if source.last is None else {"camera age (s)": source.age}
        seeing = "seeing" if source.last is not None else "no camera"
        return status(
            "camera", WARN if problem else OK, problem or seeing, {**age, **self._counted("pictures")}
        )

    def _counted(self, *subjects: str) -> dict[str, int]:
        return {name: count for name, count in self._counts.items() if name.startswith(subjects)}


def status(
    name: str, level: bytes, message: str, values: Mapping[str, float | int | str], hardware_id: str = platform.node()
) -> DiagnosticStatus:
    """`hardware_id`: what it is about: the device, or the computer."""
    pairs = [
        KeyValue(key=key, value=f"{value:.4g}" if isinstance(value, float) else str(value))
        for key, value in values.items()
    ]
    return DiagnosticStatus(level=level, name=name, message=message, hardware_id=hardware_id, values=pairs)
