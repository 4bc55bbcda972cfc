"""Milliseconds per 640x480 frame on one core: thumbnail, distance, frame check. No argument needed."""

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
    images = [cv2.blur(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8), (31, 31)) for _ in range(8)]
    print(f"{'detector':12}{'thumbnail':>12}{'distance':>12}{'check':>12}{'all, median':>14}{'p95':>8}   ms")
    for name in DETECTORS:
        detector, check = make_detector(name), FrameCheck()
        reference = detector.describe(images[0])
        spent: list[tuple[float, float, float]] = []
        for k in range(FRAMES):
            start = time.perf_counter()
            thumb = detector.describe(images[k % len(images)])
            described = time.perf_counter()
            detector.distance(reference, thumb)
            compared = time.perf_counter()
            check.check(thumb)
            checked = time.perf_counter()
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
