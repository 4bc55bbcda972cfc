"""What a conversation looks at: the camera's newest frame, the picture in the cache, and when one becomes the other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from moshivis_ros.vision.image_cache import ImageCache, Picture
from moshivis_ros.vision.refresh_policy import Observation, Settings, State, decide
from moshivis_ros.vision.scene_change import FrameCheck, make_detector

CAMERA_TIMEOUT = 2.0  # seconds after which a camera that sends nothing is lost

Encoding = TypeVar("Encoding")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageStatus:
    """What is in the image cache, and what the refresh policy last decided about it.

    decision: keep, defer or refresh; reason: why. distance: 0..1 from the cached picture to the newest
    camera frame (0 if there is none). age: seconds since the cached picture was offered. encode_ms: what
    encoding it took. refreshes: pictures swapped in so far. stamp: what the caller gave with the cached picture.
    """

    decision: str = "keep"
    reason: str = "no picture"
    distance: float = 0.0
    age: float = 0.0
    encode_ms: float = 0.0
    refreshes: int = 0
    has_image: bool = False
    stamp: Any = None


class View(Generic[Encoding]):
    """`swap` and `decide` belong to the thread of the steps; everything else may be called from any.

    encode: picture -> what goes into the cache, run on a thread of its own. Times are seconds of stream time.
    """

    def __init__(self, encode: Callable[[NDArray[np.uint8]], Encoding], settings: Settings) -> None:
        self.settings = settings
        self.status = ImageStatus()
        self._detector = make_detector()
        self._frame_check = FrameCheck()
        self._cache = ImageCache(encode)
        self._inbox = threading.Lock()  # held while pictures and wishes change hands
        self._camera: Picture | None = None  # the newest camera frame
        self._camera_problem: str | None = None  # why it is not fit to be seen
        self._requested = self._frozen = self._looking_away = False
        self.shown: Picture | None = None  # what is in the cache
        self._news = False  # the status holds the outcome of an encode that no frame has told yet
        self._policy = State()

    def restart(self) -> None:
        """A new conversation: the picture stays, camera frames from before will not be looked at."""
        with self._inbox:
            self._camera = None
        self._policy = State()

    def show(self, image: NDArray[np.uint8], stamp: Any, now: float) -> None:
        """This picture [H, W, 3], whatever the policy thinks."""
        picture = Picture(image, stamp, now, self._detector.describe(image), "shown")
        with self._inbox:
            self._looking_away = False
            self._cache.submit(picture)

    def look_away(self) -> None:
        with self._inbox:
            self._cache.cancel()
            self._looking_away = True

    def watch(self, image: NDArray[np.uint8], stamp: Any, now: float) -> None:
        """A camera frame [H, W, 3], which the policy may take."""
        thumbnail = self._detector.describe(image)
        with self._inbox:
            self._camera_problem = self._frame_check.check(thumbnail)
            self._camera = Picture(image, stamp, now, thumbnail)

    def request(self) -> None:
        """The newest camera frame as soon as possible, whatever the policy thinks."""
        with self._inbox:
            self._looking_away = False
            self._requested = True

    def freeze(self, frozen: bool) -> None:
        """Keep what is in the cache, whatever the camera shows."""
        with self._inbox:
            self._frozen = frozen

    def wait(self) -> None:
        """Block until no picture is on its way to `swap` any more."""
        self._cache.wait()

    def close(self) -> None:
        self._cache.close()

    def swap(self, put: Callable[[Encoding | None], None]) -> None:
        """Between two frames: `put` what is ready into the network; None: nothing to see any more."""
        with self._inbox:
            looking_away = self._looking_away
            done = self._cache.take()
        if looking_away and self.shown is not None:
            put(None)
            self.shown = None
            self.status = replace(self.status, has_image=False)
            return
        if done is None:
            return
        self._news = True
        if done.encoding is None:
            log.error("the picture could not be encoded, the old one stays: %s", done.error)
            self.status = replace(self.status, decision="keep", reason=f"encode failed: {done.error}")
            return
        put(done.encoding)
        self.shown = done.picture
        self.status = replace(
            self.status,
            decision="refresh",
            reason=done.picture.reason,
            encode_ms=done.encode_ms,
            refreshes=self.status.refreshes + 1,
            has_image=True,
            stamp=done.picture.stamp,
        )

    def decide(self, now: float, *, gate: float, speaking: bool, phrase_end: bool) -> None:
        """After a frame: ask the policy, with everything that is known, and do as it says. gate: normalised, 0..1."""
        with self._inbox:
            camera, problem = self._camera, self._camera_problem
            frozen, requested, looking_away = self._frozen, self._requested, self._looking_away
        has_image = self.shown is not None
        on_its_way = self._cache.newest
        reference = on_its_way or self.shown
        distance: float | None = None
        if camera is not None and now - camera.seen_at <= CAMERA_TIMEOUT:
            distance = self._detector.distance(reference.thumbnail, camera.thumbnail) if reference else 1.0
        age = now - self.shown.seen_at if self.shown else 0.0
        if looking_away:
            action, reason = "keep", "looking away"
        else:
            observation = Observation(
                time=now,
                distance=distance,
                bad=problem,
                gate=gate if has_image else None,
                speaking=speaking,
                phrase_end=phrase_end,
                age=age,
                in_flight=on_its_way is not None,
                has_image=has_image,
                frozen=frozen,
                requested=requested,
            )
            self._policy, decision = decide(self._policy, observation, self.settings)
            action, reason = decision.action, decision.reason
        if action == "refresh" and camera is not None:
            with self._inbox:
                self._requested = False
            self._cache.submit(replace(camera, reason=reason))
        if self._news:  # the outcome of an encode comes first
            action, reason, self._news = self.status.decision, self.status.reason, False
        self.status = replace(self.status, decision=action, reason=reason, distance=distance or 0.0, age=age)
