"""What the page is told: events as they happen, pictures, the robot's voice; and what a page that comes later must know."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from moshivis_ros.shading import printable, shade

Event = dict[str, Any]

LIVE, CACHED, VOICE = b"L", b"C", b"V"  # first byte of a binary message: a JPEG, a JPEG, int16 24 kHz mono
PERIOD = 0.1  # seconds between two messages of events
PICTURE_PERIOD = 0.2  # seconds between two pictures of the camera
WAITING = 60  # messages that may wait for a page; what is more is left out, and the page is told how much
HISTORY = 400  # events of the transcript that a new page gets
LASTING = ("sight", "diagnostics", "speaking", "able")  # kinds of which a new page gets the newest


class Page:
    """One connected page: messages wait here for it."""

    def __init__(self) -> None:
        self.hears = False  # wants the robot's voice
        self.left_out = self.told = 0  # messages; of which it has been told
        self._queue: asyncio.Queue[str | bytes] = asyncio.Queue(WAITING)

    def put(self, message: str | bytes) -> None:
        if self._queue.full():
            self.left_out += 1
        else:
            self._queue.put_nowait(message)

    async def get(self) -> str | bytes:
        return await self._queue.get()


class Hub:
    """listens, tell(), voice() and the pictures are for any thread; the rest belongs to the thread of the loop."""

    def __init__(self) -> None:
        self.pages: set[Page] = set()
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._lasting: dict[tuple[str, str], Event] = {}
        self._voice: list[bytes] = []
        self._live: Callable[[], bytes | None] | None = None
        self._cached: bytes | None = None
        self._new_cached = False
        self._start = time.monotonic()

    @property
    def listens(self) -> bool:
        """A page wants the robot's voice."""
        return any(page.hears for page in tuple(self.pages))

    def tell(self, event: Event) -> None:
        """`kind` and what belongs to it; gets its time `t` here, seconds since the node began."""
        event["t"] = round(time.monotonic() - self._start, 3)
        if event["kind"] == "said":
            event["text"], event["shade"] = printable(event["text"]), shade(event["gate"])
        with self._lock:
            self._events.append(event)
            if event["kind"] == "flush":  # of what was said before it nothing is to be heard any more
                self._voice.clear()

    def voice(self, samples: bytes) -> None:
        """A frame of the robot's voice: int16, 24 kHz, mono."""
        with self._lock:
            self._voice.append(samples)

    def live(self, jpeg: Callable[[], bytes | None]) -> None:
        """The camera's newest picture, made a JPEG when it is its turn to be shown."""
        with self._lock:
            self._live = jpeg

    def cached(self, jpeg: bytes | None) -> None:
        """The picture in the model's cache; None: there is none, or it is not known here."""
        with self._lock:
            self._cached, self._new_cached = jpeg, True

    def join(self, page: Page) -> None:
        past = [*self._lasting.values(), *self._history]  # what is yet to be handed on comes with the other pages'
        with self._lock:
            cached = self._cached
        page.put(json.dumps([{"kind": "hello", "t": round(time.monotonic() - self._start, 3)}, *past]))
        page.put(CACHED + (cached or b""))
        self.pages.add(page)

    def leave(self, page: Page) -> None:
        self.pages.discard(page)

    async def run(self) -> None:
        """Hands on what has come, until it is cancelled."""
        shown = 0.0
        while True:
            await asyncio.sleep(PERIOD)
            picture_due = time.monotonic() - shown >= PICTURE_PERIOD
            with self._lock:
                events, self._events = self._events, []
                voice, self._voice = self._voice, []
                cached = self._cached if self._new_cached else None
                new_cached, self._new_cached = self._new_cached, False
                live = self._live if picture_due else None
                if live is not None:
                    self._live = None
            for event in events:
                if event["kind"] == "said":
                    self._history.append(event)
                elif event["kind"] in LASTING:
                    self._lasting[event["kind"], event.get("name", "")] = event
            if not self.pages:
                continue
            text = json.dumps(events)
            jpeg = live() if live is not None else None
            if jpeg:
                shown = time.monotonic()
            for page in self.pages:
                if page.left_out != page.told:
                    page.told = page.left_out
                    page.put(json.dumps([{"kind": "behind", "count": page.left_out}]))
                if events:
                    page.put(text)
                if jpeg:
                    page.put(LIVE + jpeg)
                if new_cached:
                    page.put(CACHED + (cached or b""))
                if voice and page.hears:
                    page.put(VOICE + b"".join(voice))
