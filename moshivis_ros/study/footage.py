"""A clip as a refresh policy or a detector meets it."""

from __future__ import annotations

from moshivis_ros.study.clips import Clip, same_story, thumbnails
from moshivis_ros.vision.scene_change import DEFAULT, FrameCheck, make_detector


class Footage:
    """A clip as the policy meets it: thumbnails, which frames are bad, and distances computed once."""

    def __init__(self, clip: Clip, detector: str = DEFAULT) -> None:
        self.clip = clip
        self._detector = make_detector(detector)
        check = FrameCheck()
        self._thumbs = [self._detector.describe(image) for image in thumbnails(clip)]
        self.bad = [check.check(thumb) for thumb in self._thumbs]
        self._distances: dict[tuple[int, int], float] = {}
        self._stories: dict[tuple[int, int], bool] = {}

    def distance(self, reference: int, frame: int) -> float:
        key = (reference, frame)
        if key not in self._distances:
            self._distances[key] = self._detector.distance(self._thumbs[reference], self._thumbs[frame])
        return self._distances[key]

    def same_story(self, told: int, now: int) -> bool:
        key = (self.clip.shows[told], self.clip.shows[now])
        if key not in self._stories:
            self._stories[key] = same_story(self.clip.view(told), self.clip.view(now))
        return self._stories[key]
