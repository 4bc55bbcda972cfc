"""Where pictures come from without ROS: a photo, a folder of photos, a video file, a camera."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import cv2

from moshivis_ros.errors import ImageError
from moshivis_ros.vision import encoded
from moshivis_ros.vision import video as videos
from moshivis_ros.vision.encodings import Picture, to_rgb

PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".jp2", ".avif", ".heic", ".heif")
IN_A_FOLDER = (*PHOTOS, ".gif")  # one that is given by itself is played: it may be a film
SLIDE_RATE = 5  # pictures a second

log = logging.getLogger(__name__)


def photo(path: str | Path) -> Picture:
    """One picture, RGB uint8 [height, width, 3], turned upright as its EXIF says. Raises ImageError."""
    with _open(path, "picture") as file:
        return encoded.picture(file.read(), str(path))


def slides(folder: str | Path, seconds: float = 5.0) -> Iterator[tuple[float, Picture]]:
    """The photos of a folder in the order of their names, `seconds` each: (time in seconds, RGB picture).

    Like a camera, it gives every photo again and again, SLIDE_RATE times a second.
    """
    return _slides(photos(folder), seconds)


def photos(folder: str | Path) -> list[Path]:
    """The photos of a folder that can be read, in the order of their names; hidden files are none.

    Each is read to see that; one that cannot be is logged and left out. Raises ImageError where none is left.
    """
    found = sorted(
        path
        for path in Path(folder).expanduser().iterdir()
        if path.suffix.lower() in IN_A_FOLDER and not path.name.startswith(".")
    )
    paths = [path for path in found if _readable(path)]
    if not paths:
        raise ImageError(
            f"{folder}: no photos in this folder"
            + (" that can be read" if found else f" ({', '.join(IN_A_FOLDER)})")
        )
    return paths


def video(path: str | Path) -> Iterator[tuple[float, Picture]]:
    """The frames of a video file: (time in seconds from its start, RGB picture). Raises ImageError."""
    return videos.frames(_open(path, "video"), str(path))


def camera(index: int = 0) -> Iterator[tuple[float, Picture]]:
    """The frames of a camera as they come, without end: (time.monotonic() in seconds, RGB picture)."""
    capture = cv2.VideoCapture(index)
    ok, picture = capture.read()
    if not ok:
        capture.release()
        raise ImageError(f"camera {index} gives no picture; is it plugged in, and free (ls /dev/video*)?")

    def frames() -> Iterator[tuple[float, Picture]]:
        nonlocal ok, picture
        try:
            while ok:
                yield time.monotonic(), to_rgb(picture, cv2.COLOR_BGR2RGB)
                ok, picture = capture.read()
        finally:
            capture.release()

    return frames()


def pictures(source: str | Path, seconds: float = 5.0) -> Iterator[tuple[float, Picture]]:
    """A photo, a folder of photos (`seconds` each), a camera (/dev/video0) or a video, whichever `source` is: (time in
    seconds from its start, RGB picture). Raises ImageError.
    """
    if device := re.fullmatch(r"/dev/video(\d+)", str(source)):
        begin = time.monotonic()
        return ((when - begin, picture) for when, picture in camera(int(device[1])))
    if os.path.isdir(os.path.expanduser(source)):
        return slides(source, seconds)
    if Path(source).suffix.lower() in PHOTOS:
        photo(source)  # refused here and not later, when the first picture is asked for
        return _slides([source], seconds)
    return video(source)


def _slides(paths: Sequence[str | Path], seconds: float) -> Iterator[tuple[float, Picture]]:
    for number, path in enumerate(paths):
        try:
            picture = photo(path)
        except ImageError as error:  # it was good a moment ago
            log.warning("%s; left out", error)
            continue
        for repeat in range(max(1, round(seconds * SLIDE_RATE))):
            yield number * seconds + repeat / SLIDE_RATE, picture


def _readable(path: Path) -> bool:
    try:
        photo(path)
    except ImageError as error:
        log.warning("%s; left out", error)
        return False
    return True


def _open(path: str | Path, what: str) -> BinaryIO:
    """A file of any name that the system allows. Raises ImageError, which names it and says why it cannot be read."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path), re.IGNORECASE):
        raise ImageError(
            f"{path}: an address, not a file; save what it gives as a file (ffmpeg -i ADDRESS -t 60 clip.mp4), "
            "or let a camera node publish it"
        )
    place = os.path.expanduser(path)
    if not os.path.isfile(place):
        raise ImageError(f"{path or repr('')}: no such {what}")
    try:
        return open(place, "rb")  # noqa: SIM115
    except OSError as error:
        raise ImageError(f"{path}: this {what} cannot be read: {error.strerror}") from error
