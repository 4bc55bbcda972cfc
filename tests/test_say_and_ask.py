"""Conversation.say and ask: who wins, how far it is, and what is heard."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from moshivis_ros import Conversation, Frame
from moshivis_ros.audio.voice import speak
from moshivis_ros.conversation import FRAME_SIZE
from moshivis_ros.errors import AudioError, ConfigError, MissingDependencyError, WordsError
from moshivis_ros.goals import PAUSE, Asking, Goal
from moshivis_ros.model.sampling import GREEDY, Sampling
from moshivis_ros.vision.refresh_policy import Settings

MANUAL = Settings(policy="manual")
SILENCE = np.zeros(FRAME_SIZE, np.float32)
NOISE = np.random.default_rng(0).normal(0, 0.1, FRAME_SIZE).astype(np.float32)
LONG = "I see a red ball, a green cup, a blue box and a yellow bottle."
BEEP = """
import sys, wave, math, struct
words = len(sys.stdin.read().split())
with wave.open(sys.stdout.buffer, "wb") as file:
    file.setnchannels(1); file.setsampwidth(2); file.setframerate(16000)
    file.writeframes(b"".join(struct.pack("<h", int(9000 * math.sin(n / 8))) for n in range(3200 * words)))
"""


@pytest.fixture(scope="module")
def builtin() -> Iterator[Conversation]:
    with Conversation.load("builtin", device="cpu", seed=1, sampling=GREEDY, refresh=MANUAL) as conversation:
        yield conversation


@pytest.fixture
def conversation(builtin: Conversation) -> Conversation:
    builtin.reset()
    return builtin


@pytest.fixture
def beep(tmp_path: Path) -> str:
    """A voice command that beeps, 0.2 s for each word."""
    (tmp_path / "beep.py").write_text(BEEP)
    return f"{sys.executable} {tmp_path / 'beep.py'}"


def until(conversation: Conversation, over: Callable[[], object], pcm: np.ndarray = SILENCE) -> list[Frame]:
    frames: list[Frame] = []
    while not over():
        assert len(frames) < 300
        frames.append(conversation.step(pcm))
    return frames


def text(frames: list[Frame]) -> str:
    return "".join(frame.text or "" for frame in frames).strip()


def test_it_says_the_words_and_nothing_else(conversation: Conversation) -> None:
    goal = conversation.say(
        "THE robot is Yellow, and you are nice."
    )  # words it has with a small letter, or a capital
    told = []
    frames = until(conversation, lambda: told.append((goal.words, goal.said)) or goal.done)  # type: ignore[func-returns-value]
    assert goal.success and not goal.reason and goal.wait(0)
    assert text(frames) == "the robot is yellow, and you are nice."
    assert list(dict(told)) == list(range(9)) and dict(told)[3] == "THE robot is"
    assert max(np.abs(frame.pcm).max() for frame in frames[:8]) > 0.02, "heard within 0.64 s"
    assert not text([conversation.step(SILENCE) for _ in range(30)]), "and then it is silent"


def test_what_it_cannot_say_is_named(conversation: Conversation) -> None:
    with pytest.raises(
        WordsError, match="cannot say: zebra, describe, !$"
    ):  # the second is a word of its users only
        conversation.say("Hello zebra, describe the zebra !")
    with pytest.raises(WordsError, match="empty"):
        conversation.say(" ")
    with pytest.raises(ConfigError, match="wait, cut or refuse"):
        conversation.say("Hello.", "later")  # type: ignore[arg-type]


def test_goals_wait_for_each_other_and_for_the_robot(conversation: Conversation) -> None:
    first, second = conversation.say("Hello."), conversation.say("My name is Moshi.")
    until(conversation, lambda: first.done)
    assert second.words == 0
    silent = until(conversation, lambda: second.words)
    assert len(silent) >= PAUSE // 2 and not second.done
    refused = conversation.say("Hello.", "refuse")
    conversation.step(SILENCE)
    assert refused.done and refused.reason == "another goal is being served"
    until(conversation, lambda: second.done)
    assert conversation.say("Hello.", "refuse") and second.success


def test_one_that_cuts_ends_all_others(conversation: Conversation) -> None:
    long, waiting = conversation.say(LONG, uninterruptible=True), conversation.say("Hello.")
    before = until(conversation, lambda: long.words == 3)
    cutting = conversation.say("Sorry, I only talk.", "cut")
    frames = until(conversation, lambda: cutting.done)
    assert long.reason == waiting.reason == "another goal cut in" and long.said.startswith("I see a")
    assert cutting.success and text(frames).endswith("Sorry, I only talk.")
    assert frames[0].cut and not any(frame.cut for frame in before + frames[1:])
    assert not any(frame.pcm.any() for frame in frames[:3]), "what was cut is not heard"


@pytest.mark.parametrize("how", ["cancel", "user"])
def test_it_is_cut_within_a_frame_and_for_good(conversation: Conversation, how: str) -> None:
    goal = conversation.say(LONG)
    until(conversation, lambda: goal.words == 6)
    if how == "cancel":
        goal.cancel()
    else:
        until(conversation, lambda: goal.words == 7)
        assert not goal.done
        until(conversation, lambda: conversation._goals._loud == 2, NOISE)
    frame = conversation.step(NOISE if how == "user" else SILENCE)
    assert goal.done and not goal.success and frame.cut and not frame.pcm.any()
    assert goal.reason == ("cancelled" if how == "cancel" else "the user spoke")
    after = [conversation.step(SILENCE) for _ in range(40)]
    assert not text(after) and not any(frame.pcm.any() for frame in after)
    again = conversation.say("Hello.")
    assert max(np.abs(frame.pcm).max() for frame in until(conversation, lambda: again.done)) > 0.02


def test_the_user_does_not_end_what_must_be_said(conversation: Conversation) -> None:
    goal = conversation.say("My name is Moshi.", uninterruptible=True)
    until(conversation, lambda: goal.done, NOISE)
    assert goal.success
    late = conversation.say("Hello.")
    until(conversation, lambda: conversation._goals._user == PAUSE - 1 or late.words)
    assert not late.words, "it waits until the user has been silent"
    new = conversation.say("Hello.", "cut")
    conversation.reset()
    assert new.done and new.reason == late.reason == "a new conversation began"


def test_ask(conversation: Conversation) -> None:
    picture = np.full((112, 112, 3), 200, np.uint8)
    picture[60:100, 40:72] = (220, 20, 20)
    conversation.see(picture, wait=True, stamp="then")
    goal = conversation.ask("What is your name?")
    until(conversation, lambda: goal.done)
    assert goal.success and goal.answer == "My name is Moshi." and goal.image.stamp == "then"
    assert 0 <= goal.gate < 0.5
    other = conversation.ask("What do you see?")
    until(conversation, lambda: other.done)
    assert other.answer.startswith("I see a") and other.gate > max(goal.gate, 0.3)
    conversation.see(None)


def test_no_answer_is_said_so(conversation: Conversation, beep: str) -> None:
    goal = conversation.ask("one two", voice_command=beep)
    frames = until(conversation, lambda: goal.done)
    if not text(frames):  # a beep is no question
        assert goal.reason == "no answer came within 5 s" and len(frames) > 62


def test_a_question_is_mixed_with_the_microphone_or_takes_its_place(beep: str) -> None:
    sound = speak("one two", beep)
    assert sound.shape == (5 * FRAME_SIZE,) and sound.dtype == np.float32  # 0.4 s
    assert np.abs(sound).max() == pytest.approx(0.5)
    for alone in (False, True):
        goal = Asking("", alone=alone, sound=sound.reshape(-1, FRAME_SIZE))
        heard = np.concatenate([goal.hear(NOISE) for _ in range(6)])
        assert np.array_equal(heard[-FRAME_SIZE:], NOISE)  # the question is over
        expected = sound + (0 if alone else np.tile(NOISE, 5))
        assert np.allclose(heard[: 5 * FRAME_SIZE], expected)


@pytest.mark.parametrize(
    ("command", "error", "words"),
    [
        ("no-such-voice", MissingDependencyError, "no-such-voice"),
        ("", ConfigError, "empty"),
        ("espeak-ng 'loud", ConfigError, "no closing quotation"),
        ("false", AudioError, "code 1"),
        ("true", AudioError, "."),
    ],
)
def test_a_voice_that_fails_is_said_so(command: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        speak("Hello.", command)
    with pytest.raises(WordsError, match="empty"):
        speak(" ", command)


def test_the_context_does_not_begin_anew_within_a_question() -> None:
    short = {"renew_after": 0.8, "renew_keep": 0.4}  # 10 and 5 frames
    with Conversation.load("builtin", device="cpu", seed=1, sampling=GREEDY, refresh=MANUAL, **short) as conversation:
        question = conversation.ask("What is your name?")
        until(conversation, lambda: question.heard == len(question.sound))
        assert question.heard > 12 and conversation.renewal.count == 0
        until(conversation, lambda: question.done)
        assert question.answer == "My name is Moshi."
        until(conversation, lambda: conversation.renewal.count)


def test_the_context_may_begin_anew_before_the_first_word() -> None:
    renewal = {"renew_after": 100.0, "renew_keep": 0.4}
    with Conversation.load("builtin", device="cpu", seed=1, sampling=GREEDY, refresh=MANUAL, **renewal) as conversation:
        for _ in range(60):
            conversation.step(SILENCE)
        saying = conversation.say("Hello, nice to meet you.", "cut")
        conversation.step(SILENCE)
        conversation._stream.renew()  # as when a pause of 0.64 s was just over
        until(conversation, lambda: saying.done)
        assert saying.success and saying.words == 5


def test_without_greeting_it_is_silent_until_spoken_to(tiny: Path) -> None:
    """Random weights babble at once."""
    with Conversation.load(tiny, device="cpu", seed=1, refresh=MANUAL, greet=False) as conversation:
        before = [conversation.step(SILENCE) for _ in range(30)]
        assert not text(before) and not any(frame.pcm.any() for frame in before)
        after = [conversation.step(NOISE) for _ in range(30)]
        assert all(frame.pcm.any() for frame in after[3:])
        conversation.reset()
        goal = conversation.say("That looks like a cat.")
        frames = until(conversation, lambda: goal.done)
        assert "That looks like a cat." in text(frames) and frames[-1].pcm.any()


def test_tuning_while_it_talks(conversation: Conversation) -> None:
    def voice(sampling: Sampling, seed: int | None) -> np.ndarray:
        conversation.tune(sampling, Settings(policy="manual", interval=9.0), seed)
        conversation.reset()
        return np.concatenate([conversation.step(NOISE).pcm for _ in range(9)])

    lively = Sampling(audio_temperature=3.0)
    first = voice(lively, 5)
    assert np.array_equal(voice(lively, 5), first)
    assert not np.array_equal(voice(lively, 6), first)
    greedy = voice(GREEDY, 5)
    assert np.array_equal(voice(GREEDY, 6), greedy) and not np.array_equal(greedy, first)
    assert conversation._view.settings.interval == 9.0


def test_a_goal_may_be_waited_for() -> None:
    goal = Goal("")
    assert not goal.wait(0) and not goal.done and not goal.success
    goal.end()
    assert goal.wait() and goal.success
