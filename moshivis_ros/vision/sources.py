"""Where pictures come from without ROS: a photo, a folder of photos, a video file, a camera."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moshivis_ros.errors import ImageError, MissingDependencyError

Picture = NDArray[np.uint8]  # [height, width, 3] RGB

PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
SLIDE_RATE = 5  # pictures a second


def photo(path: str | Path) -> Picture:
    """One picture, RGB uint8 [height, width, 3], turned upright as its EXIF says. Raises ImageError."""
    if not Path(path).is_file():
        raise ImageError(f"{path}: no such picture")
    cv2 = _opencv()
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise ImageError(f"{path}: not a picture that can be read; give a JPEG or PNG file")
    return _rgb(cv2, picture)


def slides(folder: str | Path, seconds: float = 5.0) -> Iterator[tuple[float, Picture]]:
    """The photos of a folder in the order of their names, `seconds` each: (time in seconds, RGB picture).

    Like a camera, it gives every photo again and again, SLIDE_RATE times a second.
    """
    return _slides(photos(folder), seconds)


def photos(folder: str | Path) -> list[Path]:
    """The photos of a folder in the order of their names. Raises ImageError where there are none."""
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in PHOTOS)
    if not paths:
        raise ImageError(f"{folder}: no photos in this folder ({', '.join(PHOTOS)})")
    return paths


def video(path: str | Path) -> Iterator[tuple[float, Picture]]:
    """The frames of a video file: (time in seconds from its start, RGB picture)."""
    if not Path(path).is_file():
        raise ImageError(f"{path}: no such video")
    return _capture(str(path))


def camera(index: int = 0) -> Iterator[tuple[float, Picture]]:
    """The frames of a camera as they come, without end: (time.monotonic() in seconds, RGB picture)."""
    return _capture(index)


def pictures(source: str | Path, seconds: float = 5.0) -> Iterator[tuple[float, Picture]]:
    """A photo, a folder of photos (`seconds` each) or a video, whichever `source` is."""
    path = Path(source)
    if path.is_dir():
        return slides(path, seconds)
    if path.suffix.lower() in PHOTOS:
        photo(path)  # refused here and not later, when the first picture is asked for
        return _slides([path], seconds)
    return video(path)


def _slides(paths: list[Path], seconds: float) -> Iterator[tuple[float, Picture]]:
    for number, path in enumerate(paths):
        picture = photo(path)
        for repeat in range(max(1, round(seconds * SLIDE_RATE))):
            yield number * seconds + repeat / SLIDE_RATE, picture


def _capture(source: str | int) -> Iterator[tuple[float, Picture]]:
    cv2 = _opencv()
    capture = cv2.VideoCapture(source)
    ok, picture = capture.read()
    if not ok:
        capture.release()
        if isinstance(source, int):
            raise ImageError(
                f"camera {source} gives no picture; is it plugged in, and free (ls /dev/video*)?"
            )
        raise ImageError(f"{source}: not a video that can be read; give an MP4 or AVI file")

    def frames() -> Iterator[tuple[float, Picture]]:
        nonlocal ok, picture
        try:
            while ok:
                now = (
                    time.monotonic() if isinstance(source, int) else capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                )
                yield now, _rgb(cv2, picture)
                ok, picture = capture.read()
        finally:
            capture.release()

    return frames()


def _rgb(cv2: Any, picture: Any) -> Picture:
    rgb: Picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    return rgb


def _opencv() -> Any:
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise MissingDependencyError(
            "reading pictures and videos needs OpenCV: pip install opencv-python-headless"
        ) from error
