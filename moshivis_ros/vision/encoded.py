"""Encoded pictures (JPEG, PNG, whatever else OpenCV reads), of a file or a sensor_msgs/CompressedImage -> RGB arrays.

| what is given                                                  | what happens                                          |
|----------------------------------------------------------------|-------------------------------------------------------|
| JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000, ...           | decoded where this OpenCV can, turned as EXIF says     |
| 16 bits a sample                                               | 8 bits, as for messages (encodings.to_8_bits)          |
| bytes after the end of a JPEG (a buffer of fixed size)         | left alone                                            |
| a JPEG or PNG without its end                                  | refused, although OpenCV would fill a JPEG with grey   |
| compressedDepth, other depth                                   | refused: numbers without a colour                     |
| more than MAX_PIXELS                                           | refused before memory is taken for it                 |
| float samples, HEIC, anything that OpenCV does not know        | refused by name                                       |
"""

from __future__ import annotations

import re
import struct
from typing import Any

import cv2
import numpy as np

from moshivis_ros.errors import ImageError
from moshivis_ros.vision.encodings import NO_COLOUR, Buffer, Picture, to_8_bits, to_rgb

MAX_PIXELS = 2**27  # 134 million: more than any camera's, and half a gigabyte while it is decoded
_PNG = b"\x89PNG\r\n\x1a\n"
_DEPTH_HEADER = 12  # bytes of parameters that compressed_depth_image_transport puts before its PNG
# The next marker of a JPEG. In the coded picture FF 00 is a byte, and FF D0 to FF D7 only mark a place in it.
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_END, _SIZE = 0xD9, {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PIXELS_PER_BYTE = 512  # at most: a block of 64 pixels takes a bit at least
_KINDS = {  # what a file begins with -> what it is, for errors
    rb"GIF8": "a GIF picture",
    rb".{4}ftypavi[fs]": "an AVIF picture",
    rb".{4}ftyp(hei|hev|mif1|msf1)": "a HEIC picture",
    rb".{4}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI ": "a video",
}


def decode_compressed(data: Buffer, format: str = "") -> Picture:
    """The fields of a sensor_msgs/CompressedImage -> uint8 [height, width, 3] RGB.

    Raises ImageError for depth images and for data that is empty, truncated, too large or no picture.
    """
    # "16UC1; compressedDepth png", "32FC1;compressedDepth rvl", "16UC1; png compressed", or nothing but the PNG's header
    encoding = format.partition(";")[0].strip()
    raw = NO_COLOUR.fullmatch(encoding) and not encoding.startswith("8")
    if raw or "depth" in format.lower() or bytes(data[_DEPTH_HEADER : _DEPTH_HEADER + len(_PNG)]) == _PNG:
        raise ImageError(f"{format!r} is a depth image; connect the colour image of the camera")
    return picture(data, f"a compressed image ({format or 'no format given'}, {len(data)} bytes)")


def picture(data: Buffer, name: str) -> Picture:
    """The bytes of a picture -> uint8 [height, width, 3] RGB. Raises ImageError, which begins with `name`."""
    encoded = np.frombuffer(data, np.uint8)
    if not encoded.size:
        raise ImageError(f"{name}: empty, there is no picture in it")
    head = encoded[:32].tobytes()
    height, width = _size(encoded, head, name)
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"{name}: {width}x{height} pixels are more than the {MAX_PIXELS / 1e6:.0f} million that are read; "
            "make it smaller"
        )
    pixels = _decode(encoded)
    if pixels is None:
        kind = next((kind for pattern, kind in _KINDS.items() if re.match(pattern, head, re.DOTALL)), None)
        what = (
            f"{kind}, damaged or of a kind that this OpenCV cannot read"
            if kind
            else "not a picture, or a damaged one"
        )
        raise ImageError(f"{name}: {what}; give a JPEG or PNG")
    if pixels.dtype == np.uint16:
        pixels = to_8_bits(pixels)
    if pixels.dtype != np.uint8:
        raise ImageError(f"{name}: {pixels.dtype} numbers, which are no colours; give a JPEG or PNG")
    return to_rgb(pixels, cv2.COLOR_BGR2RGB)


def _size(encoded: Picture, head: bytes, name: str) -> tuple[int, int]:
    """(height, width) as the header says, or 0, 0 for a kind whose decoder takes no memory before it has seen the data."""
    if head.startswith(_PNG):
        width, height = struct.unpack_from(">II", head.ljust(24, b"\0"), 16)
        if not _png_ends(encoded):  # OpenCV would first take as much memory as a chunk claims to need
            raise ImageError(f"{name}: truncated, a PNG without its end; copy or send it whole")
    elif head.startswith(b"GIF8"):
        width, height = struct.unpack_from("<HH", head, 6) if len(head) > 9 else (0, 0)
    elif head.startswith(b"\xff\xd8"):
        height, width, end = _jpeg(encoded)
        # OpenCV may fill what is missing with grey and call that a success.
        if not end or height * width > end * _PIXELS_PER_BYTE:
            raise ImageError(f"{name}: truncated, a JPEG without its end; copy or send it whole")
    else:
        height = width = 0
    return height, width


def _png_ends(encoded: Picture) -> bool:
    """Whether every chunk of a PNG is there, to its last."""
    place = len(_PNG)
    while place + 12 <= encoded.size:
        length, kind = struct.unpack_from(">I4s", encoded.data, place)
        place += 12 + length
        if kind == b"IEND":
            return bool(place <= encoded.size)
    return False


def _jpeg(encoded: Picture) -> tuple[int, int, int]:
    """(height, width, where it ends) of a JPEG, whatever follows its end; 0 where the end is missing."""
    height, width, place = 0, 0, 2
    while marker := _MARKER.search(encoded, place):  # type: ignore[call-overload]
        kind, place = marker[1][0], marker.end()
        if kind == _END:
            return height, width, place
        segment = encoded[place : place + 7].tobytes().ljust(7, b"\0")
        if kind in _SIZE:
            height, width = struct.unpack_from(">HH", segment, 3)
        place += int.from_bytes(segment[:2], "big")
    return height, width, 0


def _set_log_level(level: Any) -> Any:
    """Of OpenCV, and what it was. 4.x and 5.x have it in different places, and before 4.5.5 none."""
    places: tuple[Any, ...] = (cv2, getattr(cv2.utils, "logging", None))
    change = next((place.setLogLevel for place in places if hasattr(place, "setLogLevel")), None)
    return level if change is None else change(level)


def _decode(encoded: Picture) -> Any:
    """BGR [height, width, 3] of 8 or 16 bits or of floats, or None. Without OpenCV's own words on stderr: ours say it."""
    level = _set_log_level(0)
    try:
        return cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        return None
    finally:
        _set_log_level(level)
