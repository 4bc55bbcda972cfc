"""Synthetic dialogues: true answers, spoken words on time, files that other tools read."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import wave
from pathlib import Path

import numpy as np
import pytest

from moshivis_ros.cli import main
from moshivis_ros.errors import ConfigError, MissingDependencyError
from moshivis_ros.training import dialogues, make_dialogues
from moshivis_ros.training.dialogues import Item
from moshivis_ros.training.folder import read
from moshivis_ros.training.utterances import Utterance, join
from moshivis_ros.training.voices import EspeakVoice

VIEW = (
    Item("ball", "red", "on the left"),
    Item("ball", "blue", "in the middle"),
    Item("cup", "orange", "on the right"),
)


def answers(kind: str, view: dialogues.View, tries: int = 8000) -> dict[str, str]:
    rng = random.Random(3)
    found = (dialogues.QUESTIONS[kind](rng, view, False) for _ in range(tries))
    return {one.question: one.answer for one in found if one is not None}


def test_answers_are_true() -> None:
    assert answers("colour", VIEW)["What colour is the cup?"] == "It is orange."
    assert answers("place", VIEW)["Where is the cup?"] == "It is on the right."
    assert answers("thing", VIEW)["What is the blue thing?"] == "It is a ball."
    numbers = answers("number", VIEW)
    assert numbers["How many balls do you see?"] == "I see two."
    assert numbers["How many things are there?"] == "I see three."
    assert numbers["How many boxes are there?"] == "I see none."
    presence = answers("presence", VIEW)
    assert presence["Do you see a blue ball?"].startswith("Yes")
    assert presence["Do you see a green ball?"].startswith("No")
    assert answers("misleading", VIEW)["Where is the bottle?"] == "I do not see a bottle."
    assert set(answers("describe", VIEW).values()) == {"I see a red ball, a blue ball and an orange cup."}
    assert answers("teacher", VIEW)["What is in the middle?"] == "I see a blue ball."
    assert set(answers("describe", ()).values()) == {"I see nothing."}


def test_an_exchange_knows_what_it_is_about() -> None:
    rng = random.Random(3)
    for kind, ask in dialogues.QUESTIONS.items():
        for _ in range(100):
            one = ask(rng, VIEW, False)
            if one is None:
                continue
            things = [VIEW[k] for k in one.about]
            if kind in ("colour", "thing", "place"):
                (thing,) = things
                assert thing.kind in one.question or thing.colour in one.question
            if kind == "number" and "things" not in one.question:
                assert one.keys == (dialogues.NUMBERS[len(things)],)
            if kind == "presence":
                assert bool(things) == (one.keys == ("yes",))
            if kind in dialogues.DESCRIPTIONS:
                assert one.keys == (tuple(f"{thing.colour} {thing.kind}" for thing in things) or ("nothing",))
            if kind in ("misleading", "small talk"):
                assert not things


def test_nobody_is_asked_about_the_ball_where_there_are_two() -> None:
    for kind in ("colour", "place"):
        assert not any("ball" in question for question in answers(kind, VIEW))


def test_test_phrasings_are_not_in_training() -> None:
    rng = random.Random(0)
    seen = {dialogues.exchange(rng, dialogues.random_view(rng)).question for _ in range(20000)}
    held = {dialogues.exchange(rng, dialogues.random_view(rng), held_out=True).question for _ in range(5000)}
    assert not seen & held


def test_speech_that_is_no_question_is_new_to_the_model_when_it_is_tested() -> None:
    """No phrase of more than two words, and no word of no language, is in both."""
    parts = []
    for held_out in (False, True):
        rng = random.Random(0)
        said = {dialogues.unknown(rng, held_out).question for _ in range(20000)}
        assert len(said) > 60
        spoken = [re.findall(r"[\w']+", text.lower()) for text in said]
        phrases = {tuple(words[k : k + 3]) for words in spoken for k in range(len(words) - 2)}
        parts.append((said, phrases, {word for words in spoken for word in words if len(word) > 5}))
    for train, test in zip(*parts):
        assert not train & test


def test_test_phrasings_have_only_words_of_training_questions() -> None:
    rng = random.Random(0)
    asked = [dialogues.exchange(rng, dialogues.random_view(rng)).question for _ in range(20000)]
    known = {word for question in asked for word in re.findall(r"\w+", question)}
    held = {dialogues.exchange(rng, dialogues.random_view(rng), held_out=True).question for _ in range(5000)}
    assert {word for question in held for word in re.findall(r"\w+", question)} <= known


def test_the_sound_of_a_part_does_not_tell_what_comes_next() -> None:
    """ "I see" sounds alike before every number, "a red ball" alike as the last thing and before another."""
    rng = random.Random(0)
    answers = {dialogues.description(dialogues.random_view(rng)) for _ in range(3000)}
    answers |= {f"I see {number}." for number in dialogues.NUMBERS}
    split = {answer: dialogues.parts(answer) for answer in answers}
    assert all(" ".join(parts) == re.sub("[.,]", "", answer) for answer, parts in split.items())
    assert {parts[0] for parts in split.values()} == {"I see"}
    assert len(answers) > 1000 > 60 > len({part for parts in split.values() for part in parts})
    last = {parts[-1] for parts in split.values() if len(parts) == 2}
    followed = {parts[1] for parts in split.values() if len(parts) > 2}
    assert followed <= last


def test_some_conversations_go_from_a_description_into_details() -> None:
    rng = random.Random(0)
    first = [dialogues.dialogue(rng, VIEW, 3)[0].kind for _ in range(300)]
    assert 0.2 < first.count("describe") / 300 < 0.5


def test_joined_utterances_keep_their_words_on_time() -> None:
    def one(word: str, first: int, frames: int, end: float) -> Utterance:
        codes = np.arange(first, first + frames, dtype=np.int16)[None]
        return Utterance(codes, ((word, 1.5),), end, 0)

    joined = join([one("red", 0, 9, 5.5), one("blue", 100, 8, 4.2)])
    assert joined.codes[0].tolist() == [0, 1, 2, 3, 4, 5, *range(100, 108)]
    assert joined.words == (("red", 1.5), ("blue", 7.5)) and joined.end == pytest.approx(10.2)


@pytest.fixture(scope="module")
def voice() -> EspeakVoice:
    voice = EspeakVoice()
    try:
        voice.say("Hello.")
    except MissingDependencyError as error:
        pytest.skip(str(error))
    return voice


def test_every_word_has_its_time_also_those_that_espeak_runs_together(voice: EspeakVoice) -> None:
    speech = voice.say("I do not see it on the left.")
    assert [word.text for word in speech.words] == ["I", "do", "not", "see", "it", "on", "the", "left."]
    starts = [word.start for word in speech.words]
    assert starts == sorted(starts) and len(set(starts)) == len(starts)
    assert all(word.end > word.start for word in speech.words)
    assert speech.words[-1].end == pytest.approx(speech.seconds)


def test_the_robot_is_left_the_user_right_and_words_are_where_they_sound(
    voice: EspeakVoice, tmp_path: Path
) -> None:
    rng = random.Random(1)
    exchanges = dialogues.dialogue(rng, VIEW, 2)
    spoken = make_dialogues.speak(rng, exchanges, voice, EspeakVoice("en-us+m3"))
    pixels = np.zeros((8, 8, 3), np.uint8)
    line = make_dialogues.write(tmp_path, "one", spoken, pixels, VIEW, exchanges)
    (tmp_path / make_dialogues.INDEX).write_text(json.dumps(line) + "\n")

    with wave.open(str(tmp_path / "one.wav")) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, 24000)
        stereo = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2) / 32768
    assert line["duration"] == pytest.approx(len(stereo) / 24000, abs=0.001)
    alignments = json.loads((tmp_path / "one.json").read_text())["alignments"]
    assert [word for word, _, _ in alignments] == " ".join(e.answer for e in exchanges).split()
    spoken_frames = np.zeros(len(stereo), bool)
    for _, (start, end), who in alignments:
        assert who == "SPEAKER_MAIN"
        spoken_frames[int(start * 24000) : int(end * 24000)] = True
    loudness = np.abs(stereo[:, 0])
    assert loudness[spoken_frames].mean() > 0.02 > loudness[~spoken_frames].mean() * 100
    assert main(["look", str(tmp_path), "--out", str(tmp_path / "page")]) == 0
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "'../one.wav'" in page and exchanges[0].question in page


@pytest.mark.skipif(not importlib.util.find_spec("mujoco"), reason="mujoco is not installed")
def test_what_is_simulated_can_be_trained_with(voice: EspeakVoice, tmp_path: Path) -> None:
    """Its pictures are seen, answers about them are told from small talk, and questions are there without sound too."""
    make_dialogues.make(tmp_path / "made", 6, 3, 112, False)
    data = read([tmp_path / "made"])
    lines = (tmp_path / "made" / make_dialogues.INDEX).read_text().splitlines()
    turns = [json.loads(line)["turns"] for line in lines]
    seen = [[turn for turn in talk if turn["kind"] != "small talk"] for talk in turns]
    assert [len(dialogue.visual or ()) for dialogue in data.dialogues] == [len(talk) for talk in seen]
    assert sum(map(len, seen)) < sum(map(len, turns)), "some of it is small talk"
    assert all(len(dialogue.pictures) == 1 for dialogue in data.dialogues) and len(data.pictures) == 6
    asked = [(turn["question"], turn["answer"]) for talk in seen for turn in talk]
    assert [(one.prompt, one.text) for one in data.speechless] == asked


def test_who_is_interrupted_falls_silent(voice: EspeakVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_dialogues, "INTERRUPTED", 1.0)
    rng = random.Random(3)
    exchanges = [dialogues.describe(rng, VIEW, False), dialogues.describe(rng, VIEW, False)]
    spoken = make_dialogues.speak(rng, exchanges, voice, EspeakVoice("en-us+m3"))
    assert spoken.interrupted == (True, False)
    asked = [word.start for who, word in spoken.words if who == make_dialogues.USER]
    again = asked[len(exchanges[0].question.split())]  # when the second question begins
    robot = [word for who, word in spoken.words if who == make_dialogues.MAIN]
    first, second = [w for w in robot if w.start < again + 1], [w for w in robot if w.start > again + 1]
    assert first[-1].start < again + make_dialogues.REACTION and len(first) < len(exchanges[0].answer.split())
    assert [w.text for w in second] == exchanges[1].answer.split()
    silent = slice(round((again + make_dialogues.REACTION) * 24000) + 1, round(second[0].start * 24000))
    assert silent.stop > silent.start + 12000 and not spoken.model[silent].any()


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(ConfigError, match="not empty"):
        make_dialogues.make(tmp_path, 1, 0, 112, False)
