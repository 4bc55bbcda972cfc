"""Videos.

Read by FFmpeg as PyAV brings it. The times of the pictures rise strictly, from 0: a picture without a time, or with one that
does not rise, comes one frame period after the one before.
"""

from __future__ import annotations

import io
import logging
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from case import Case, refused

from moshivis_ros.vision import sources

FRAMES, RATE, STEP = 20, 10, 10  # picture n has the red value STEP * n


def clip(kind: str, codec: str, times: tuple[int, ...] = tuple(range(FRAMES)), pixels: str = "yuv420p") -> bytes:
    """A video of 60 x 44, whose rows FFmpeg pads; `times` in frames, for each picture."""
    data = io.BytesIO()
    with same_priority(), av.open(data, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=RATE, options={"x265-params": "log-level=0"})
        stream.width, stream.height, stream.pix_fmt = 60, 44, pixels
        for n, time in enumerate(times):
            picture = np.full((44, 60, 3), (STEP * n, 100, 50), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return data.getvalue()


@contextmanager
def same_priority() -> Iterator[None]:
    """SVT-AV1 gives whoever calls it the highest real-time priority where it may, and all programs started after that."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def saved(name: str, data: Callable[[], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data())
        return folder / name

    return make


def plays(
    times: tuple[float, ...] = tuple(n / RATE for n in range(FRAMES)), shape: tuple[int, ...] = (44, 60, 3), near: int = 9
) -> Callable[[Path], None]:
    """Every picture comes once, with its colour, at its time (in seconds)."""

    def check(path: Path) -> None:
        shown = list(sources.pictures(path))
        np.testing.assert_allclose([time for time, _ in shown], times, atol=0.002)
        for n, (_, picture) in enumerate(shown):
            assert picture.shape == shape and picture.dtype == np.uint8 and picture.flags.c_contiguous
            np.testing.assert_allclose(picture[10, 20].astype(int), (STEP * (n % FRAMES), 100, 50), atol=near)

    return check


VARIABLE = (0, 1, 2, 5, 6, 30, 31)


def turned() -> bytes:
    """An MP4 of 64 x 48 whose header says: turn it by a quarter to the right; its upper left corner is white."""
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[:16, :16] = 255
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    mp4 = bytearray(data.getvalue())
    matrix = mp4.find(b"tkhd") + 4 + 40
    one = 1 << 16
    mp4[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 48 * one, 0, 1 << 30)
    return bytes(mp4)


def upright(path: Path) -> None:
    ((_, picture),) = sources.pictures(path)
    assert picture.shape == (64, 48, 3)
    assert picture[4, 44].min() > 240 and picture[4, 4].max() < 15 and picture[60, 44].max() < 15


def unknown_codec(kind: str, codec: str, name: bytes) -> Callable[[], bytes]:
    return lambda: clip(kind, codec).replace(name, b"QQQQ")


def cut(kind: str, codec: str) -> Callable[[], bytes]:
    def data() -> bytes:
        whole = clip(kind, codec)
        return whole[: len(whole) * 3 // 4]

    return data


def begins_well(path: Path) -> None:
    shown = list(sources.pictures(path))
    assert 8 < len(shown) < FRAMES
    np.testing.assert_allclose([time for time, _ in shown], [n / RATE for n in range(len(shown))], atol=0.002)
    np.testing.assert_allclose(shown[5][1][10, 20], (5 * STEP, 100, 50), atol=9)


def scratched() -> bytes:
    """MPEG-TS with noise in the middle."""
    data = bytearray(clip("mpegts", "mpeg2video"))
    middle = len(data) // 2 // 188 * 188
    data[middle : middle + 188] = np.random.default_rng(0).integers(0, 255, 188, np.uint8).tobytes()
    return bytes(data)


def goes_on(path: Path) -> None:
    shown = list(sources.pictures(path))
    times = [time for time, _ in shown]
    assert len(shown) >= FRAMES - 4 and times == sorted(set(times)) and times[-1] <= (FRAMES + 1) / RATE
    np.testing.assert_allclose(shown[-1][1][10, 20], (STEP * (FRAMES - 1), 100, 50), atol=9)


def sound_only() -> bytes:
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=24000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 24000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return data.getvalue()


def large() -> bytes:
    """An AVI whose header says 12000 x 12000."""
    avi = bytearray(clip("avi", "rawvideo", pixels="bgr24"))
    at = avi.find(b"strf") + 8 + 4
    avi[at : at + 8] = struct.pack("<ii", 12000, 12000)
    return bytes(avi)


def list_of_others(folder: Path) -> Path:
    """It would be looked for over the network."""
    path = folder / "list.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://192.0.2.1/x.ts\n#EXT-X-ENDLIST\n")
    return path


ADDRESSES = ("rtsp://camera.local/live", "http://192.0.2.1/a.mp4", "HTTPS://a.b/c.jpg", "file:///tmp/a.mp4", "udp://@:1234")


def addresses_are_named(folder: Path) -> None:
    for address in ADDRESSES:
        refused(sources.pictures, address, "an address, not a file", "ffmpeg")(address)
        refused(sources.photo, address, "an address, not a file")(address)


def names(folder: Path) -> list[Path]:
    data = clip("mp4", "libx264")
    made = []
    for name in (b"caf\xe9 \xff.mp4", b"a %d 'b'.mp4", b"v%03d.avi", ("ä" * 125 + ".mp4").encode(), b"concat:a|b.mp4"):
        path = os.path.join(os.fsencode(folder), name)
        with open(path, "wb") as file:
            file.write(data)
        made.append(Path(os.fsdecode(path)))
    return made


def silently(check: Callable[[Path], None], *words: str) -> Callable[[Path], None]:
    """The check, and what is logged has all of the words (nothing at all, if there are none)."""

    def checked(path: Path) -> None:
        said: list[str] = []
        log, handler = logging.getLogger("moshivis_ros.vision.video"), logging.Handler()
        handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
        log.addHandler(handler)
        try:
            check(path)
        finally:
            log.removeHandler(handler)
        assert all(word in " ".join(said) for word in words) and (words or not said), said

    return checked


FILE = ("file",)

CASES = [
    *(
        Case(what, FILE, "read", "every picture at its time", saved(f"a.{kind}", lambda k=kind, c=codec: clip(k, c)),
             silently(plays()))
        for what, kind, codec in (
            ("MP4 with H.264", "mp4", "libx264"), ("Matroska with H.265", "matroska", "libx265"),
            ("WebM with VP9", "webm", "libvpx-vp9"), ("MP4 with AV1", "mp4", "libsvtav1"), ("AVI with MPEG-4", "avi", "mpeg4"),
            ("MPEG-TS with H.264", "mpegts", "libx264"),
        )
    ),
    Case("Motion JPEG in AVI", FILE, "read", "the same", saved("a.avi", lambda: clip("avi", "mjpeg", pixels="yuvj420p")),
         silently(plays())),
    Case("GIF that moves", FILE, "read", "played", saved("a.gif", lambda: clip("gif", "gif", pixels="rgb8")),
         plays(near=60)),
    Case("variable frame rate", FILE, "read", "every picture at its own time",
         saved("a.mkv", lambda: clip("matroska", "libx264", VARIABLE)), silently(plays(tuple(t / RATE for t in VARIABLE)))),
    Case("a video that its header turns (phones)", FILE, "converted", "turned upright", saved("a.mp4", turned), upright),
    Case("a raw stream without times (H.264, H.265)", FILE, "read", "at the frame rate that the stream names, or else 25",
         saved("a.h264", lambda: clip("h264", "libx264")), silently(plays())),
    Case("two recordings joined end to end, so that times begin again", FILE, "read", "one after the other",
         saved("a.ts", lambda: clip("mpegts", "mpeg2video") * 2),
         plays(tuple(n / RATE for n in range(2 * FRAMES)))),
    Case("a codec that cannot be decoded", FILE, "refused", "named, with the command that converts it",
         saved("a.avi", unknown_codec("avi", "mpeg4", b"FMP4")), refused(sources.pictures, "a.avi", "codec", "libx264")),
    Case("an MP4 cut short: its index is at the end", FILE, "refused", "named as not readable", saved("a.mp4", cut("mp4", "libx264")),
         refused(sources.pictures, "a.mp4", "not a video that can be read")),
    Case("another video cut short", FILE, "read", "as far as it goes", saved("a.ts", cut("mpegts", "mpeg2video")), begins_well),
    Case("a video with damaged parts", FILE, "read", "without them; how many is said at its end", saved("a.ts", scratched),
         goes_on),
    Case("a file without a video in it", FILE, "refused", "named so", saved("a.mp4", sound_only),
         refused(sources.pictures, "a.mp4", "no video in this file")),
    Case("more than 134 million pixels", FILE, "refused", "with the size", saved("a.avi", large),
         refused(sources.pictures, "a.avi", "12000x12000", "too large")),
    Case("a play list, or another file that names files", FILE, "refused", "they are not opened", list_of_others,
         refused(sources.pictures, "list.m3u8", "not a video")),
    Case("the address of a stream (rtsp, http, ...)", FILE, "refused", "as what it is: record it, or run a camera node",
         lambda folder: folder, addresses_are_named),
    Case("names of any bytes, also those that mean something to FFmpeg (`%03d`, `concat:`)", FILE, "read", "like any other",
         names, lambda paths: [plays()(path) for path in paths]),
    Case("a name that is not there", FILE, "refused", "no such video", lambda folder: folder / "a.mp4",
         refused(sources.pictures, "a.mp4", "no such video")),
    Case("an empty name", FILE, "refused", "no such video", lambda folder: "", refused(sources.pictures, "''", "no such video")),
]  # fmt: skip
