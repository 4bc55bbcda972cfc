"""Encodes pictures beside the stream: at most one at a time, the newest wins, a failure changes nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from moshivis_ros.vision.scene_change import Thumbnail

Encoding = TypeVar("Encoding")


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture [H, W, 3] uint8 RGB on its way to the cache, with what is known about it.

    stamp: the caller's, only handed back.
    seen_at: stream time in seconds at which it was offered.
    thumbnail: what the scene-change detector compares.
    """

    image: NDArray[np.uint8]
    stamp: Any
    seen_at: float
    thumbnail: Thumbnail
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Encoded(Generic[Encoding]):
    """The outcome of one encode: an encoding, or the error that prevented it."""

    picture: Picture
    encoding: Encoding | None
    error: Exception | None
    encode_ms: float


@dataclass
class ImageCache(Generic[Encoding]):
    """Turns pictures into encodings on a thread of its own.

    ``submit`` never blocks: while one picture is being encoded, the newest submitted one waits and any older
    one waiting is forgotten. ``take`` gives a finished encode exactly once, to be swapped in between two
    frames.
    """

    encode: Callable[[NDArray[np.uint8]], Encoding]
    _condition: threading.Condition = field(default_factory=threading.Condition)
    _waiting: Picture | None = None
    _encoding: Picture | None = None
    _done: Encoded[Encoding] | None = None
    _closed: bool = False
    _thread: threading.Thread | None = None

    def submit(self, picture: Picture) -> None:
        with self._condition:
            self._waiting = picture
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="image-encoder", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def take(self) -> Encoded[Encoding] | None:
        """The encode that finished since the last call, or None."""
        with self._condition:
            done, self._done = self._done, None
            return done

    def cancel(self) -> None:
        """Forget every picture on its way."""
        with self._condition:
            self._waiting = self._encoding = self._done = None
            self._condition.notify_all()

    def wait(self) -> None:
        """Block until nothing is on its way to ``take``."""
        with self._condition:
            self._condition.wait_for(
                lambda: self._closed or (self._waiting is None and self._encoding is None)
            )

    @property
    def newest(self) -> Picture | None:
        """The newest picture on its way (waiting, being encoded, or encoded and not taken), or None."""
        with self._condition:
            return self._waiting or self._encoding or (self._done.picture if self._done else None)

    def close(self) -> None:
        """Stop the thread, after the encode that may be running."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closed or self._waiting is not None)
                if self._closed:
                    return
                picture = self._encoding = self._waiting
                self._waiting = None
            assert picture is not None
            start = time.perf_counter()
            encoding, error = None, None
            try:
                encoding = self.encode(picture.image)
            except (
                Exception
            ) as problem:  # whatever it was, the conversation goes on with the old picture and says so
                error = problem
            encoded = Encoded(picture, encoding, error, 1000 * (time.perf_counter() - start))
            with self._condition:
                if self._encoding is picture:  # not cancelled meanwhile
                    self._encoding, self._done = None, encoded
                    self._condition.notify_all()
