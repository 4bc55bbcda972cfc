"""Pictures.

A file is known by what is in it, not by its name, and may have any name that the system allows. Pictures of 16 bits a sample
are taken for 10, 12, 14 or 16 bits of a sensor: the smallest of these that holds the largest sample is full white.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from case import Case, refused
from test_encodings import QUARTERS, WIDTH, centres, in_encoding, message

from moshivis_ros.vision import sources
from moshivis_ros.vision.encoded import decode_compressed
from moshivis_ros.vision.encodings import decode

HEIGHT = 8
RED = (200, 30, 10)


def flat(height: int = 48, width: int = 64, rgb: tuple[int, int, int] = RED) -> np.ndarray:
    return np.full((height, width, 3), rgb, np.uint8)


def encode(suffix: str, rgb: np.ndarray | None = None) -> bytes:
    return cv2.imencode(suffix, (flat() if rgb is None else rgb)[..., ::-1])[1].tobytes()


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)


def quarters() -> np.ndarray:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for n, colour in enumerate(QUARTERS.values()):
        picture[n // 2 * 4 : (n // 2 + 1) * 4, n % 2 * 6 : (n % 2 + 1) * 6] = colour
    return picture


def file(name: str, data: Callable[[], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data())
        return folder / name

    return make


def is_red(picture: np.ndarray, shape: tuple[int, ...] = (48, 64, 3), near: int = 4) -> None:
    assert picture.shape == shape and picture.dtype == np.uint8
    np.testing.assert_allclose(picture.reshape(-1, 3).astype(int), np.tile(RED, (shape[0] * shape[1], 1)), atol=near)


def red_everywhere(path: Path) -> None:
    """As a file, as a slide show of one, as a message."""
    is_red(sources.photo(path))
    is_red(next(sources.pictures(path, 1.0))[1])
    is_red(decode_compressed(path.read_bytes(), path.suffix[1:]))


def refused_everywhere(*words: str) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        refused(sources.photo, path.name, *words)(path)
        refused(sources.pictures, path.name, *words)(path)
        refused(sources.pictures, "no photos in this folder that can be read")(path.parent)
        refused(decode_compressed, *words)(path.read_bytes())

    return check


def where_opencv_can(kind: str) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        if cv2.haveImageReader(str(path)):
            is_red(sources.photo(path), near=60)  # GIF has 256 colours, and OpenCV takes a fixed choice of them
        else:
            refused(sources.photo, path.name, kind)(path)

    return check


def heic() -> bytes:
    return b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(200)


def avif() -> bytes:
    try:
        return encode(".avif")
    except cv2.error:
        return b"\0\0\0\x18ftypavif\0\0\0\0avifmif1" + bytes(200)


def gif() -> bytes:
    """64 x 48, one colour: every code but the first two is 'the pixel 0', in 2 + 1 bits, with a clear code before each."""
    bits = "".join(f"{code:03b}"[::-1] for _ in range(48 * 64) for code in (4, 0)) + f"{5:03b}"[::-1]
    data = bytes(int(bits[n : n + 8][::-1].zfill(8), 2) for n in range(0, len(bits), 8))
    blocks = b"".join(bytes([len(data[n : n + 255])]) + data[n : n + 255] for n in range(0, len(data), 255))
    head = b"GIF89a" + struct.pack("<HHBBB", 64, 48, 0x91, 0, 0) + bytes(RED) + bytes(9)
    return head + b"," + struct.pack("<HHHHB", 0, 0, 64, 48, 0) + b"\x02" + blocks + b"\0;"


def turned() -> bytes:
    """A JPEG of 80 x 40 whose EXIF says: a quarter turned (orientation 6)."""
    jpeg = encode(".jpg", flat(40, 80))
    tiff = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + b"\0\0\0\0"
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:]


def half(suffix: str, after: bytes = b"") -> Callable[[], bytes]:
    def data() -> bytes:
        whole = encode(suffix, noise())
        return whole[: len(whole) // 2] + after

    return data


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def jpeg_header(width: int, height: int) -> bytes:
    jpeg = bytearray(encode(".jpg"))
    at = jpeg.find(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(jpeg)


def gif_header(width: int, height: int) -> bytes:
    return gif()[:6] + struct.pack("<HH", width, height) + gif()[10:]


def sizes(*headers: Callable[[int, int], bytes]) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        made = []
        for header in headers:
            for width, height in ((40000, 30000), (40000, 40000), (12000, 12000)):
                path = folder / f"{header.__name__}{width}x{height}.png"
                path.write_bytes(header(width, height))
                made.append(path)
        return made

    return make


def too_large(paths: list[Path]) -> None:
    for path in paths:
        for read in (sources.photo, lambda path: decode_compressed(path.read_bytes())):
            refused(read, "million that are read" if "jpeg" not in path.name else "truncated")(path)


def one_pixel(path: Path) -> None:
    assert sources.photo(path).tolist() == [[list(RED)]]
    assert decode(bytes(RED), encoding="rgb8", height=1, width=1, step=3).tolist() == [[list(RED)]]


def sensor(bits: int) -> Callable[[Path], tuple[np.ndarray, Path]]:
    """Grey from black to white in the lowest `bits` of 16: [256] columns and 4 rows, and a PNG of it."""

    def make(folder: Path) -> tuple[np.ndarray, Path]:
        samples = np.tile(np.round(np.linspace(0, 2**bits - 1, 256)).astype(np.uint16), (4, 1))
        cv2.imwrite(str(folder / "grey.png"), samples)
        return samples, folder / "grey.png"

    return make


def as_meant(made: tuple[np.ndarray, Path]) -> None:
    """The column n has the brightness n, whatever the bits."""
    samples, path = made
    meant = np.broadcast_to(np.arange(256)[None, :, None], (4, 256, 3))
    as_message = decode(samples.tobytes(), encoding="mono16", height=4, width=256, step=512)
    big_endian = decode(
        samples.astype(">u2").tobytes(), encoding="mono16", height=4, width=256, step=512, is_bigendian=True
    )
    png = decode_compressed(path.read_bytes(), "mono16; png compressed mono16")
    for picture in (as_message, big_endian, png, sources.photo(path)):
        np.testing.assert_allclose(picture.astype(int), meant, atol=1)


DEPTH_FORMATS = (
    "16UC1; compressedDepth", "16UC1; compressedDepth png", "32FC1; compressedDepth rvl", "16UC1;compressedDepth",
    "; compressedDepth", "compressedDepth", "COMPRESSEDDEPTH", "16UC1; png compressed ", "16UC1", "32FC1; png",
)  # fmt: skip


def depth(folder: Path) -> bytes:
    return bytes(12) + cv2.imencode(".png", np.full((4, 4), 900, np.uint16))[1].tobytes()


def no_depth(data: bytes) -> None:
    for form in DEPTH_FORMATS:
        for sent in (data, data[12:]):
            refused(lambda sent, form=form: decode_compressed(sent, form), "is a depth image", "colour image")(sent)
    for form in ("", "png", "mono16; png"):
        refused(lambda sent, form=form: decode_compressed(sent, form), "is a depth image")(data)
    for form in ("16UC1", "32FC1"):
        refused(
            lambda sent, form=form: decode(sent, encoding=form, height=1, width=1, step=4), form, "depth", "colour image"
        )(b"1234")


def raw(*encodings: str) -> Callable[[Path], list[dict[str, Any]]]:
    def make(folder: Path) -> list[dict[str, Any]]:
        made = [message(in_encoding(quarters(), encoding), encoding) for encoding in encodings]
        return [{**fields, "step": WIDTH} if fields["encoding"].startswith("nv") else fields for fields in made]

    return make


def right_colours(made: list[dict[str, Any]]) -> None:
    for fields in made:
        np.testing.assert_allclose(centres(decode(**fields)), list(QUARTERS.values()), atol=3)


def right_greys(made: list[dict[str, Any]]) -> None:
    for fields in made:
        grey = quarters().mean(axis=2).astype(np.uint8)
        np.testing.assert_array_equal(decode(**fields), np.repeat(grey[..., None], 3, 2))


def padded(folder: Path) -> list[dict[str, Any]]:
    """Rows with 6 bytes of padding."""
    made = []
    for fields in raw("rgb8", "yuv422", "bayer_grbg8")(folder):
        rows = np.frombuffer(fields["data"], np.uint8).reshape(HEIGHT, -1)
        wide = np.pad(rows, ((0, 0), (0, 6)), constant_values=99)
        made.append({**fields, "data": wide.tobytes(), "step": wide.shape[1]})
    return made


def wrong(**changes: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {**raw("rgb8")(folder)[0], **changes}


def decoded(fields: dict[str, Any]) -> np.ndarray:
    return decode(**fields)


NAMES = (b"caf\xe9 \xff.png", b"a b'\"$(ls)*?\\\n.png", ("ä" * 125 + ".png").encode(), b"-out.png", "日本.png".encode())


def names(folder: Path) -> list[Path]:
    made = []
    for name in NAMES:
        path = os.path.join(os.fsencode(folder), name)
        with open(path, "wb") as file:
            file.write(encode(".png"))
        made.append(Path(os.fsdecode(path)))
    deep = folder / ("d" * 200)
    deep.mkdir()
    (deep / ("e" * 150 + ".png")).write_bytes(encode(".png"))
    return [*made, deep / ("e" * 150 + ".png")]


def all_red(paths: list[Path]) -> None:
    for path in paths:
        is_red(sources.photo(path))
        is_red(next(sources.pictures(str(path)))[1])
    assert len(sources.photos(paths[0].parent)) == len(NAMES)


def at_home(folder: Path) -> Path:
    (folder / "red.png").write_bytes(encode(".png"))
    return folder


def from_home(home: Path) -> None:
    before = os.environ["HOME"]
    os.environ["HOME"] = str(home)
    try:
        is_red(sources.photo("~/red.png"))
        is_red(next(sources.pictures("~/red.png"))[1])
        is_red(next(sources.pictures("~"))[1])
    finally:
        os.environ["HOME"] = before


def album(folder: Path) -> Path:
    (folder / "a.jpg").write_bytes(encode(".jpg"))
    (folder / "b.png").write_bytes(encode(".png"))
    (folder / "._a.jpg").write_bytes(b"\0\x05\x16\x07\0\x02\0\0Mac OS X" + bytes(100))
    (folder / ".hidden.png").write_bytes(encode(".png"))
    (folder / "notes.txt").write_text("not a photo")
    return folder


def album_with_a_bad_one(folder: Path) -> Path:
    (album(folder) / "aa.jpg").write_bytes(half(".jpg")())
    return folder


def two_slides(folder: Path) -> None:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    sources.log.addHandler(handler)
    try:
        shown = list(sources.pictures(folder, 0.4))
    finally:
        sources.log.removeHandler(handler)
    assert [round(time, 3) for time, _ in shown] == [0, 0.2, 0.4, 0.6]
    for _, picture in shown:
        is_red(picture)
    bad = [path.name for path in folder.glob("aa.*")]
    assert len(said) == len(bad) and all(name in line and "truncated" in line for name, line in zip(bad, said))


BOTH, FILE, MESSAGE = ("file", "message"), ("file",), ("message",)

CASES = [
    *(
        Case(kind, BOTH, "read", "RGB of 8 bits", file(f"a{suffix}", lambda s=suffix: encode(s)), red_everywhere)
        for kind, suffix in (
            ("JPEG", ".jpg"), ("PNG", ".png"), ("WebP", ".webp"), ("TIFF", ".tiff"), ("BMP", ".bmp"), ("JPEG 2000", ".jp2"),
        )
    ),
    Case("AVIF", BOTH, "read", "where the installed OpenCV can, otherwise refused by name", file("a.avif", avif),
         where_opencv_can("AVIF")),
    Case("GIF", BOTH, "read", "its first picture, where the installed OpenCV can, otherwise refused by name; as a video it is "
         "played", file("a.gif", gif), where_opencv_can("GIF")),
    Case("HEIC", BOTH, "refused", "named as HEIC: give a JPEG or PNG", file("a.heic", heic), refused_everywhere("HEIC", "JPEG")),
    Case("a photo that its EXIF turns", BOTH, "converted", "turned upright", file("a.jpg", turned),
         lambda path: is_red(sources.photo(path), (80, 40, 3))),
    Case("a JPEG in a buffer of fixed size: zero bytes after its end", BOTH, "read", "what follows the end is left alone",
         file("a.jpg", lambda: encode(".jpg") + bytes(100_000)), red_everywhere),
    Case("a JPEG with another file behind it (moving photos of phones)", BOTH, "read", "the JPEG",
         file("a.jpg", lambda: encode(".jpg") + b"\0\0\0\x18ftypmp42" + noise().tobytes()), red_everywhere),
    Case("a JPEG cut short", BOTH, "refused", "named as truncated, whether file, slide or message",
         file("a.jpg", half(".jpg")), refused_everywhere("truncated")),
    Case("a JPEG cut short in a buffer of fixed size", BOTH, "refused", "the same", file("a.jpg", half(".jpg", bytes(9999))),
         refused_everywhere("truncated")),
    Case("a PNG cut short", BOTH, "refused", "the same", file("a.png", half(".png")), refused_everywhere("truncated")),
    Case("a file that is empty", BOTH, "refused", "named as empty", file("a.png", lambda: b""), refused_everywhere("empty")),
    Case("a file of another kind", BOTH, "refused", "named, with what can be given", file("a.png", lambda: b"text" * 99),
         refused_everywhere("not a picture", "JPEG or PNG")),
    Case("a video in place of a picture", FILE, "refused", "named as a video",
         file("a.png", lambda: b"\0\0\0\x18ftypmp42" + bytes(99)), refused_everywhere("a video")),
    *(
        Case(f"grey of {bits} bits in 16", BOTH, "converted", "as bright as its largest sample allows (see above)",
             sensor(bits), as_meant)
        for bits in (10, 12, 14, 16)
    ),
    Case("depth, raw or compressed, in every form of the format string", MESSAGE, "refused",
         "named as depth: connect the colour image", depth, no_depth),
    Case("rgb8, bgr8, rgba8, bgra8 and their 16 bit forms", MESSAGE, "converted", "alpha is dropped",
         raw("rgb8", "bgr8", "rgba8", "bgra8", "rgb16", "bgra16"), right_colours),
    Case("mono8, mono16", MESSAGE, "converted", "three equal colours", raw("mono8", "mono16"), right_greys),
    Case("Bayer patterns of 8 and 16 bits", MESSAGE, "converted", "demosaiced",
         raw(*(f"bayer_{p}{bits}" for p in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16))), right_colours),
    Case("yuv422, uyvy, yuv422_yuy2, yuyv, nv12, nv21", MESSAGE, "converted", "by BT.601",
         raw("yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21"), right_colours),
    Case("rows with padding", MESSAGE, "read", "without it", padded, right_colours),
    Case("data that do not match height, width and step", MESSAGE, "refused", "with the numbers", wrong(data=b"x" * 287),
         refused(decoded, "287 bytes", "8 rows of 36")),
    Case("an unknown encoding", MESSAGE, "refused", "named, with those that are known", wrong(encoding="hologram"),
         refused(decoded, "'hologram'", "rgb8")),
    Case("an image of no pixels", MESSAGE, "refused", "named as empty", wrong(width=0), refused(decoded, "empty")),
    Case("one pixel", BOTH, "read", "like any other", file("a.png", lambda: encode(".png", flat(1, 1))), one_pixel),
    Case("more than 134 million pixels, or a header that says so", BOTH, "refused",
         "with the size, before memory is taken; a JPEG that is too short for its size as truncated",
         sizes(png_header, jpeg_header, gif_header), too_large),
    Case("names of any bytes: not UTF-8, spaces, quotes, 254 bytes, a path of 350", FILE, "read", "like any other", names,
         all_red),
    Case("a name that begins with `~`", FILE, "read", "from the home folder", at_home, from_home),
    Case("a name that is too long for the system, or is not there, or is a folder", FILE, "refused", "no such picture",
         lambda folder: folder,
         lambda folder: [refused(sources.photo, "no such picture")(folder / n) for n in ("n" * 300, "x.png", "")]),
    Case("a folder of photos", FILE, "read", "in the order of names; hidden files and Apple's `._` files are skipped", album,
         two_slides),
    Case("a folder in which a photo cannot be read", FILE, "read",
         "all are read before the conversation begins; that one is named and left out", album_with_a_bad_one, two_slides),
    Case("a folder without photos", FILE, "refused", "named, with the kinds that count", lambda folder: folder,
         refused(sources.pictures, "no photos in this folder", ".jpg")),
]  # fmt: skip
