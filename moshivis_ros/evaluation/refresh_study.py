"""When to look: every refresh policy on the same rendered clips and the same conversations, through the real detector.

    python -m moshivis_ros.evaluation.refresh_study --json study.json

writes the figures as JSON and, with --docs, the table and the plot of docs/refresh_policy.md. The first third of the
clips is for choosing thresholds; what is reported comes from the rest, unless --train asks for the first.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from moshivis_ros.errors import ConfigError
from moshivis_ros.evaluation.clips import FRAME_SECONDS, Clip, load_clip, same_story, thumbnails
from moshivis_ros.evaluation.talk import GATE_HIGH, GATE_LOW, PAUSE_FRAMES, Talk, generate
from moshivis_ros.vision.gate import GateNormaliser
from moshivis_ros.vision.refresh_policy import Observation, Settings, State, decide
from moshivis_ros.vision.scene_change import DEFAULT, DETECTORS, FrameCheck, Thumbnail, make_detector

AUCS = (0.95, 0.8, 0.6)
LATENCIES = (0.03, 0.15, 0.5)  # seconds for one encode
TALKS = 3  # conversations per clip
TOLERANCE = 6  # frames (0.48 s) within which a change must be seen
_UNLIMITED = 10_000

POLICIES: dict[str, Settings] = {
    "static": Settings("manual"),
    "every frame": Settings("interval", interval=0.0, max_per_minute=_UNLIMITED),
    "every 1 s": Settings("interval", interval=1.0, max_per_minute=_UNLIMITED),
    "every 2 s": Settings("interval", interval=2.0, max_per_minute=_UNLIMITED),
    "on change": Settings("on_change"),
    "gating": Settings("gating"),
}


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


@dataclass
class Tally:
    """What happened to one policy, summed over conversations."""

    answers: int = 0
    right: int = 0
    staleness: list[float] = field(default_factory=list)  # ms, of every visual answer
    swaps_inside: int = 0
    encodes: int = 0
    changes: int = 0
    minutes: float = 0.0

    def add(self, other: Tally) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def figures(self, latency: float) -> dict[str, float]:
        return {
            "right": self.right / max(1, self.answers),
            "staleness_p50_ms": float(np.percentile(self.staleness or [0.0], 50)),
            "staleness_p95_ms": float(np.percentile(self.staleness or [0.0], 95)),
            "swaps_inside_per_minute": self.swaps_inside / self.minutes,
            "encodes_per_minute": self.encodes / self.minutes,
            "encodes_per_change": self.encodes / max(1, self.changes),
            "gpu_ms_per_minute": 1000 * latency * self.encodes / self.minutes,
            "answers": self.answers,
            "changes_per_minute": self.changes / self.minutes,
        }


def converse(footage: Footage, talk: Talk, settings: Settings, latency: float) -> Tally:
    """One conversation under one policy, in the order of Conversation.step(): swap, speak, decide.

    Frame 0 is in the cache when it begins. An encode that starts in frame k is in use from the first frame that
    begins `latency` seconds later or after. The gate is known one frame late.
    """
    clip, frames = footage.clip, len(talk.text)
    tally = Tally(changes=len(clip.changes), minutes=frames * FRAME_SECONDS / 60)
    steps = max(1, math.ceil(latency / FRAME_SECONDS - 1e-9))
    state, normaliser = State(), GateNormaliser(GATE_LOW, GATE_HIGH)
    cached, coming, ready = 0, None, 0
    gate, silent = 0.0, PAUSE_FRAMES
    answers = set(talk.answers)
    inside = np.zeros(frames, bool)
    for first, last in talk.phrases:
        inside[first : last + 1] = True
    for k in range(frames):
        if coming is not None and k >= ready:
            if inside[k] and not footage.same_story(cached, coming):
                tally.swaps_inside += 1
            cached, coming = coming, None
        if k in answers:
            wrong_for = _wrong_for(footage, cached, k)
            tally.answers += 1
            tally.right += wrong_for == 0
            tally.staleness.append(1000 * FRAME_SECONDS * wrong_for)
        silent = 0 if talk.text[k] else silent + 1
        observation = Observation(
            time=k * FRAME_SECONDS,
            distance=footage.distance(cached if coming is None else coming, k),
            bad=footage.bad[k],
            gate=gate,
            speaking=silent < PAUSE_FRAMES,
            phrase_end=silent == PAUSE_FRAMES or bool(talk.sentence_end[k]),
            age=(k - cached) * FRAME_SECONDS,
            in_flight=coming is not None,
            has_image=True,
        )
        state, decision = decide(state, observation, settings)
        if decision.action == "refresh":
            coming, ready = k, k + steps
            tally.encodes += 1
        normaliser, gate = normaliser.update(float(talk.gate[k]), has_image=True)
    return tally


def _wrong_for(footage: Footage, cached: int, now: int) -> int:
    """Frames for which the cached picture has not been telling the truth any more."""
    frames = 0
    while now - frames > cached and not footage.same_story(cached, now - frames):
        frames += 1
    return frames


@dataclass
class Detection:
    """One detector against the truth.

    changes, found: true changes, and those with a detection within half a second. detections, false: what it reported,
    and how much of that while nothing that can be seen had changed.
    """

    changes: int = 0
    found: int = 0
    detections: int = 0
    false: int = 0
    minutes: float = 0.0

    def figures(self) -> dict[str, float]:
        recall = self.found / max(1, self.changes)
        precision = 1 - self.false / max(1, self.detections)
        return {
            "f1": 2 * precision * recall / max(1e-9, precision + recall),
            "recall": recall,
            "precision": precision,
            "false_alarms_per_10_minutes": 10 * self.false / max(1e-9, self.minutes),
        }


def detect(footage: Footage, threshold: float) -> Detection:
    """The detector alone: whenever the distance reaches the threshold, the frame becomes the new reference."""
    clip = footage.clip
    found = Detection(changes=len(clip.changes), minutes=len(clip) * FRAME_SECONDS / 60)
    reference, detections = 0, []
    for k in range(len(clip)):
        if footage.bad[k] is None and footage.distance(reference, k) >= threshold:
            detections.append(k)
            found.false += clip.view(reference) == clip.view(k)
            reference = k
    found.detections = len(detections)
    found.found = sum(any(abs(k - change) <= TOLERANCE for k in detections) for change in clip.changes)
    return found
