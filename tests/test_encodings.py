"""vision.encodings: what camera drivers send becomes the right colours, or is refused by name."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from moshivis_ros.errors import ImageError
from moshivis_ros.vision import encodings
from moshivis_ros.vision.encoded import decode_compressed
from moshivis_ros.vision.encodings import decode

HEIGHT, WIDTH = 8, 12
# Four flat quarters: chroma subsampling and demosaicing keep their middles.
QUARTERS = {"red": (200, 30, 20), "green": (20, 180, 40), "blue": (10, 40, 210), "grey": (120, 120, 120)}


@pytest.fixture
def picture() -> np.ndarray:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    h, w = HEIGHT // 2, WIDTH // 2
    for n, colour in enumerate(QUARTERS.values()):
        image[n // 2 * h : (n // 2 + 1) * h, n % 2 * w : (n % 2 + 1) * w] = colour
    return image


def centres(image: np.ndarray) -> np.ndarray:
    return image[[2, 2, 5, 5], [3, 8, 3, 8]].astype(int)


def message(pixels: np.ndarray, encoding: str, **fields: object) -> dict[str, object]:
    rows = np.ascontiguousarray(pixels).reshape(HEIGHT, -1).view(np.uint8)
    return {
        "data": rows.tobytes(), "encoding": encoding, "height": HEIGHT, "width": WIDTH, "step": rows.shape[1],
        **fields,
    }  # fmt: skip


def bayer(picture: np.ndarray, pattern: str) -> np.ndarray:
    """The mosaic a sensor with this pattern (of the upper left 2 x 2 pixels) would give."""
    mosaic = np.empty((HEIGHT, WIDTH), np.uint8)
    for n, letter in enumerate(pattern):
        mosaic[n // 2 :: 2, n % 2 :: 2] = picture[n // 2 :: 2, n % 2 :: 2, "rgb".index(letter)]
    return mosaic


def yuv(picture: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3]: Y, U, V by BT.601, studio range."""
    r, g, b = picture.astype(float).transpose(2, 0, 1)
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u = 128 - 0.148 * r - 0.291 * g + 0.439 * b
    v = 128 + 0.439 * r - 0.368 * g - 0.071 * b
    return np.rint(np.stack([y, u, v], -1)).astype(np.uint8)


def in_encoding(picture: np.ndarray, encoding: str) -> np.ndarray:
    y, u, v = yuv(picture).transpose(2, 0, 1)
    alpha = np.full((HEIGHT, WIDTH, 1), 7, np.uint8)
    grey = picture.mean(axis=2).astype(np.uint8)
    chroma = np.stack([u[::2, ::2], v[::2, ::2]], -1)
    luma = y.reshape(-1)
    return {
        "rgb8": picture,
        "bgr8": picture[..., ::-1],
        "rgba8": np.concatenate([picture, alpha], 2),
        "bgra8": np.concatenate([picture[..., ::-1], alpha], 2),
        "mono8": grey,
        "rgb16": picture.astype("<u2") * 257,
        "bgra16": np.concatenate([picture[..., ::-1], alpha], 2).astype("<u2") * 257,
        "mono16": grey.astype("<u2") * 257,
        "yuv422": np.stack([np.where(np.arange(WIDTH) % 2, v, u), y], -1),
        "uyvy": np.stack([np.where(np.arange(WIDTH) % 2, v, u), y], -1),
        "yuv422_yuy2": np.stack([y, np.where(np.arange(WIDTH) % 2, v, u)], -1),
        "yuyv": np.stack([y, np.where(np.arange(WIDTH) % 2, v, u)], -1),
        "nv12": np.concatenate([luma, chroma.reshape(-1)]),
        "nv21": np.concatenate([luma, chroma[..., ::-1].reshape(-1)]),
        **{f"bayer_{pattern}8": bayer(picture, pattern) for pattern in ("rggb", "bggr", "gbrg", "grbg")},
        **{f"bayer_{p}16": bayer(picture, p).astype("<u2") * 257 for p in ("rggb", "bggr", "gbrg", "grbg")},
    }[encoding]


EXACT = ["rgb8", "bgr8", "rgba8", "bgra8", "rgb16", "bgra16"]
NEAR = ["yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21"]
BAYER = [f"bayer_{pattern}{bits}" for pattern in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)]


@pytest.mark.parametrize("encoding", EXACT + NEAR + BAYER)
def test_every_encoding_gives_the_same_colours(picture: np.ndarray, encoding: str) -> None:
    fields = message(in_encoding(picture, encoding), encoding)
    if encoding.startswith("nv"):
        fields["step"] = WIDTH
    image = decode(**fields)
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8
    if encoding in EXACT:
        np.testing.assert_array_equal(image, picture)
    else:
        np.testing.assert_allclose(centres(image), list(QUARTERS.values()), atol=3)


@pytest.mark.parametrize("encoding", ["mono8", "mono16"])
def test_grey_pictures(picture: np.ndarray, encoding: str) -> None:
    image = decode(**message(in_encoding(picture, encoding), encoding))
    np.testing.assert_array_equal(image, np.repeat(in_encoding(picture, "mono8")[..., None], 3, 2))


@pytest.mark.parametrize("encoding", ["rgb8", "mono16", "yuv422", "bayer_grbg8"])
def test_rows_with_padding(picture: np.ndarray, encoding: str) -> None:
    plain = message(in_encoding(picture, encoding), encoding)
    rows = np.frombuffer(plain["data"], np.uint8).reshape(HEIGHT, -1)
    padded = np.pad(rows, ((0, 0), (0, 6)), constant_values=99)
    np.testing.assert_array_equal(
        decode(**{**plain, "data": padded.tobytes(), "step": padded.shape[1]}), decode(**plain)
    )


def test_big_endian(picture: np.ndarray) -> None:
    pixels = picture.astype(">u2") * 256 + np.uint16(11)
    image = decode(**message(pixels.astype(">u2"), "rgb16", is_bigendian=True))
    np.testing.assert_allclose(image, picture, atol=1)


def test_jpeg_and_png(picture: np.ndarray) -> None:
    png = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(decode_compressed(png, "rgb8; png compressed bgr8"), picture)
    large = np.kron(picture, np.ones((8, 8, 1), np.uint8))
    jpeg = cv2.imencode(".jpg", large[..., ::-1])[1].tobytes()
    np.testing.assert_allclose(decode_compressed(jpeg, "jpeg")[20::24, 28::40][:, :2].reshape(-1, 3)[0],
                               QUARTERS["red"], atol=8)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 0}, "empty"),
        ({"data": b""}, "0 bytes of rgb8"),
        ({"data": b"x" * 287}, "287 bytes of rgb8 do not match"),
        ({"data": b"x" * 300}, "300 bytes of rgb8 do not match"),
        ({"step": 35}, "too short"),
        ({"step": 0}, "too short"),
        ({"encoding": "rgb9"}, "'rgb9'"),
        ({"encoding": ""}, "unknown image encoding ''"),
        ({"encoding": "hologram"}, "unknown image encoding 'hologram'"),
        ({"encoding": "16UC1"}, "depth"),
        ({"encoding": "32FC1"}, "depth"),
        ({"encoding": "8UC3"}, "says nothing about colours"),
        ({"encoding": "yuyv", "width": 11}, "even width"),
        ({"encoding": "nv12", "height": 7}, "even width and height"),
        ({"encoding": "bayer_rggb8", "height": 1, "width": 1, "step": 1, "data": b"x"}, "too small"),
    ],
)
def test_refusals_name_the_thing(picture: np.ndarray, changes: dict[str, object], words: str) -> None:
    with pytest.raises(ImageError, match=words):
        decode(**{**message(picture, "rgb8"), **changes})


def test_damaged_compressed_pictures_are_refused(picture: np.ndarray) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for suffix in (".jpg", ".png"):
        encoded = cv2.imencode(suffix, noise)[1].tobytes()
        with pytest.raises(ImageError, match="truncated|damaged"):
            decode_compressed(encoded[: len(encoded) // 2], suffix)
    with pytest.raises(ImageError, match="empty"):
        decode_compressed(b"", "jpeg")
    with pytest.raises(ImageError, match="damaged"):
        decode_compressed(b"not a picture at all", "jpeg")
    with pytest.raises(ImageError, match="depth"):
        decode_compressed(b"1234", "16UC1; compressedDepth png")


@pytest.mark.parametrize("encoding", [*EXACT, "mono8", "mono16", *NEAR, *BAYER])
def test_the_same_with_and_without_cv_bridge(
    picture: np.ndarray, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cv_bridge", reason="cv_bridge comes with ROS, not with pip")
    fields = message(in_encoding(picture, encoding), encoding)
    if encoding.startswith("nv"):
        fields["step"] = WIDTH
    theirs = decode(**fields)
    monkeypatch.setattr(encodings, "CvBridge", None)
    np.testing.assert_allclose(decode(**fields).astype(int), theirs.astype(int), atol=1)


def test_cv_bridge_converts_where_it_is(picture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """With rows that have padding, of 16 bits, in the other byte order: it is given none of these."""
    asked = []

    class CvBridge:
        def imgmsg_to_cv2(self, given: Any, desired: str) -> np.ndarray:
            asked.append((given.encoding, given.step, desired))
            return np.frombuffer(given.data, np.uint8).reshape(given.height, given.width, 3)

    monkeypatch.setattr(encodings, "CvBridge", CvBridge)
    wide = (picture.astype(">u2") * 257).astype(">u2").view(np.uint8).reshape(HEIGHT, -1)
    padded = np.pad(wide, ((0, 0), (0, 5)))
    image = decode(**message(padded, "rgb16", is_bigendian=True))
    np.testing.assert_array_equal(image, picture)
    assert asked == [("rgb8", WIDTH * 3, "rgb8")]
