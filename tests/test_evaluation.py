"""Scores of answers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from moshivis_ros.cli import main
from moshivis_ros.evaluation import dialogue_test
from moshivis_ros.evaluation.dialogue_test import below
from moshivis_ros.evaluation.examination import Result
from moshivis_ros.evaluation.scoring import Score, auc, score
from moshivis_ros.training import dialogues
from moshivis_ros.training.dialogues import Exchange


@pytest.mark.parametrize(
    ("exchange", "text", "right"),
    [
        (Exchange("colour", "", "It is red.", ("red",)), "It is red.", True),
        (Exchange("colour", "", "It is red.", ("red",)), "It is red or blue.", False),
        (Exchange("colour", "", "No, it is red.", ("no", "red")), "Yes, it is red.", False),
        (Exchange("number", "", "I see two.", ("two",)), "I see two.", True),
        (Exchange("number", "", "I see two.", ("two",)), "I see three.", False),
        (Exchange("place", "", "It is on the left.", ("left",)), "", False),
        (Exchange("presence", "", "Yes, there is one.", ("yes",)), "Yes, there is one.", True),
        (Exchange("misleading", "", "I do not see a cup.", ("not",)), "It is red.", False),
        (Exchange("small talk", "", "I am very young.", ()), "I am very young.", True),
        (Exchange("small talk", "", "I am very young.", ()), "I am a small robot.", False),
    ],
)
def test_an_answer_is_right_by_the_words_that_matter(exchange: Exchange, text: str, right: bool) -> None:
    assert score(exchange, text).right is right


@pytest.mark.parametrize("kind", dialogues.QUESTIONS)
def test_the_true_answer_is_right(kind: str) -> None:
    rng = random.Random(kind)
    asked = [dialogues.QUESTIONS[kind](rng, dialogues.random_view(rng), rng.random() < 0.5) for _ in range(200)]
    assert all(score(exchange, exchange.answer).right for exchange in asked if exchange)
    assert any(asked)


def test_a_description_is_scored_by_what_it_names_and_what_it_invents() -> None:
    truth = Exchange("describe", "", "I see a red ball and a blue cup.", ("red ball", "blue cup"))
    assert score(truth, "I see a red ball and a blue cup.").right
    half = score(truth, "I see a red ball and a green cup.")
    assert (half.right, half.named, half.invented) == (False, 0.5, 1)
    twice = score(truth, "I see a red ball, a red ball and a blue cup.")
    assert (twice.right, twice.named, twice.invented) == (False, 1.0, 1)
    assert not score(Exchange("describe", "", "I see nothing.", ("nothing",)), "I see a red ball.").right


def test_a_kind_with_too_few_right_answers_is_named() -> None:
    right, wrong = Score(True, True), Score(False, False)
    scores = {"colour": [right, right, right, wrong], "place": [right, wrong]}
    results = {"written": Result(scores, {}, []), "spoken": Result({"colour": [right]}, {}, [])}
    assert list(below(results, 75)) == ["place (written prompt) 50 %"]
    assert not list(below(results, 50))


def test_auc() -> None:
    assert auc([3, 4], [1, 2]) == 1
    assert auc([1, 2], [3, 4]) == 0
    assert auc([1, 4], [2, 3]) == 0.5
    assert auc([1, 1], [1]) == 0.5


@pytest.mark.parametrize("option", [["--least", "75"], ["--recogniser", "r.safetensors"]], ids=["least", "recogniser"])
@pytest.mark.parametrize("other", [["--driving"], ["--voices", "held-out"]], ids=["driving", "voices"])
def test_an_option_that_would_be_ignored_is_refused(
    option: list[str], other: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "builtin", *option, *other]) == 2
    assert option[0] in capsys.readouterr().err


def test_a_recogniser_without_the_robots_takes_is_told_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dialogue_test, "load_model", lambda *_, **__: pytest.fail("loaded"))
    takes = tmp_path / "takes"
    assert main(["eval", "builtin", "--recogniser", str(tmp_path / "r.safetensors"), "--robot", str(takes)]) == 2
    told = capsys.readouterr().err
    assert f"moshivis_ros.training.make_takes {takes}" in told and "--robot" in told
