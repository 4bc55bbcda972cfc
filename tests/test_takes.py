"""What is said once and kept: the robot's takes, what is put together from them, and voices that are not there."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moshivis_ros.audio import FRAME_SIZE
from moshivis_ros.errors import ConfigError, MissingDependencyError
from moshivis_ros.training import acoustics, dialogues, make_library, make_takes, people, speakers, utterances
from moshivis_ros.training.codec_stage import HEARD_AT, OTHER, SILENCE, CodecStage
from moshivis_ros.training.make_takes import Kept
from moshivis_ros.training.people import KokoroVoice
from moshivis_ros.training.speakers import InParts
from moshivis_ros.training.utterances import Recording, Utterance
from moshivis_ros.training.voices import SAMPLE_RATE, Speech, Word

TEXTS = ("I see", "a red ball", "and a blue box", "It is red.")


class Tones:
    """A voice that says a word in 0.2 s, and counts what it has said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> Speech:
        self.said.append(text)
        words = tuple(Word(word, 0.2 * k, 0.2 * k + 0.2) for k, word in enumerate(text.split()))
        times = np.arange(round(0.2 * len(words) * SAMPLE_RATE)) / SAMPLE_RATE
        return Speech(0.9 * np.cos(2 * np.pi * 300 * times).astype(np.float32), words)


@pytest.fixture
def robot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of takes of TEXTS."""
    monkeypatch.setattr(make_takes, "ROBOT", Tones())
    monkeypatch.setattr(make_takes, "answered", lambda: TEXTS)
    make_takes.make_robot(tmp_path / "robot")
    return tmp_path / "robot"


def test_the_robot_has_a_take_of_all_that_it_is_trained_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_library, "DRAWN", 20_000)
    _, answers = make_library.texts(100, 100)
    assert set(answers) <= set(make_takes.answered())
    assert {"I did not understand.", "I see", *dialogues.told_sentences()} <= set(answers)


def test_takes_of_the_robot_are_made_once(robot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    takes = make_takes.load(robot)
    assert tuple(takes) == TEXTS
    assert all(np.abs(take.pcm).max() == pytest.approx(0.6, abs=0.001) for (take,) in takes.values())
    (robot / "00002.npz").unlink()
    monkeypatch.setattr(make_takes, "ROBOT", again := Tones())
    make_takes.make_robot(robot)
    assert again.said == ["and a blue box"] and tuple(make_takes.load(robot)) == TEXTS


def test_takes_of_other_texts_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_takes, "somebody", lambda _: voice)
    monkeypatch.setattr(make_takes, "vocoded", lambda _, speech: speech)
    for asked, said in ((("one", "two", "three"), ["one", "two", "three", "one"]), (("one", "four", "three"), ["four"])):
        monkeypatch.setattr(make_takes, "asked", lambda asked=asked: asked)
        voice = Tones()
        make_takes.make(tmp_path, 4)
        assert voice.said == said
        assert {text: len(takes) for text, takes in make_takes.load(tmp_path).items()} == {
            text: 4 if text == "one" else 2 for text in asked
        }


def test_an_answer_is_put_together_from_takes_each_from_the_middle_of_a_frame_on(robot: Path) -> None:
    speech = InParts(Kept(robot)).say("I see a red ball and a blue box.")
    assert [word.text for word in speech.words] == "I see a red ball and a blue box.".split()
    assert len(speech.pcm) % FRAME_SIZE == 0
    begins = [np.abs(speech.pcm[round(speech.words[k].start * SAMPLE_RATE) + shift]) for k in (0, 2, 5) for shift in (-2, 0)]
    assert begins == [pytest.approx(loud, abs=0.01) for loud in (0, 0.6) * 3]
    assert all(speech.words[k].start * SAMPLE_RATE % FRAME_SIZE == pytest.approx(FRAME_SIZE / 2) for k in (0, 2, 5))
    with pytest.raises(KeyError, match="It is blue"):
        Kept(robot).say("It is blue.")


def test_the_robot_is_recorded_from_its_takes_and_comes_back_from_the_room_quietly(
    robot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[list[Recording]] = []

    def encode(_: object, recordings: list[Recording]) -> list[Utterance]:
        recorded.append(list(recordings))
        return [Utterance(np.zeros((1, 1), np.int16), one.words, one.end, one.noise) for one in recorded[-1]]

    monkeypatch.setattr(utterances, "encode", encode)
    monkeypatch.setattr(utterances, "silences", lambda *_: ())
    monkeypatch.setattr(acoustics, "rooms", lambda: (np.array([1, 0, 0, 0.3], np.float32),))
    takes = make_takes.load(robot)
    library = utterances.build(None, {}, {"a red ball": 30, "It is red.": 2}, 0, takes, echoes=["a red ball"] * 30)
    assert {text: len(found) for text, found in library.robot.items()} == {"a red ball": 30, "It is red.": 2}
    assert [len(found) for found in library.echo.values()] == [30] and not library.user
    _, own, echo = recorded
    loud = [float(np.abs(one.pcm).max()) for one in own]
    assert 0.5 <= min(loud) < 0.53 < 0.67 < max(loud) <= 0.7 and {one.noise for one in own} == {0}
    quiet = [20 * np.log10(0.6 / np.abs(one.pcm).max()) for one in echo]
    assert 13 < min(quiet) < 17 < 27 < max(quiet) < 31  # and some noise
    assert all([word for word, _ in one.words] == ["a", "red", "ball"] for one in (own[0], *echo))


def test_a_question_is_asked_by_people_by_synthesizers_and_by_what_a_vocoder_makes_of_them(
    robot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def named(name: str, result: Any) -> Callable[..., Any]:
        return lambda *_: (made.append(name), result)[1]

    monkeypatch.setattr(acoustics, "rooms", lambda: (np.array([1, 0, 0, 0.3], np.float32),))
    monkeypatch.setattr(utterances, "FliteVoice", named("flite", Tones()))
    monkeypatch.setattr(speakers, "user", named("espeak", Tones()))
    monkeypatch.setattr(utterances, "vocoded", lambda _, speech: named("vocoder", speech)())
    takes, rng = make_takes.load(robot), random.Random(0)
    records = [utterances.record_somebody("It is red.", rng, takes) for _ in range(400)]
    assert all([word for word, _ in one.words] == ["It", "is", "red."] for one in records)
    assert {one.noise for one in records} == set(range(len(speakers.LOUDER_LEVELS)))
    for name, share in (("flite", 0.2), ("espeak", 0.25), ("vocoder", 0.23)):
        assert made.count(name) / 400 == pytest.approx(share, abs=0.06), name
    made.clear()
    for _ in range(100):
        utterances.record_somebody("Nobody said this.", rng, takes)
    assert made.count("flite") + made.count("espeak") == 100


def test_a_library_without_a_take_of_the_robot_names_it(robot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_library, "texts", lambda *_: ({}, dict.fromkeys((*TEXTS, "It is blue."), 1)))
    monkeypatch.setattr(make_library, "load_into", lambda *_: None)
    parser = make_library.argparse.ArgumentParser()
    make_library.add_arguments(parser)
    model = Path(make_library.__file__).parent / "configs" / "builtin"
    folders = ["--model", str(model), "--codec", str(tmp_path), "--takes", str(robot), "--robot", str(robot)]
    with pytest.raises(ConfigError, match=r"1 of 5 texts \('It is blue.'\).*--robot"):
        make_library.run(parser.parse_args([str(tmp_path / "library.npz"), *folders]))


def test_a_speaker_that_is_not_there_is_named_with_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "SPEAKERS", tmp_path)
    (tmp_path / "af_short.bin").write_bytes(bytes(100))
    for name in ("af_nobody", "af_short"):
        with pytest.raises(MissingDependencyError, match=f"{name}.*npm pack kokoro-js.*{tmp_path}"):
            people.speaker(name)


def test_a_mixture_is_as_near_to_each_speaker_as_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "SPEAKERS", tmp_path)
    rows = np.arange(people.STYLES, dtype=np.float32)[:, None] * np.ones(people.STYLE, np.float32)
    for name, level in (("af_low", 0), ("af_high", 1000)):
        (rows + level).tofile(tmp_path / f"{name}.bin")
    style = KokoroVoice((("af_low", 1.5), ("af_high", 0.5))).style(phonemes=8)
    assert style.dtype == np.float32 and style.shape == (people.STYLE,) and np.unique(style).tolist() == [7 + 250]


def test_people_are_mixed_with_those_of_their_own_country() -> None:
    somebody = [make_takes.somebody(random.Random(k)) for k in range(300)]
    accents = {"a": "en-us", "b": "en"}
    for voice in somebody:
        countries = {name[0] for name, _ in voice.speakers}
        assert countries in ({"a"}, {"b"}) or not countries & {"a", "b"}
        assert voice.accent == accents.get(min(countries), "en-us") and 1 <= len(voice.speakers) <= 3
    assert isinstance(somebody[0], KokoroVoice) and len(set(somebody)) == 300


def test_codebook_1_is_told_the_phonemes_at_two_places_of_each_frame() -> None:
    stage = CodecStage.__new__(CodecStage)  # without the takes that it is trained on
    stage.symbols = {"a": 1, "b": 2}
    speech = Speech(np.zeros(SAMPLE_RATE // 2, np.float32), (), (("a", 0.10), ("b", 0.22), ("?", 0.40)))
    start, frames = -FRAME_SIZE, 9
    labels = stage._labels(speech, start, frames)
    times = [[0.08 * (k - 1 + place) for place in HEARD_AT] for k in range(frames)]
    assert labels == [
        [SILENCE if at < 0.10 or at >= 0.5 else 1 if at < 0.22 else 2 if at < 0.40 else OTHER for at in row] for row in times
    ]
    assert {label for row in labels for label in row} == {SILENCE, 1, 2, OTHER}
