"""Reads changed inputs of every kind for a while: python mutations.py SECONDS FOLDER [KIND ...]. A program of its own, because
what is looked for are crashes of the interpreter, hangs and growth of memory.

Real files and messages are changed, mostly in their headers. Of each, a reader may give what it reads or one of the project's
errors, within CPU_SECONDS, and within ROOM bytes of memory; what all of them leave behind may not be more than GROWTH. The
input that is being read is in the file `last` of the folder.
"""

from __future__ import annotations

import faulthandler
import gc
import io
import json
import logging
import pickle
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import checkpoint_cases
import cv2
import numpy as np
import picture_cases
import soundfile
import video_cases
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from memory import anonymous

from moshivis_ros.audio import files
from moshivis_ros.audio.framing import AudioInput
from moshivis_ros.errors import MoshiVisError
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.weights import stored_type
from moshivis_ros.vision import sources
from moshivis_ros.vision.encoded import decode_compressed
from moshivis_ros.vision.encodings import decode

CPU_SECONDS = 1.0  # of this process, so that other programs do not count
WALL_SECONDS = 120  # without an end at all
ROOM = 2 << 30  # bytes that one input may take: the largest picture that is read takes half
GROWTH = 100 << 20  # bytes that may stay
BATCH = 60  # inputs of a kind in turn
HEADER = 600  # bytes in which most changes are

INTERESTING = [
    value.to_bytes(size, order)
    for size in (1, 2, 4, 8)
    for value in (0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)
    for order in ("little", "big")
]
places = st.one_of(st.integers(0, HEADER), st.integers(0, 1 << 22), st.integers(-64, -1))
pieces = st.one_of(st.sampled_from(INTERESTING), st.binary(min_size=1, max_size=8))
edits = st.lists(
    st.tuples(st.sampled_from(["set", "insert", "delete", "repeat", "cut", "pad", "flip"]), places, pieces), max_size=5
)


def mutate(data: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    changed = bytearray(data)
    for kind, place, piece in changes:
        at = place % (len(changed) + 1)
        size = int.from_bytes(piece[:2], "little")
        if kind == "set":
            changed[at : at + len(piece)] = piece
        elif kind == "insert":
            changed[at:at] = piece
        elif kind == "delete":
            del changed[at : at + size]
        elif kind == "repeat":
            changed[at:at] = changed[at : at + size]
        elif kind == "cut":
            del changed[at:]
        elif kind == "pad":
            changed += bytes(size)
        elif at < len(changed):
            changed[at] ^= piece[0]
    return bytes(changed)


@dataclass(frozen=True)
class Kind:
    """`inputs`: real ones. `changed`: for each a strategy of it and others. `read`: what is tried."""

    name: str
    inputs: list[Any]
    changed: Callable[[Any], st.SearchStrategy[Any]]
    read: Callable[[Any], object]


def bytes_of(data: bytes) -> st.SearchStrategy[bytes]:
    return edits.map(lambda changes: mutate(data, changes))


def fields_of(message: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Some fields otherwise, as a driver may have them wrong, and the data changed."""
    numbers = st.one_of(
        st.sampled_from([0, 1, 2, 3, 2**31 - 1, 2**32 - 1, 2**53, 0.5, 44099.7, float("nan"), float("inf")]),
        st.integers(0, 2**32 - 1),
        st.integers(0, 400_000),
    )
    texts = st.one_of(st.text(max_size=12), st.sampled_from(["mono16", "bayer_rggb8", "nv12", "16UC1", "uint8", "float32"]))
    others: dict[str, st.SearchStrategy[Any]] = {}
    for name, value in message.items():
        other = bytes_of(value) if isinstance(value, bytes) else texts if isinstance(value, str) else numbers
        if name in ("height", "width", "step", "channels", "index", "stamp"):  # unsigned whole numbers in every message
            other = other.filter(lambda number: isinstance(number, int))
        others[name] = st.one_of(st.just(value), st.just(value), other)
    return st.fixed_dictionaries(others)


def file(folder: Path, name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    path = folder / name

    def written(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return written


def sounds() -> Iterator[bytes]:
    tone = (0.3 * np.sin(np.arange(4800) / 8)).astype(np.float32)
    for kind, coding in (
        ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "ULAW"), ("WAV", "FLOAT"), ("RF64", "PCM_16"), ("AIFF", "PCM_16"),
        ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"),
    ):  # fmt: skip
        data = io.BytesIO()
        soundfile.write(data, np.stack([tone, tone], 1), 48000, coding, format=kind)
        yield data.getvalue()


def pictures() -> Iterator[bytes]:
    picture = cv2.resize(picture_cases.noise(), (320, 240))
    yield from (picture_cases.encode(suffix, picture) for suffix in (".jpg", ".png", ".webp", ".tiff", ".bmp", ".jp2"))
    yield from (picture_cases.gif(), picture_cases.turned(), picture_cases.avif(), picture_cases.heic())
    yield cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    yield cv2.imencode(".png", picture[..., 0].astype(np.uint16) << 4)[1].tobytes()


def videos() -> Iterator[bytes]:
    for kind, codec in (
        ("mp4", "libx264"), ("avi", "mpeg4"), ("matroska", "libvpx-vp9"), ("mpegts", "mpeg2video"), ("h264", "libx264"),
    ):  # fmt: skip
        yield video_cases.clip(kind, codec)
    yield video_cases.clip("gif", "gif", pixels="rgb8")
    yield video_cases.turned()


def hear(message: dict[str, Any]) -> object:
    return AudioInput().push(**message)


def kinds(folder: Path) -> list[Kind]:
    tone = (np.sin(np.arange(960) / 8) * 9000).astype("<i2").tobytes()
    heard = {"data": tone, "sample_rate": 48000, "channels": 2, "sample_format": "int16", "index": 3, "stamp": 10**18}
    tiny = checkpoint_cases.tiny()
    index = json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}).encode()
    configs = [(tiny / "config.yaml").read_bytes(), (Path(__file__).parents[1] / "golden/tiny_a/config.yaml").read_bytes()]

    def config(path: Path) -> object:
        return ModelConfig.load(path.parent)

    def checkpoint(path: Path) -> object:
        return stored_type(path)

    def shards(path: Path) -> object:
        return stored_type(path.with_name("model.safetensors"))

    own = folder / "sharded"
    own.mkdir(exist_ok=True)
    return [
        Kind("recordings", list(sounds()), bytes_of, file(folder, "a.wav", files.read)),
        Kind("sound messages", [heard], fields_of, hear),
        Kind("photos", list(pictures()), bytes_of, file(folder, "a.jpg", sources.photo)),
        Kind("videos", list(videos()), bytes_of, file(folder, "a.mp4", lambda path: len(list(sources.video(path))))),
        Kind("compressed pictures", [{"data": data, "format": "jpeg"} for data in pictures()], fields_of,
             lambda message: decode_compressed(**message)),
        Kind("pictures", picture_cases.raw("rgb8", "mono16", "bayer_grbg8", "yuyv", "nv12", "bgra16")(folder), fields_of,
             lambda message: decode(**message)),
        Kind("configurations", configs, bytes_of, file(folder, "config.yaml", config)),
        Kind("checkpoints", [(tiny / "model.safetensors").read_bytes()[:40_000]], bytes_of,
             file(folder, "a.safetensors", checkpoint)),
        Kind("shards", [index], bytes_of, file(own, "model.safetensors.index.json", shards)),
    ]  # fmt: skip


def attempt(kind: Kind, given_input: Any, last: Path) -> None:
    last.write_bytes(pickle.dumps((kind.name, given_input)))
    faulthandler.dump_traceback_later(WALL_SECONDS, exit=True)
    start = time.process_time()
    try:
        kind.read(given_input)
    except MoshiVisError:
        pass
    finally:
        faulthandler.cancel_dump_traceback_later()
    took = time.process_time() - start
    assert took < CPU_SECONDS, f"{took:.1f} s for one of the {kind.name}"


def batch(kind: Kind, turn: int, last: Path) -> None:
    """Other inputs in every turn, the same in every run. One that fails is made as small as it can be, and shown."""

    @seed(turn)
    @settings(
        max_examples=BATCH, deadline=None, database=None, phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(changed=st.sampled_from(kind.inputs).flatmap(kind.changed))
    def read(changed: Any) -> None:
        attempt(kind, changed, last)

    read()


def main(seconds: float, folder: Path, names: list[str]) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    faulthandler.enable()
    every = [kind for kind in kinds(folder) if not names or kind.name in names]
    for kind in every:  # so that what is loaded on the first use counts neither as time nor as growth
        for real in kind.inputs:
            try:
                kind.read(real)
            except MoshiVisError:
                pass
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, resource.RLIM_INFINITY))
    end, tried, before = time.monotonic() + seconds, 0, 0
    for turn in count():
        for kind in every:
            batch(kind, turn, folder / "last")
            tried += BATCH
        gc.collect()
        now = anonymous()
        before = before or now
        assert now - before < GROWTH, f"{(now - before) / 1e6:.0f} MB stayed after {tried} inputs"
        if time.monotonic() > end:
            break
    print(f"{tried} inputs, {(now - before) / 1e6:.1f} MB more than after the first {len(every) * BATCH}")


if __name__ == "__main__":
    main(float(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
