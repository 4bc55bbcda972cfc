"""The robot does not hear itself, and does hear who talks over it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moshivis_ros.audio import SAMPLE_RATE, Float, files
from moshivis_ros.audio.echo import BLOCK, PATIENCE, EchoCanceller
from moshivis_ros.audio.pcm import encode
from moshivis_ros.audio.resample import resample

CHUNK = SAMPLE_RATE // 50  # of a message, 20 ms
SECONDS = 12
START = 1_700_000_000_000_000_000  # nanoseconds
VOICE = files.read(Path(__file__).parents[1] / "media" / "question.wav")


def robot() -> Float:
    """Somebody else's voice: deeper and slower."""
    deeper = resample(VOICE, 19000, SAMPLE_RATE)
    return np.resize(deeper, SECONDS * SAMPLE_RATE) / 2


def room(seed: int = 0, delay: float = 0.04) -> Float:
    """From loudspeaker to microphone: the direct way and 0.2 s of reverberation."""
    time = np.arange(round(0.2 * SAMPLE_RATE)) / SAMPLE_RATE
    response = np.random.default_rng(seed).standard_normal(time.size) * np.exp(-28 * time)
    response *= 0.4 / np.linalg.norm(response)
    response[0] += 0.4
    return np.concatenate([np.zeros(round(delay * SAMPLE_RATE)), response]).astype(np.float32)


def through(sound: Float, response: Float) -> Float:
    size = sound.size + response.size
    spectrum = np.fft.rfft(sound, size) * np.fft.rfft(response, size)
    return np.fft.irfft(spectrum, size)[: sound.size].astype(np.float32)


def decibels(a: Float, b: Float, start: float, end: float) -> float:
    """How much louder `a` is than `b` between two times."""
    part = slice(round(start * SAMPLE_RATE), round(end * SAMPLE_RATE))
    return float(10 * np.log10((a[part] ** 2).sum() / (b[part] ** 2).sum()))


class Talk:
    """Messages of both devices in turn; `out` is what comes of the microphone's."""

    def __init__(self) -> None:
        self.canceller = EchoCanceller()
        self.blocks: list[tuple[int, Float]] = []

    def hear(self, sound: Float, stamp: int, index: int) -> None:
        self.blocks += self.canceller.hear(encode(sound), stamp=stamp, index=index)

    def play(self, sound: Float, stamp: int, index: int) -> None:
        self.blocks += self.canceller.play(encode(sound), stamp=stamp, index=index)

    def run(self, heard: Float, played: Float, jitter: float = 0.0) -> Float:
        rng = np.random.default_rng(1)
        for index in range(heard.size // CHUNK):
            part = slice(index * CHUNK, (index + 1) * CHUNK)
            stamp = START + index * 20_000_000
            early, late = (rng.uniform(-jitter, jitter, 2) * 1e9).astype(int)
            self.play(played[part], stamp + int(early), index)
            self.hear(heard[part], stamp + int(late), index)
        return self.out

    @property
    def out(self) -> Float:
        return np.concatenate([block for _, block in self.blocks])


def test_its_own_voice_is_removed_and_a_voice_over_it_is_kept() -> None:
    own, echo = robot(), through(robot(), room())
    user = np.zeros_like(echo)
    user[8 * SAMPLE_RATE :][: VOICE.size] = VOICE / 4
    end = 8 + VOICE.size / SAMPLE_RATE
    assert abs(decibels(user, echo, 8, end)) < 6  # about as loud as the echo
    alone, both = Talk().run(echo, own), Talk().run(echo + user, own)
    assert decibels(echo, alone, 3, 8) > 20
    assert decibels(user, both - user[: both.size], 8, end) > 16
    assert decibels(echo, both, end, SECONDS - 0.1) > 18  # learnt, not forgotten


def test_a_robot_that_drives_into_another_room_learns_it() -> None:
    own, half = robot(), SECONDS // 2 * SAMPLE_RATE
    echo = np.concatenate([through(own, room())[:half], through(own, room(1, delay=0.03))[half:]])
    assert decibels(echo, Talk().run(echo, own), 10, SECONDS - 0.1) > 14


def test_stamps_may_be_a_few_milliseconds_wrong() -> None:
    own = robot()
    echo = through(own, room())
    assert decibels(echo, Talk().run(echo, own, jitter=0.003), 4, 11) > 18


@pytest.mark.parametrize("millionths, least", [(0, 25), (20, 18), (50, 12), (100, 5)])
def test_what_clocks_that_differ_cost(millionths: int, least: float) -> None:
    own = robot()
    count = np.arange(own.size)
    drifted = np.interp(count * (1 + millionths * 1e-6), count, own).astype(np.float32)
    echo = through(drifted, room())
    assert decibels(echo, Talk().run(echo, own), 9, SECONDS - 0.1) > least


def test_a_loudspeaker_that_was_gone_for_a_second_is_found_again() -> None:
    own = robot()
    echo = through(own, room())
    talk, gone = Talk(), range(250, 300)
    for index in range(echo.size // CHUNK):
        part, stamp = slice(index * CHUNK, (index + 1) * CHUNK), START + index * 20_000_000
        if index not in gone:
            talk.play(own[part], stamp, index - (index >= gone.stop) * len(gone))
        talk.hear(echo[part], stamp, index)
    assert talk.out.size > echo.size - PATIENCE * SAMPLE_RATE
    assert decibels(echo, talk.out, 9, SECONDS - 0.1) > 15


def test_without_an_echo_sound_passes_unharmed() -> None:
    user = np.resize(VOICE, SECONDS * SAMPLE_RATE) / 4
    out = Talk().run(user, robot())
    assert decibels(user, out - user[: out.size], 3, SECONDS - 0.1) > 15


def test_without_a_loudspeaker_sound_passes_as_it_is_and_at_once() -> None:
    talk = Talk()
    talk.hear(VOICE[:CHUNK], START, 0)
    assert [stamp - START for stamp, _ in talk.blocks] == [0, 10_000_000]
    np.testing.assert_allclose(talk.out, VOICE[:CHUNK], atol=1e-4)


def test_sound_waits_for_what_was_played_but_not_long() -> None:
    talk = Talk()
    talk.play(np.zeros(CHUNK, np.float32), START, 0)
    for index in range(1, 20):
        talk.hear(VOICE[:CHUNK], START + index * 20_000_000, index)
        assert len(talk.canceller._waiting) * BLOCK <= PATIENCE * SAMPLE_RATE
    assert len(talk.blocks) >= 2 * 19 - PATIENCE * 100


@pytest.mark.parametrize("rate, channels", [(48000, 2), (16000, 1)])
def test_a_microphone_of_any_rate(rate: int, channels: int) -> None:
    own = robot()
    echo = resample(through(own, room()), SAMPLE_RATE, rate)
    talk, size = Talk(), rate // 50
    for index in range(echo.size // size):
        stamp = START + index * 20_000_000
        talk.play(own[index * CHUNK : (index + 1) * CHUNK], stamp, index)
        raw = np.repeat(encode(echo[index * size : (index + 1) * size]), channels)
        talk.blocks += talk.canceller.hear(raw, stamp=stamp, index=index, sample_rate=rate, channels=channels)
    assert decibels(through(own, room()), talk.out, 4, 11) > 15
