"""Sound in messages.

What every node does with the sound it is sent. `talk` counts in its diagnostics what was not as it should be; a message that is
refused does not touch the next one.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from case import Case, Way, refused
from sound_cases import HIGH, LOW, coded, int16, pitch, tones, wave

from moshivis_ros.audio import SAMPLE_RATE
from moshivis_ros.audio.compressed import compressed
from moshivis_ros.audio.framing import AudioInput

MESSAGE: tuple[Way, ...] = ("message",)


def messages(
    rates: Callable[[int], float], seconds: float = 0.02, frequency: float = LOW
) -> Callable[[Path], Any]:
    """Three seconds of a tone in messages whose rates change."""

    def make(_: Path) -> list[tuple[np.ndarray, float]]:
        made, time, number = [], 0.0, 0
        while time < 3:
            rate = rates(number)
            times = time + np.arange(round(rate * seconds)) / rate
            made.append(((16000 * np.sin(2 * np.pi * frequency * times)).astype(np.int16), rate))
            time += times.size / rate
            number += 1
        return made

    return make


def is_a_clean_tone(sent: list[tuple[np.ndarray, float]]) -> None:
    """As long as what was sent, of the same pitch and level, and without cracks where messages meet."""
    audio = AudioInput(size=240)
    heard = np.concatenate([frame for data, rate in sent for _, frame in audio.push(data, sample_rate=rate)])
    seconds = sum(data.size / rate for data, rate in sent)
    assert abs(heard.size / SAMPLE_RATE - seconds) < 0.012
    inside = heard[2400:-2400]
    assert abs(pitch(inside)[0] - LOW) < 1
    time = np.arange(inside.size) / SAMPLE_RATE
    waves = np.stack([np.sin(2 * np.pi * LOW * time), np.cos(2 * np.pi * LOW * time)], axis=1)
    parts = np.linalg.lstsq(waves, inside, rcond=None)[0]
    assert abs(np.hypot(*parts) - 16000 / 32768) < 0.002
    assert np.abs(inside - waves @ parts).max() < 0.002


def long_message(_: Path) -> np.ndarray:
    samples = np.concatenate(
        [tones(48000, seconds=2)[96000:], tones(48000, seconds=1.5)[:, :1]]
    )  # 2 s HIGH, 1.5 + 1.5
    return (samples * 32767).astype(np.int16)


def is_cut(data: np.ndarray) -> None:
    audio = AudioInput()
    frames = audio.push(data, sample_rate=48000, stamp=10**18)
    heard = np.concatenate([frame for _, frame in frames])
    assert abs(heard.size / SAMPLE_RATE - 3) < 0.09 and audio.counts.cut == 1
    assert abs(pitch(heard[2400:33600])[0] - LOW) < 2 and abs(pitch(heard[38400:-2400])[0] - HIGH) < 2
    assert frames[0][0] == 10**18 + 2 * 10**9 - 10**6  # 2 s were cut off, and the resampler's millisecond
    assert len(audio.push(data[:96000], sample_rate=48000)) == 25 and audio.counts.cut == 1


def nan(_: Path) -> np.ndarray:
    samples = tones(SAMPLE_RATE)[:, 0]
    samples[100:103] = np.nan, np.inf, -np.inf
    return samples


def is_silent_there(data: np.ndarray) -> None:
    audio = AudioInput()
    heard = np.concatenate([frame for _, frame in audio.push(data, sample_format="float32")])
    data[100:103] = 0
    np.testing.assert_array_equal(heard, data[: heard.size])
    assert audio.counts.replaced == 3


def bytes_of(data: Callable[[], bytes]) -> Callable[[Path], bytes]:
    return lambda _: data()


def mp3_frame() -> bytes:
    """As encoders in a pipeline send them, one a message: 128 kbit/s at 48 kHz."""
    return coded("mp3", "libmp3lame", 48000, options={"write_xing": "0", "id3v2_version": "0"})[:384]


def push(data: bytes) -> Any:
    name, _ = compressed(data)
    return AudioInput().push(array("B", data), sample_format=name or "int16")


def pushed(**fields: Any) -> Callable[[Any], Any]:
    return lambda data: AudioInput().push(data, **fields)


CASES = [
    Case("48 kHz", MESSAGE, "converted", "to 24 kHz", messages(lambda _: 48000), is_a_clean_tone),
    Case("47999 Hz", MESSAGE, "converted", "to 24 kHz", messages(lambda _: 47999), is_a_clean_tone),
    Case("44099.7 Hz", MESSAGE, "converted", "to 24 kHz", messages(lambda _: 44099.7), is_a_clean_tone),
    Case("383999 Hz", MESSAGE, "converted", "to 24 kHz", messages(lambda _: 383999), is_a_clean_tone),
    Case(
        "a rate that changes from message to message, as a driver measures it",
        MESSAGE,
        "converted",
        "without a gap",
        messages(lambda number: (47999, 48001.5, 47998, 48003)[number % 4]),
        is_a_clean_tone,
    ),
    Case(
        "messages of 1.5 s",
        MESSAGE,
        "converted",
        "to 24 kHz",
        messages(lambda _: 48000, seconds=1.5),
        is_a_clean_tone,
    ),
    Case("a message of 5 s", MESSAGE, "converted", "cut to its last 3 s, counted", long_message, is_cut),
    Case("samples that are not finite", MESSAGE, "converted", "silence, counted", nan, is_silent_there),
    *(
        Case(
            f"{kind} in an array of bytes",
            MESSAGE,
            "refused",
            "with its name; never played as noise",
            bytes_of(data),
            refused(push, name, "not samples", "wave samples"),
        )
        for kind, name, data in (
            ("MP3", "MP3 data", lambda: coded("mp3", "libmp3lame")),
            ("a piece of MP3", "MP3 data", lambda: coded("mp3", "libmp3lame")[5000:9096]),
            ("one frame of MP3", "MP3 data", lambda: mp3_frame()),
            ("a piece of AAC", "AAC data", lambda: coded("adts", "aac")[5000:9096]),
            ("Ogg", "Ogg data", lambda: coded("ogg", "libopus", 48000)[:4096]),
            ("FLAC", "FLAC data", lambda: coded("flac", "flac")[:4096]),
            ("a WAV file", "a WAV file", lambda: wave(int16())[:4096]),
            ("MP4", "MP4 data", lambda: coded("mp4", "aac")[:4096]),
        )
    ),
    *(
        Case(what, MESSAGE, "refused", happens, lambda _, data=data: data, refused(pushed(**fields), *words))
        for what, happens, data, fields, words in (
            ("no samples", "", b"", {}, ("without samples",)),
            ("bytes that are not whole samples", "", b"abc", {}, ("3 bytes", "check the sample format")),
            (
                "samples that do not fill the channels",
                "",
                bytes(6),
                {"channels": 2},
                ("do not fill 2 channels",),
            ),
            (
                "999 Hz",
                "1 to 384 kHz are taken",
                bytes(6),
                {"sample_rate": 999},
                ("999 Hz", "1000 to 384000"),
            ),
            ("384001 Hz", "1 to 384 kHz are taken", bytes(6), {"sample_rate": 384001}, ("384001 Hz",)),
            ("a rate of NaN", "", bytes(6), {"sample_rate": float("nan")}, ("nan Hz",)),
            ("65 channels", "1 to 64 are taken", bytes(130), {"channels": 65}, ("65 channels",)),
        )
    ),
]
