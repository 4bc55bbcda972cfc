"""Detectors of scene change against the truth of the clips, and against each nuisance alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moshivis_ros.audio import FRAME_SECONDS
from moshivis_ros.study.clips import NUISANCES, disturbed, load_clip, steady_light
from moshivis_ros.study.footage import Footage
from moshivis_ros.study.sums import Sum
from moshivis_ros.vision.refresh_policy import Settings
from moshivis_ros.vision.scene_change import FrameCheck, make_detector

TOLERANCE = 6  # frames (0.48 s) within which a change must be seen
THRESHOLDS: dict[str, tuple[float, ...]] = {  # from which the first third of the clips picks
    "patches": (0.07, 0.09, 0.11, 0.13, 0.16),
    "histogram": (0.03, 0.05, 0.08, 0.12, 0.2),
    "structure": (0.03, 0.05, 0.07, 0.1, 0.14),
    "hash": (0.05, 0.08, 0.1, 0.12, 0.16, 0.2),
    "edges": (0.1, 0.15, 0.2, 0.3, 0.4),
    "flow": (0.05, 0.1, 0.2, 0.3, 0.4),
}


@dataclass
class Detection(Sum):
    """One detector against the truth.

    changes, found: true changes, and those with a detection within half a second. detections, false: what it
    reported, and how much of that while nothing that can be seen had changed. The same for clips in which no
    lamp changes and no shadow passes: what is left there is noise, flicker, exposure, blur and shaking.
    """

    changes: int = 0
    found: int = 0
    detections: int = 0
    false: int = 0
    minutes: float = 0.0
    false_steady: int = 0
    minutes_steady: float = 0.0

    def figures(self) -> dict[str, float]:
        recall = self.found / max(1, self.changes)
        precision = 1 - self.false / max(1, self.detections)
        return {
            "f1": 2 * precision * recall / max(1e-9, precision + recall),
            "recall": recall,
            "precision": precision,
            "false_per_10_minutes": 10 * self.false / max(1e-9, self.minutes),
            "false_per_10_minutes_in_steady_light": 10 * self.false_steady / max(1e-9, self.minutes_steady),
            "changes": self.changes,
            "minutes": self.minutes,
            "minutes_in_steady_light": self.minutes_steady,
        }


def sweep(seed: int, seconds: float, thresholds: dict[str, tuple[float, ...]]) -> dict[Any, Detection]:
    clip = load_clip(seed, seconds)
    found = {}
    for name, values in thresholds.items():
        footage = Footage(clip, name)
        found.update({(name, value): detect(footage, value) for value in values})
    return found


def detect(footage: Footage, threshold: float) -> Detection:
    """The detector alone: when the distance reaches the threshold, the frame becomes the new reference."""
    clip = footage.clip
    minutes = len(clip) * FRAME_SECONDS / 60
    score = Detection(changes=len(clip.changes), minutes=minutes)
    reference, detections = 0, []
    for k in range(len(clip)):
        if footage.bad[k] is None and footage.distance(reference, k) >= threshold:
            detections.append(k)
            score.false += clip.view(reference) == clip.view(k)
            reference = k
    score.detections = len(detections)
    score.found = sum(any(abs(k - change) <= TOLERANCE for k in detections) for change in clip.changes)
    if steady_light(clip.seed, len(clip) * FRAME_SECONDS):
        score.false_steady, score.minutes_steady = score.false, minutes
    return score


def disturb(seed: int, seconds: float) -> dict[str, list[float]]:
    """For each nuisance [detections, every one of them false; minutes] of the default detector."""
    detector, threshold, found = make_detector(), Settings().change_distance, {}
    for nuisance in NUISANCES:
        check, reference, false, frames = FrameCheck(), None, 0, 0
        for image in disturbed(nuisance, seed, seconds):
            thumb = detector.describe(image)
            bad = check.check(thumb)
            frames += 1
            if reference is None:
                reference = thumb
            elif bad is None and detector.distance(reference, thumb) >= threshold:
                reference = thumb
                false += 1
        found[nuisance] = [false, frames * FRAME_SECONDS / 60]
    return found
