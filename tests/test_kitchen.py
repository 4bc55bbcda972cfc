"""Its own kitchen in small: pictures of a new thing, dialogues by the pipeline, and how answers about it are judged."""

from __future__ import annotations

import importlib.util
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from moshivis_ros.cli import main
from moshivis_ros.data import prompts
from moshivis_ros.errors import WordsError
from moshivis_ros.evaluation.scoring import score
from moshivis_ros.kitchen import endpoint, questions
from moshivis_ros.model.checkpoint import resolve
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.training import dialogues, speakers
from moshivis_ros.training.dialogues import Exchange, Item
from moshivis_ros.training.folder import read
from moshivis_ros.training.own_voice import OwnVoice

VIEW = (Item("robot", "orange", "on the left"), Item("ball", "blue", "in the middle"), Item("robot", "red", "on the right"))


@pytest.mark.parametrize("view", [VIEW, VIEW[1:2], ()], ids=["three", "one", "nothing"])
def test_a_caption_tells_all_of_a_picture(view: tuple[Item, ...]) -> None:
    things = [(item.kind, item.colour) for item in view]
    told = prompts.robot(prompts.KINDS["PROP"], dialogues.description(view))
    assert [(item.kind, item.colour) for item in questions.understood(told)] == things


def test_questions_about_what_is_not_there_are_answered_so() -> None:
    rng = random.Random(0)
    without = [questions.draw(rng, "presence", VIEW[1:2], held_out=False) for _ in range(4000)]
    told = {(one.question, one.answer) for one in without if one and questions.about_it(one)}
    assert ("Is there a robot?", "No, there is none.") in told and {answer for _, answer in told} == {"No, there is none."}
    misled = [questions.draw(rng, "misleading", VIEW[1:2], held_out=False) for _ in range(4000)]
    assert ("Where is the robot?", "I do not see a robot.") in {(one.question, one.answer) for one in misled if one}
    there = [questions.draw(rng, "presence", VIEW, held_out=False) for _ in range(4000)]
    assert "Yes, there is one." in {one.answer for one in there if one and one.question == "Is there a robot?"}


def test_an_answer_is_judged_by_all_kinds_that_there_are() -> None:
    asked = Exchange("describe", "What do you see?", "", ("orange robot", "blue ball"))
    right, wrong = "I see an orange robot and a blue ball.", "I see an orange box and a blue ball."
    assert score(asked, right, questions.THINGS).right and not score(asked, wrong, questions.THINGS).right
    ball = Exchange("thing", "What is the blue thing?", "It is a ball.", ("ball",))
    assert not score(ball, "It is a ball robot.", questions.THINGS).right


@pytest.mark.skipif(not importlib.util.find_spec("mujoco"), reason="mujoco is not installed")
def test_the_pipeline_makes_samples_that_the_miniature_has_words_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from moshivis_ros.kitchen.__main__ import photograph

    config = ModelConfig.load(resolve("builtin"))
    photos, out = tmp_path / "photos", tmp_path / "out"
    photograph(photos, 8, config)
    captions = [json.loads(line)["caption"] for line in (photos / "metadata.jsonl").read_text().splitlines()]
    assert sum("robot" in caption for caption in captions) == 6
    with endpoint.serve() as url:
        model = ("--endpoint", url, "--model", "templates")
        assert main(["make-dialogues", str(out), "--images", str(photos), *model, "--kinds", *endpoint.KINDS]) == 0
    data = read([out])
    tokenizer = Tokenizer.load(resolve("builtin"), config)
    texts = [word for dialogue in data.dialogues for word, _ in dialogue.words]
    texts += [text for one in data.speechless for text in (one.prompt, one.text)]
    assert all(0 not in tokenizer.encode(text) for text in texts), "no word is unknown"
    lines = [json.loads(line) for line in (out / "dialogues.jsonl").read_text().splitlines()]
    assert len(lines) >= 6, "what was left out is repetition"
    about = {Path(line["image"]).stem: line["turns"] for line in lines}
    for k, caption in enumerate(captions):
        for turn in about.get(f"{k:04}", ()):
            colour = re.fullmatch(r"It is (\w+)\.", turn["answer"])
            if colour and "colour of the robot" in turn["question"]:
                assert f"{colour[1]} robot" in caption
    assert any("robot" in turn["answer"] for turns in about.values() for turn in turns)


def test_what_nobody_asked_is_not_answered_by_a_guess() -> None:
    with pytest.raises(KeyError):
        endpoint.Templates()([{"role": "system", "content": prompts.SWITCHED}, {"role": "user", "content": "Why?"}])


def test_the_miniature_says_its_own_answers_for_the_dialogues() -> None:
    voice = OwnVoice()
    robot = speakers.InParts(voice)
    for text in ("I see a red robot and a blue ball.", "It is red."):
        speech = robot.say(text)
        assert [word.text for word in speech.words] == text.split()
        assert all(a.start < b.start and a.end <= b.end for a, b in zip(speech.words, speech.words[1:]))
        assert speech.words[-1].start < len(speech.pcm) / 24000
        loud = [np.abs(speech.pcm[round(24000 * w.start) :][: round(24000 * 0.4)]).max() for w in speech.words]
        assert min(loud) > 0.05  # something is said at the time of every word
    assert voice.say("It is red.") is voice.say("It is red.")
    with pytest.raises(WordsError, match="dog's"):
        robot.say("I see a dog's tail on the mat.")
