"""The pictures that camera drivers send (sensor_msgs/Image) -> RGB arrays. Compressed ones: encoded.py.

cv_bridge converts where ROS has it; it does not exist for pip, so everywhere else OpenCV is called here, and always for
the YUV forms, most of which only newer versions of cv_bridge know. What is refused is decided here in both cases, and a
test compares them.

| encoding                                                       | behaviour                                           |
|----------------------------------------------------------------|-----------------------------------------------------|
| rgb8 bgr8 rgba8 bgra8 mono8                                     | converted; alpha is dropped                         |
| rgb16 bgr16 rgba16 bgra16 mono16                                | scaled to 8 bits by what they hold (to_8_bits)      |
| bayer_rggb8 bayer_bggr8 bayer_gbrg8 bayer_grbg8, ...16          | demosaiced                                          |
| yuv422 uyvy (U Y V Y), yuv422_yuy2 yuyv (Y U Y V), nv12, nv21   | converted (BT.601)                                  |
| 8UC3, 16UC1, 32FC1, ...                                         | refused: numbers without a colour (depth, raw data) |
| anything else                                                   | refused by name                                     |
| rows with padding, big-endian 16 bit                            | handled                                             |
| empty image, data that does not match height, width and step    | refused                                             |
"""

from __future__ import annotations

import re
from importlib import import_module
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from moshivis_ros.errors import ImageError, MissingDependencyError

try:
    import cv2
except ImportError as error:
    raise MissingDependencyError(
        "pictures need OpenCV, which is not installed: `pip install opencv-python-headless`"
    ) from error
try:
    import_module("cv_bridge.boost.cv_bridge_boost")  # its compiled half: packages of pip lack it
    from cv_bridge import CvBridge
except ImportError:
    CvBridge = None

Picture: TypeAlias = NDArray[np.uint8]  # [height, width, 3], RGB
Buffer: TypeAlias = bytes | bytearray | memoryview

# encoding -> (channels as stored, OpenCV conversion to RGB or None)
_COLOUR: dict[str, tuple[int, int | None]] = {
    "rgb": (3, None),
    "bgr": (3, cv2.COLOR_BGR2RGB),
    "rgba": (4, cv2.COLOR_RGBA2RGB),
    "bgra": (4, cv2.COLOR_BGRA2RGB),
    "mono": (1, cv2.COLOR_GRAY2RGB),
    # OpenCV names a pattern by the second row, from its second column: ROS's rggb is OpenCV's BG.
    "bayer_rggb": (1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr": (1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg": (1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg": (1, cv2.COLOR_BayerGB2RGB),
}
_YUV422 = {
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUYV,
    "yuyv": cv2.COLOR_YUV2RGB_YUYV,
}
_YUV420 = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}
NO_COLOUR = re.compile(r"(8U|8S|16U|16S|32S|32F|64F)C\d*")


def decode(
    data: Buffer, *, encoding: str, height: int, width: int, step: int, is_bigendian: bool = False
) -> Picture:
    """The fields of a sensor_msgs/Image -> uint8 [height, width, 3] RGB, which may share memory with `data`.

    Raises ImageError for an encoding, a size or data that cannot be used, and says which.
    """
    if not height or not width:
        raise ImageError(f"an empty image of {width}x{height} pixels; check the camera driver")
    if encoding in _YUV420:
        if height % 2 or width % 2:
            raise ImageError(f"{encoding} needs an even width and height, not {width}x{height}")
        rows = _rows(data, height * 3 // 2, width, step, encoding)
        return to_rgb(rows, _YUV420[encoding])
    if encoding in _YUV422:
        if width % 2:
            raise ImageError(f"{encoding} needs an even width, not {width}")
        rows = _rows(data, height, width * 2, step, encoding)
        return to_rgb(rows.reshape(height, width, 2), _YUV422[encoding])
    name, bits = encoding.rstrip("0123456789"), encoding.lstrip("abcdefghijklmnopqrstuvwxyz_")
    if name not in _COLOUR or bits not in ("8", "16"):
        raise ImageError(_refusal(encoding))
    if name.startswith("bayer") and min(height, width) < 3:
        raise ImageError(f"a {encoding} image of {width}x{height} pixels is too small to be demosaiced")
    channels = _COLOUR[name][0]
    samples: NDArray[np.uint8] = _rows(data, height, width * channels * int(bits) // 8, step, encoding)
    if bits == "16":
        wide: NDArray[Any] = samples.view(">u2" if is_bigendian else "<u2").reshape(height, width, channels)
        if channels == 4:  # alpha is dropped already here: it says nothing about what the colours hold
            name, channels, wide = name[:3], 3, wide[..., :3]
        samples = to_8_bits(wide.astype(np.uint16)).reshape(height, -1)
    if CvBridge:
        return _bridged(samples, f"{name}8", width)
    pixels = samples.reshape((height, width) if channels == 1 else (height, width, channels))
    conversion = _COLOUR[name][1]
    return pixels if conversion is None else to_rgb(pixels, conversion)


def to_8_bits(samples: NDArray[np.uint16]) -> Picture:
    """Samples of 16 bits -> of 8, of the same shape.

    A sensor gives 10, 12, 14 or 16 bits, in the lower ones, and no message says how many. So the smallest of these that
    holds the largest sample is full white: a 12 bit picture that is not all dark is as bright as it was meant.
    """
    bits = max(10, int(samples.max()).bit_length())
    bits += bits % 2
    scaled = cv2.convertScaleAbs(samples, alpha=255 / (2**bits - 1))
    return np.asarray(scaled, np.uint8).reshape(samples.shape)


def to_rgb(pixels: NDArray[Any], conversion: int) -> Picture:
    return np.asarray(cv2.cvtColor(pixels, conversion), np.uint8)  # OpenCV's stubs promise no type


def _rows(data: Buffer, rows: int, row_bytes: int, step: int, encoding: str) -> Picture:
    """uint8 [rows, row_bytes]: the rows of the buffer without their padding, contiguous."""
    size = len(data)
    if step < row_bytes:
        raise ImageError(
            f"rows of {step} bytes (step) are too short: a row of {encoding} has {row_bytes} here"
        )
    if size != rows * step:
        raise ImageError(
            f"{size} bytes of {encoding} do not match the image's size: {rows} rows of {step} bytes are {rows * step}"
        )
    return np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(rows, step)[:, :row_bytes])


def _bridged(rows: Picture, encoding: str, width: int) -> Picture:
    """uint8 [height, row_bytes] -> RGB, by cv_bridge.

    Without padding, because cv_bridge shears rows whose padding is no multiple of a pixel, and with 8 bits a sample.
    """
    message = SimpleNamespace(
        data=rows.tobytes(),
        encoding=encoding,
        height=len(rows),
        width=width,
        step=rows.shape[1],
        is_bigendian=False,
    )
    return np.asarray(CvBridge().imgmsg_to_cv2(message, "rgb8"), np.uint8)


def _refusal(encoding: str) -> str:
    if NO_COLOUR.fullmatch(encoding):
        return (
            f"image encoding {encoding!r} says nothing about colours (depth or raw numbers); "
            "connect a colour image such as rgb8, bgr8 or jpeg"
        )
    return (
        f"unknown image encoding {encoding!r}; use one of rgb8, bgr8, rgba8, bgra8, mono8, their 16 bit forms, "
        f"bayer_*8, bayer_*16, {', '.join([*_YUV422, *_YUV420])}, or a compressed image"
    )
