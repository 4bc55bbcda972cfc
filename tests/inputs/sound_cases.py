"""Recordings.

Read by FFmpeg as PyAV brings it, in blocks: an hour takes the memory of a minute. All the sound that is there is read, whatever
a header says of its length, and converted to 24 kHz mono. What was mended is said.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from case import Case, Way, refused

from moshivis_ros.audio import SAMPLE_RATE, files

FILE: tuple[Way, ...] = ("file",)
LOW, HIGH = (
    440,
    880,
)  # Hz: the first and the second half of every recording here, so that a lost half is noticed


def tones(rate: int = 44100, seconds: float = 1.0, channels: int = 1) -> np.ndarray:
    """A second of LOW and a second of HIGH, float32 [n, channels]."""
    time = np.arange(round(rate * seconds)) / rate
    both = np.concatenate([np.sin(2 * np.pi * frequency * time) for frequency in (LOW, HIGH)])
    return np.repeat(0.5 * both[:, None], channels, axis=1).astype(np.float32)


def coded(
    kind: str,
    codec: str,
    rate: int = 44100,
    channels: int = 1,
    options: dict[str, str] | None = None,
    title: str = "",
    **of_tones: float,
) -> bytes:
    """The tones as FFmpeg writes them."""
    data = io.BytesIO()
    with av.open(data, "w", format=kind, options=options or {}) as container:
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
        stream = container.add_stream(codec, rate=rate, layout=layout, options={"strict": "experimental"})
        samples = tones(rate, channels=channels, **of_tones)
        if title:
            container.metadata["title"] = title
        container.start_encoding()
        if samples.size:
            frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=layout)
            frame.sample_rate = rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return data.getvalue()


def wave(
    samples: np.ndarray,
    rate: int = 44100,
    size: int | None = None,
    after: bytes = b"",
    tag: int = 1,
    order: str = "<",
) -> bytes:
    """A WAV file by hand. `size`: what its header says; `after`: what follows the sound."""
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    width, channels = samples.dtype.itemsize, samples.shape[1]
    size = len(data) if size is None else size
    form = struct.pack(
        f"{order}HHIIHH", tag, channels, rate, rate * channels * width, channels * width, 8 * width
    )
    head = b"WAVEfmt " + struct.pack(f"{order}I", 16) + form + b"data" + struct.pack(f"{order}I", size)
    name = b"RIFF" if order == "<" else b"RIFX"
    return name + struct.pack(f"{order}I", min(0xFFFFFFFF, 36 + size + len(after))) + head + data + after


def int16(rate: int = 44100, channels: int = 1) -> np.ndarray:
    return (tones(rate, channels=channels) * 32767).astype(np.int16)


def flac(samples: int) -> bytes:
    """A FLAC file whose header says that it has so many samples."""
    data = bytearray(coded("flac", "flac"))
    data[18:26] = (int.from_bytes(data[18:26], "big") >> 36 << 36 | samples).to_bytes(8, "big")
    return bytes(data)


def mp3(frames: int) -> bytes:
    """An MP3 file whose header says that it has so many frames."""
    data = bytearray(coded("mp3", "libmp3lame"))
    at = max(data.find(b"Xing"), data.find(b"Info")) + 8
    data[at : at + 4] = struct.pack(">I", frames)
    return bytes(data)


def ogg(codec: str, position: Callable[[int], int]) -> bytes:
    """An Ogg file with other positions (`granules`) in its pages."""
    data, out, at = coded("ogg", codec, 48000, 2), b"", 0
    while at < len(data):
        segments = data[at + 26]
        size = 27 + segments + sum(data[at + 27 : at + 27 + segments])
        page = bytearray(data[at : at + size])
        page[6:14] = struct.pack("<q", position(struct.unpack("<q", page[6:14])[0]))
        page[22:26] = bytes(4)
        page[22:26] = struct.pack("<I", _checksum(page))
        out += page
        at += size
    return out


def _checksum(page: bytes) -> int:
    """Of an Ogg page (RFC 3533, section 6)."""
    table = []
    for value in range(256):
        value <<= 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
        table.append(value)
    crc = 0
    for byte in page:
        crc = (crc << 8 & 0xFFFFFFFF) ^ table[crc >> 24 ^ byte]
    return crc


def aiff(size: int) -> bytes:
    """An AIFF file whose header says that its sound has so many bytes."""
    data = bytearray(coded("aiff", "pcm_s16be"))
    at = data.find(b"SSND") + 4
    data[4:8], data[at : at + 4] = struct.pack(">I", at + size), struct.pack(">I", size)
    return bytes(data)


def saved(data: Callable[[], bytes], name: str = "question.wav") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data())
        return path

    return make


def pitch(samples: np.ndarray) -> tuple[float, float]:
    """(Hz, amplitude) of the loudest tone."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(samples.size))) / (samples.size / 4)
    return spectrum.argmax() * SAMPLE_RATE / samples.size, spectrum.max()


def sounds(
    *halves: tuple[float, int], near: float = 0.01, level: float = 0.5, noted: str = ""
) -> Callable[[Any], None]:
    """A check: a sound of halves (seconds, Hz), as long as they are together to `near` seconds."""
    parts = halves or ((1.0, LOW), (1.0, HIGH))

    def check(path: Path | str) -> None:
        recording = files.Recording(path)
        heard = np.concatenate(list(recording))
        assert heard.dtype == np.float32
        assert heard.size / SAMPLE_RATE == pytest.approx(sum(seconds for seconds, _ in parts), abs=near)
        start = 0.0
        for seconds, frequency in parts:
            inside = heard[round((start + 0.1) * SAMPLE_RATE) : round((start + seconds - 0.1) * SAMPLE_RATE)]
            found, amplitude = pitch(inside)
            assert abs(found - frequency) < 2 and abs(amplitude - level) < 0.06
            start += seconds
        notes = " ".join(recording.notes)
        assert noted in notes and (noted or not notes), notes

    return check


def is_damaged(path: Path) -> None:
    recording = files.Recording(path)
    heard = np.concatenate(list(recording))
    assert 1.4 * SAMPLE_RATE < heard.size < 1.95 * SAMPLE_RATE
    assert abs(pitch(heard[1000:18000])[0] - LOW) < 2 and abs(pitch(heard[-13000:-1000])[0] - HIGH) < 2
    assert any("damaged" in note for note in recording.notes)


def read(path: Any) -> Any:
    return files.read(path)


def file(what: str, data: Callable[[], bytes], name: str, *, happens: str = "read", **check: Any) -> Case:
    return Case(what, FILE, "read", happens, saved(data, name), sounds(**check))


def with_nan() -> bytes:
    samples = tones()
    samples[1000:1010] = np.nan
    return wave(samples, tag=3)


def with_damage() -> bytes:
    data = bytearray(coded("mp3", "libmp3lame"))
    noise = np.random.default_rng(0).integers(0, 256, 3000, np.uint8).tobytes()
    data[len(data) // 2 : len(data) // 2 + len(noise)] = noise
    return bytes(data)


def silent_video() -> bytes:
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))))
        container.mux(stream.encode(None))
    return data.getvalue()


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "question.wav")
    return folder / "question.wav"


def foreign(folder: Path) -> str:
    path = os.fsencode(folder) + b"/Gr\xfc\xdfe \xe9.wav"
    Path(os.fsdecode(path)).write_bytes(wave(int16()))
    return os.fsdecode(path)


def is_at_home(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(path.parent))
        sounds()(f"~/{path.name}")


LENGTHS = {
    "says 0": 0,
    "says unknown (0xFFFFFFFF)": 0xFFFFFFFF,
    "says half of it": 44100 * 2,
    "says twice as much": 44100 * 8,
}
LIST = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf58.29.100\0"

CASES = [
    *(
        file(f"WAV, {name}", lambda codec=codec: coded("wav", codec), "question.wav", level=level)
        for name, codec, level in (
            ("8 bit", "pcm_u8", 0.5),
            ("16 bit", "pcm_s16le", 0.5),
            ("24 bit", "pcm_s24le", 0.5),
            ("32 bit", "pcm_s32le", 0.5),
            ("float", "pcm_f32le", 0.5),
            ("double", "pcm_f64le", 0.5),
            ("A-law", "pcm_alaw", 0.5),
            ("mu-law", "pcm_mulaw", 0.5),
        )
    ),
    file("WAV, IMA ADPCM", lambda: coded("wav", "adpcm_ima_wav"), "question.wav", near=0.05),
    file("WAV, big-endian (RIFX)", lambda: wave(int16(), order=">"), "question.wav"),
    file("WAV, RF64", lambda: coded("wav", "pcm_s16le", options={"rf64": "always"}), "question.wav"),
    file(
        "WAV, 5.1",
        lambda: coded("wav", "pcm_s16le", 48000, 6),
        "question.wav",
        happens="the mean of its channels",
    ),
    file("FLAC", lambda: coded("flac", "flac"), "question.flac"),
    file("MP3", lambda: coded("mp3", "libmp3lame"), "question.mp3", near=0.06),
    file("Ogg Vorbis", lambda: coded("ogg", "vorbis", channels=2), "question.ogg", near=0.03),
    file("Ogg Opus", lambda: coded("ogg", "libopus", 48000), "question.opus", near=0.03),
    file("M4A (AAC)", lambda: coded("ipod", "aac"), "question.m4a", near=0.06),
    file("AAC (ADTS)", lambda: coded("adts", "aac"), "question.aac", near=0.06),
    file("AIFF", lambda: coded("aiff", "pcm_s16be"), "question.aiff"),
    file("AU", lambda: coded("au", "pcm_s16be"), "question.au"),
    file("CAF", lambda: coded("caf", "pcm_s16le"), "question.caf"),
    file("the sound of a video", lambda: coded("mp4", "aac"), "clip.mp4", near=0.06),
    *(
        file(
            f"WAV whose header {what}",
            lambda size=size: wave(int16(), size=size),
            "question.wav",
            happens="read to the end of the sound",
        )
        for what, size in LENGTHS.items()
    ),
    file(
        "WAV with other chunks after its sound",
        lambda: wave(int16(), after=LIST),
        "question.wav",
        happens="read without them",
    ),
    file(
        "a title that is not UTF-8",
        lambda: wave(int16(), after=b"LIST" + struct.pack("<I", 16) + b"INFOINAM" + struct.pack("<I", 4) + b"G\xfc\xdf\0"),
        "question.wav",
    ),
    file(
        "MP3 with a title that is not UTF-8",
        lambda: coded("mp3", "libmp3lame", title="Grusse").replace(b"Grusse", b"Gr\xfc\xdfe\xff"),
        "question.mp3",
        near=0.06,
    ),
    file(
        "WAV that ends in the middle of a sample",
        lambda: wave(int16(channels=2))[:-3],
        "question.wav",
        happens="read to the last whole one",
    ),
    *(
        file(
            f"FLAC whose header {what}",
            lambda samples=samples: flac(samples),
            "question.flac",
            happens="read to the end of the sound",
        )
        for what, samples in (
            ("says unknown (0), as from a pipe", 0),
            ("says half of it", 44100),
            ("says 2^36 - 1", 2**36 - 1),
        )
    ),
    *(
        file(
            f"AIFF whose header {what}",
            lambda size=size: aiff(size),
            "question.aiff",
            happens="read to the end of the sound",
        )
        for what, size in (("says 0, as from a pipe", 0), ("says half of it", 88208))
    ),
    *(
        file(
            f"MP3 whose header {what}",
            lambda frames=frames: mp3(frames),
            "question.mp3",
            near=0.08,
            happens="read to the end of the sound",
        )
        for what, frames in (("says 0 frames", 0), ("says half of them", 38), ("says 2^32 - 1", 2**32 - 1))
    ),
    file(
        "MP3 without a header",
        lambda: coded("mp3", "libmp3lame", options={"write_xing": "0"}),
        "question.mp3",
        near=0.1,
    ),
    *(
        file(
            f"{name} whose pages say {what}",
            lambda codec=codec, change=change: ogg(codec, change),
            "question.ogg",
            near=0.06,
            happens="read to the end of the sound",
        )
        for name, codec in (("Ogg Vorbis", "vorbis"), ("Ogg Opus", "libopus"))
        for what, change in (("half", lambda position: position // 2), ("0", lambda position: 0))
    ),
    *(
        Case(
            f"{name} files joined end to end",
            FILE,
            "read",
            "one after another, also of different rates",
            saved(lambda first=first, second=second: first() + second(), f"question.{name.lower()}"),
            sounds(
                (1, LOW),
                (1, HIGH),
                (1, LOW),
                (1, HIGH),
                near=0.12,
                noted="1 damaged" if name == "MP3" else "",
            ),
        )
        for name, first, second in (
            ("WAV", lambda: wave(int16()), lambda: wave(int16(16000, 2), 16000, after=LIST)),
            ("FLAC", lambda: coded("flac", "flac"), lambda: coded("flac", "flac", 16000, 2)),
            ("MP3", lambda: coded("mp3", "libmp3lame"), lambda: coded("mp3", "libmp3lame", 16000, 2)),
            ("OGG", lambda: coded("ogg", "vorbis", channels=2), lambda: coded("ogg", "vorbis", 16000, 2)),
        )
    ),
    file(
        "WAV files from a pipe, joined",
        lambda: wave(int16(), size=0xFFFFFFFF),
        "question.wav",
        happens="one after another",
    ),
    Case(
        "samples that are not finite (NaN)",
        FILE,
        "converted",
        "taken as silence, counted and said",
        saved(with_nan),
        sounds(noted="10 samples are not finite"),
    ),
    Case(
        "damage in the middle",
        FILE,
        "read",
        "what can be decoded; the rest is counted and said",
        saved(with_damage, "question.mp3"),
        is_damaged,
    ),
    *(
        Case(
            f"{rate} Hz",
            FILE,
            "converted",
            "to 24 kHz",
            saved(lambda rate=rate: wave(int16(rate), rate)),
            sounds((1, LOW), (1, HIGH), near=0.001),
        )
        for rate in (4000, 8000, 11025, 44100, 47999, 48000, 192000, 384000)
    ),
    *(
        Case(
            f"{rate} Hz",
            FILE,
            "refused",
            "1 to 384 kHz are taken",
            saved(lambda rate=rate: wave(np.zeros((3000, 1), np.int16), rate)),
            refused(read, "question.wav", f"{rate} Hz", "1000 to 384000"),
        )
        for rate in (500, 768000)
    ),
    Case(
        "65 channels",
        FILE,
        "refused",
        "1 to 64 are taken",
        saved(lambda: wave(np.zeros((1000, 65), np.int16))),
        refused(read, "question.wav", "65 channels"),
    ),
    Case("a name that is not UTF-8", FILE, "read", "any bytes that the system allows", foreign, sounds()),
    Case(
        "a name with ~",
        FILE,
        "read",
        "the home folder, unless there is such a file",
        saved(lambda: wave(int16())),
        is_at_home,
    ),
    file("a path of 300 characters", lambda: wave(int16()), f"{'a' * 150}/{'b' * 150}/c d.wav"),
    Case(
        "a name of 300 characters",
        FILE,
        "refused",
        "the system has no such names",
        lambda folder: folder / f"{'a' * 300}.wav",
        refused(read, "aaa.wav", "too long"),
    ),
    *(
        Case(what, FILE, "refused", "there is no sound", saved(data, name), refused(read, name, says))
        for what, data, name, says in (
            ("a file of 0 bytes", lambda: b"", "question.wav", "not a recording"),
            ("WAV without sound", lambda: wave(np.zeros((0, 1), np.int16)), "question.wav", "no sound in it"),
            (
                "FLAC without sound",
                lambda: coded("flac", "flac", seconds=0),
                "question.flac",
                "no sound in it",
            ),
            ("a video without sound", silent_video, "clip.mp4", "no sound in it"),
            ("text", lambda: b"not sound", "question.wav", "not a recording"),
            ("half a header", lambda: wave(int16())[:10], "question.wav", "not a recording"),
        )
    ),
    Case(
        "a folder",
        FILE,
        "refused",
        "give a file",
        lambda folder: folder,
        refused(read, "a folder, not a recording"),
    ),
    Case(
        "a pipe",
        FILE,
        "refused",
        "save it as a file first",
        fifo,
        refused(read, "question.wav", "a pipe or a device"),
    ),
    Case(
        "no such file",
        FILE,
        "refused",
        "",
        lambda folder: folder / "none.wav",
        refused(read, "none.wav: no such recording"),
    ),
]
