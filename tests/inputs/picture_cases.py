"""Pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from case import Case

from moshivis_ros.vision import sources

RED = (200, 30, 10)


def png(folder: Path) -> Path:
    path = folder / "red.png"
    cv2.imwrite(str(path), np.full((48, 64, 3), RED[::-1], np.uint8))
    return path


def is_red(path: Path) -> None:
    picture = sources.photo(path)
    assert picture.shape == (48, 64, 3) and tuple(picture[20, 20]) == RED


CASES = [Case("PNG", ("file",), "read", "RGB, 8 bits", png, is_red)]
