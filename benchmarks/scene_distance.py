"""Milliseconds of one core (CPU time) per 640x480 frame: thumbnail, distance, frame check. No argument needed.

The frames are of a camera that shakes, which is what costs most: the picture is compared, moved back and compared.
"""

from __future__ import annotations

import statistics
import time

import cv2
import numpy as np

from moshivis_ros.vision.scene_change import DETECTORS, FrameCheck, make_detector

FRAMES = 300


def main() -> None:
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    scene = cv2.normalize(cv2.blur(rng.normal(0, 1, (480, 640, 3)), (9, 9)), None, 0, 255, cv2.NORM_MINMAX)
    moved = [np.roll(scene, (k % 3 * 6, k * 2), (0, 1)) for k in range(1, 9)]  # up to 20 are moved back
    images = [np.clip(view + rng.normal(0, 7, view.shape), 0, 255).astype(np.uint8) for view in moved]
    print(f"{'detector':12}{'thumbnail':>12}{'distance':>12}{'check':>12}{'all, median':>14}{'p95':>8}   ms")
    for name in DETECTORS:
        detector, check = make_detector(name), FrameCheck()
        reference = detector.describe(images[0])
        spent: list[tuple[float, float, float]] = []
        for k in range(FRAMES):
            start = time.thread_time()
            thumb = detector.describe(images[k % len(images)])
            described = time.thread_time()
            detector.distance(reference, thumb)
            compared = time.thread_time()
            check.check(thumb)
            checked = time.thread_time()
            spent.append((described - start, compared - described, checked - compared))
        parts = [1e3 * statistics.median(column) for column in zip(*spent)]
        total = sorted(1e3 * sum(row) for row in spent)
        p95 = total[int(0.95 * len(total))]
        print(
            f"{name:12}"
            + "".join(f"{part:12.3f}" for part in parts)
            + f"{statistics.median(total):14.3f}{p95:8.3f}"
        )


if __name__ == "__main__":
    main()
