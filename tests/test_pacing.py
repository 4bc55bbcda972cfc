"""How sound from any source becomes one frame every 80 ms of its own time, and is understood. A simulated source and a
simulated clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest

from moshivis_ros.audio import SAMPLE_RATE
from moshivis_ros.audio.files import read
from moshivis_ros.audio.framing import AudioInput
from moshivis_ros.conversation import Conversation
from moshivis_ros.engine.pacing import FRAME, LONGEST_FILL, SECOND, Pacer
from moshivis_ros.options import Options
from moshivis_ros.sampling import Sampling

MEDIA = Path(__file__).parents[1] / "media"
EPOCH = 1_700_000_000 * SECOND  # the source's clock when this machine's shows START
START = 5 * SECOND
STEP = 12_000_000  # that the model takes
Lateness = Callable[[random.Random, float], float]


@dataclass
class Heard:
    """What the model got."""

    times: list[int] = field(default_factory=list)  # when, by this machine's clock
    stamps: list[int] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)

    @property
    def sound(self) -> np.ndarray:
        return np.concatenate(self.frames)

    @property
    def delays(self) -> np.ndarray:
        """Seconds from the first sample of a frame in the air until the model hears it."""
        return (np.array(self.times) - START - np.array(self.stamps) + EPOCH) / SECOND


@dataclass
class Source:
    """Messages of `chunk` seconds, each late by as much as `lateness` says, never out of order."""

    sound: np.ndarray  # float32, 24 kHz
    chunk: float
    lateness: Lateness = lambda rng, time: 0.0
    stamped: bool = True
    numbered: bool = True
    lost: tuple[float, float] = (0.0, 0.0)  # seconds, from and to: messages that never come
    rate: float = 1.0  # of its clock against this machine's
    jump: tuple[float, int] = (1e9, 0)  # at this time its clock steps by so many nanoseconds

    def messages(self) -> list[tuple[int, int, int, np.ndarray]]:
        """(arrival by this machine's clock, number, stamp, samples)"""
        rng, size, arrival, messages = random.Random(0), round(self.chunk * SAMPLE_RATE), 0.0, []
        for number, start in enumerate(range(0, self.sound.size, size)):
            time = start / SAMPLE_RATE
            arrival = max(arrival, (time + self.chunk) / self.rate + self.lateness(rng, time))
            stamp = EPOCH + round(time * SECOND) + (self.jump[1] if time >= self.jump[0] else 0)
            if not self.lost[0] <= time < self.lost[1]:
                messages.append(
                    (START + round(arrival * SECOND), number, stamp, self.sound[start : start + size])
                )
        return messages


def listen(source: Source, pacer: Pacer, quiet: bool = True, step: int = STEP) -> Heard:
    """Until everything was heard."""
    heard, framing, gap, lost = Heard(), AudioInput(), False, 0
    messages = source.messages()[::-1]
    pacer.start(START, EPOCH)
    free = START  # when the model has done its step
    while True:
        turn = max(pacer.due, free)
        if messages and messages[-1][0] <= turn:
            now, number, stamp, samples = messages.pop()
            pcm = np.round(samples * 32767).astype(np.int16).tobytes()
            index = number if source.numbered else None
            frames = framing.push(pcm, index=index, stamp=stamp if source.stamped else EPOCH + now - START)
            gap, lost = gap or framing.counts.lost > lost, framing.counts.lost
            for frame_stamp, frame in frames:
                missing = gap if source.numbered else None
                pacer.put(now, frame, frame_stamp, stamped=source.stamped, lost=missing)
                gap = False
            continue
        if not messages and not pacer.waiting:
            return heard
        if (taken := pacer.take(turn, quiet)) is not None:
            heard.times.append(turn)
            heard.stamps.append(taken[0])
            heard.frames.append(taken[1])
            free = turn + step
        else:
            free = turn + 1


def speech(seconds: float, silence: float = 10.0) -> np.ndarray:
    """`silence` seconds of nothing, then a voice of noise: 2 s on, 3 s off."""
    rng, count = np.random.default_rng(0), round(seconds * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE
    talking = (time >= silence) & ((time - silence) % 5 < 2)
    noise = rng.uniform(-0.3, 0.3, count)
    return (np.round(np.where(talking, noise, 0) * 32767) / 32767).astype(np.float32)


def regular(rng: random.Random, time: float) -> float:
    return 0.0


def busy_machine(rng: random.Random, time: float) -> float:
    return rng.random() * 0.03


def bad_network(rng: random.Random, time: float) -> float:
    return rng.random()


def stalls(rng: random.Random, time: float) -> float:
    return 1.0 if time % 3 < 0.1 else 0.0


CHUNKS = (0.005, 0.02, 0.08, 0.2, 0.5, 1.0, 2.0)


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("lateness", [regular, busy_machine, bad_network, stalls])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_every_sample_is_heard_once_whatever_the_messages(
    chunk: float, lateness: Lateness, numbered: bool
) -> None:
    """Ten seconds in, the source is known: not a sample is lost, doubled or interrupted, and the stamps are even."""
    sound = speech(40)
    heard = listen(Source(sound, chunk, lateness, numbered=numbered), pacer := Pacer(6 * FRAME))
    np.testing.assert_allclose(heard.sound[: sound.size], sound[: heard.sound.size], atol=1e-4)
    assert len(heard.frames) == 500
    assert set(np.diff(heard.stamps)) == {FRAME}
    assert pacer.dropped == 0 and pacer.skipped <= pacer.silent
    jitter = {regular: 0.0, busy_machine: 0.03}.get(lateness, 1.0)
    assert heard.delays.max() <= max(chunk, 0.08) + jitter + 0.08


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_punctual_source_is_heard_evenly_and_at_once(chunk: float) -> None:
    heard = listen(Source(speech(20), chunk), pacer := Pacer(6 * FRAME))
    late = np.diff(heard.times)[-125:] / SECOND
    np.testing.assert_allclose(late, 0.08, atol=1e-3)
    period = 0.08 if chunk <= 0.08 else chunk + 0.08  # a frame begins in one message and ends in the next
    assert heard.delays[50] <= period + 1e-3
    if chunk <= 0.08:
        assert pacer.skipped == 0


def test_what_was_silence_is_made_up_for_by_less_silence_and_no_speech_is_lost() -> None:
    """A stall of 0.6 s within a voice that used to be punctual: 0.6 s of silence are heard there, and missing after."""
    sound = speech(30)

    def stall(rng: random.Random, time: float) -> float:
        return 0.6 if 11 <= time < 11.3 else 0.0

    heard = listen(Source(sound, 0.02, stall), pacer := Pacer(6 * FRAME))
    assert 3 < pacer.silent == pacer.skipped < 9
    spoken = np.abs(sound).sum()
    np.testing.assert_allclose(np.abs(heard.sound).sum(), spoken, rtol=1e-3)
    assert set(np.diff(heard.stamps)) == {FRAME}
    np.testing.assert_allclose(heard.sound[-15 * SAMPLE_RATE :], sound[-15 * SAMPLE_RATE :], atol=1e-4)


def test_the_delay_is_at_its_least_within_five_seconds_of_quiet() -> None:
    def first_ten_seconds(rng: random.Random, time: float) -> float:
        return rng.random() if time < 10 else 0.0

    heard = listen(Source(np.zeros(40 * SAMPLE_RATE, np.float32), 0.02, first_ten_seconds), Pacer(6 * FRAME))
    times = (np.array(heard.times) - START) / SECOND
    assert heard.delays[times < 10].max() > 0.5
    assert heard.delays[(times > 16) & (times < 39)].max() <= 0.081


def test_while_somebody_speaks_the_delay_stays() -> None:
    """A robot that is heard by the other end must not hurry in the middle of a word."""
    sound = speech(10, silence=0)

    def once(rng: random.Random, time: float) -> float:
        return 0.3 if time < 0.1 else 0.0

    heard = listen(Source(sound, 0.02, once), Pacer(6 * FRAME), quiet=False)
    assert np.diff(heard.times)[10:].min() >= FRAME - 1_000_000


def test_a_source_that_dies_becomes_silence_and_comes_back_without_a_debt() -> None:
    sound = speech(40, silence=0)
    source = Source(sound, 0.02, lost=(12.0, 21.0))
    heard = listen(source, pacer := Pacer(6 * FRAME))
    assert pacer.skipped == 0 and len(heard.frames) - 500 in range(-1, 2)
    assert all(0 < step <= 2 * FRAME for step in np.diff(heard.stamps))
    at = SAMPLE_RATE * 25
    np.testing.assert_allclose(heard.delays[-100:], 0.08, atol=0.081)
    assert np.abs(heard.sound[at : at + 2 * SAMPLE_RATE - 4000]).mean() > 0.1  # it speaks when it did


@pytest.mark.parametrize("seconds", [0.3, 0.8])
def test_lost_messages_are_silence_of_their_length(seconds: float) -> None:
    sound = speech(30)
    heard = listen(Source(sound, 0.02, lost=(10.5, 10.5 + seconds)), pacer := Pacer(6 * FRAME))
    assert len(heard.frames) - 375 in range(-1, 2) and pacer.skipped == 0
    later = slice(15 * SAMPLE_RATE, 20 * SAMPLE_RATE)
    shift = min(
        range(-2000, 2001, 10), key=lambda n: np.abs(np.roll(heard.sound, n)[later] - sound[later]).sum()
    )
    assert abs(shift) <= 1920  # to a frame


@pytest.mark.parametrize("jump", [1000, -1000])
def test_stamps_follow_a_clock_that_jumps(jump: int) -> None:
    sound = speech(20)
    heard = listen(Source(sound, 0.02, jump=(8.0, jump * SECOND)), pacer := Pacer(6 * FRAME))
    steps = np.diff(heard.stamps)
    assert (steps != FRAME).sum() == 1 and abs(steps[steps != FRAME][0] - jump * SECOND) <= FRAME
    np.testing.assert_allclose(
        heard.sound[: sound.size], sound[: heard.sound.size], atol=1e-4
    )  # nothing else changes
    assert pacer.skipped == 0


@pytest.mark.parametrize("rate", [0.9998, 1.0002])
def test_the_source_has_the_clock(rate: float) -> None:
    """Its seconds are counted, not this machine's."""
    sound = speech(120)
    heard = listen(Source(sound, 0.02, rate=rate), pacer := Pacer(6 * FRAME))
    np.testing.assert_allclose(heard.sound[: sound.size], sound[: heard.sound.size], atol=1e-4)
    assert pacer.dropped == pacer.skipped == 0
    assert heard.delays.max() < 0.08 + 120 * 2e-4 + 0.02


def test_messages_without_stamps_are_even_too() -> None:
    sound = speech(30)
    heard = listen(Source(sound, 0.5, busy_machine, stamped=False, numbered=False), Pacer(6 * FRAME))
    steps = np.diff(heard.stamps[100:])
    assert steps.min() >= 0.998 * FRAME and steps.max() <= 1.002 * FRAME
    kept = heard.sound[np.abs(heard.sound) > 0]
    np.testing.assert_allclose(kept, sound[np.abs(sound) > 0][: kept.size], atol=1e-4)


def test_a_model_that_is_too_slow_drops_the_oldest_sound_and_says_so() -> None:
    heard = listen(Source(speech(20, silence=0), 0.02), pacer := Pacer(6 * FRAME), step=2 * FRAME)
    assert pacer.dropped == pytest.approx(125, abs=8)
    assert len(heard.frames) + pacer.dropped == pytest.approx(250, abs=10)
    assert heard.delays.max() <= 0.08 + 8 * 0.08


def test_without_a_source_there_is_silence_at_the_pace_of_this_machine() -> None:
    pacer = Pacer(6 * FRAME)
    pacer.start(START, EPOCH)
    assert pacer.due == START + 2 * FRAME and pacer.take(pacer.due - 1, True) is None
    stamps = [pacer.take(pacer.due, True) for _ in range(50)]
    assert [taken[0] for taken in stamps if taken] == [EPOCH + n * FRAME for n in range(50)]
    assert pacer.due == START + 52 * FRAME and pacer.silent == 50
    asleep = pacer.due + 100 * SECOND  # the machine was suspended: not all of that is made up for
    while pacer.take(asleep, True):
        pass
    assert pacer.silent < 50 + 20


def test_a_long_gap_that_nobody_waited_for_is_not_filled() -> None:
    pacer = Pacer(6 * FRAME)
    pacer.start(START, EPOCH)
    silence = np.zeros(1920, np.float32)
    pacer.put(START + FRAME, silence, EPOCH, stamped=True, lost=False)
    pacer.put(START + 2 * FRAME, silence, EPOCH + 60 * FRAME, stamped=True, lost=True)
    assert pacer.waiting == 2 and 60 > LONGEST_FILL


@pytest.fixture(scope="module")
def conversation() -> Conversation:
    """The miniature, always saying what is most likely, looking at the first scene."""
    greedy = Options(sampling=Sampling(text_temperature=0.0, audio_temperature=0.0))
    made = Conversation.load("builtin", greedy)
    made.see(cv2.cvtColor(cv2.imread(str(MEDIA / "scene_a.jpg")), cv2.COLOR_BGR2RGB), wait=True)
    return made


@pytest.mark.parametrize("lateness", [regular, bad_network])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_the_answer_is_the_same_whatever_the_messages(
    chunk: float, lateness: Lateness, conversation: Conversation
) -> None:
    silence = np.zeros(
        6 * SAMPLE_RATE, np.float32
    )  # in which the source becomes known; then time for the answer
    question = np.concatenate([silence, read(MEDIA / "question.wav"), silence[: 3 * SAMPLE_RATE]])
    heard = listen(Source(question, chunk, lateness), Pacer(100 * FRAME))
    conversation.reset()
    assert "".join(conversation.step(frame).text or "" for frame in heard.frames).strip() == "It is red."
