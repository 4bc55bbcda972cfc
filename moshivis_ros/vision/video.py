"""The frames of a video file, by PyAV (FFmpeg)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from moshivis_ros.errors import ImageError, MissingDependencyError
from moshivis_ros.vision.encoded import MAX_PIXELS
from moshivis_ros.vision.encodings import Picture

try:
    import av
    from av.video.reformatter import VideoReformatter
except ImportError as error:
    raise MissingDependencyError("reading videos needs PyAV, which is not installed: `pip install 'av<19'`") from error

USUAL_RATE = 25  # frames a second, of a video that says nothing about time
FASTEST = 1000  # frames a second that a video may claim for those of its frames that have no time

log = logging.getLogger(__name__)


def frames(file: BinaryIO, name: str) -> Iterator[tuple[float, Picture]]:
    """(seconds from the first frame, RGB picture) of every frame, upright, times rising strictly.

    A frame without a time, or with one that does not rise (raw streams, joined or broken files), comes one frame period
    after the one before. Raises ImageError, which begins with `name`, before the first frame where there is none; frames
    that are damaged are left out, counted and logged at the end. Closes the file.
    """
    frames = _frames(file, name)
    first = next(frames)  # what is wrong with the video is said now, not in the middle of a conversation

    def all_of_them() -> Iterator[tuple[float, Picture]]:
        yield first
        yield from frames

    return all_of_them()


def _frames(file: BinaryIO, name: str) -> Iterator[tuple[float, Picture]]:
    damaged = shown = 0
    time = begin = 0.0
    try:
        # A file may name others to go on with, also over the network: none of them is opened.
        options = {"protocol_whitelist": "none"}
        with file, av.open(file, options=options, metadata_errors="ignore") as container:
            stream = _stream(container, name)
            rate = float(stream.guessed_rate or stream.average_rate or USUAL_RATE)
            to_rgb = VideoReformatter()  # one for all frames: it takes a while to be made
            period = 1 / (rate if 0 < rate <= FASTEST else USUAL_RATE)
            for packet in container.demux(stream):
                try:
                    decoded = packet.decode()
                except av.error.InvalidDataError:
                    damaged += 1
                    continue
                for frame in decoded:
                    if frame.time is not None and not shown:
                        begin = frame.time
                    stamp = None if frame.time is None else frame.time - begin
                    if shown:
                        time = stamp if stamp is not None and stamp > time else time + period
                    shown += 1
                    yield time, _upright(frame, to_rgb)
    except (av.error.FFmpegError, OSError) as error:  # OSError: a header leads to before the beginning of the file
        if not shown:
            raise ImageError(
                f"{name}: not a video that can be read ({error.strerror}); give an MP4 file"
            ) from error
        damaged += 1
    if not shown:
        raise ImageError(f"{name}: none of its frames can be decoded; give an MP4 file with H.264")
    if damaged:
        log.warning("%s: %d parts of the video are damaged; they were left out", name, damaged)


def _stream(container: Any, name: str) -> Any:
    """The video in a file. Raises ImageError if there is none, or none that can be decoded."""
    if not container.streams.video:
        raise ImageError(f"{name}: there is no video in this file")
    stream = container.streams.video[0]
    remedy = "convert it: ffmpeg -i FILE -c:v libx264 FILE.mp4"
    if stream.codec_context is None:
        raise ImageError(f"{name}: a video of a codec that cannot be decoded here; {remedy}")
    if stream.width * stream.height > MAX_PIXELS:
        raise ImageError(f"{name}: a video of {stream.width}x{stream.height} pixels is too large; {remedy}")
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def _upright(frame: Any, to_rgb: Any) -> Picture:
    picture: Picture = to_rgb.reformat(frame, format="rgb24").to_ndarray()  # its rows may be padded
    return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))
