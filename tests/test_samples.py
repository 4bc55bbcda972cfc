"""Samples of training: what is interrupted, told, not understood and heard back, as tokens and weights."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
import pytest
import torch

from moshivis_ros.model.checkpoint import BUILTIN
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.training import dialogues
from moshivis_ros.training.dialogues import Exchange
from moshivis_ros.training.forward import kind_loss
from moshivis_ros.training.samples import Composer, Weights
from moshivis_ros.training.utterances import Library, Utterance


def utterance(first: int, frames: int) -> Utterance:
    codes = np.full((8, frames), first, np.int16)
    return Utterance(codes, (("one", 1.5), ("two", 3.5)), frames - 2.5, 0)


class Undamaged(Composer):
    """Puts no random tokens among those of the user."""

    def _damage(self, rng: random.Random, user: npt.NDArray[np.int64]) -> None: ...


@pytest.fixture(scope="module")
def composer() -> Composer:
    """Of sounds that tell what they are: 1 the user's, 2 the robot's, 3 the robot's echo, 0 silence."""
    config = ModelConfig.load(BUILTIN)
    answers, said = ["It is red.", "It is blue."], (("It", 1.5), ("is", 5.5), ("red", 9.5))
    library = Library(
        {question: [utterance(1, 8)] for question in ("What?", "And what?", "Blah.")},
        {answer: [Utterance(np.full((8, 20), 2, np.int16), said, 17.5, 0)] for answer in answers},
        (np.zeros((8, 30), np.int16),),
        {answer: [utterance(3, 20)] for answer in answers},
    )
    return Undamaged(config, Tokenizer.load(BUILTIN, config).encode, library, Weights())


TALK = [Exchange("colour", "What?", "It is red.", ("red",)), Exchange("colour", "And what?", "It is blue.", ("blue",))]


def test_a_question_into_an_answer_ends_it(composer: Composer) -> None:
    config = composer.config
    for seed in range(20):
        sample = composer.compose(random.Random(seed), "spoken", TALK, 112, False, interrupted=1.0)
        own, user = sample.tokens[1], sample.tokens[1 + config.dep_q]
        (second,) = (frame for frame in range(9, 112) if user[frame] == 1 and user[frame - 1] != 1 and frame > np.argmax(user == 1))
        spoken = np.flatnonzero(own == 2)
        stop = next(a for a, b in zip(spoken, [*spoken[1:], 999]) if b > a + 1)
        assert 3 <= stop + 1 - second <= 6, "the robot speaks when the question begins, and not for long after"
        assert (sample.tokens[0, stop + 1 : second + 6] == config.padding_token_id).all()
        assert sample.weight[stop + 1] == Weights().other, "stopping is learned like a word"
        assert (own[stop + 1 : second + 8] == 0).all() and (own[second + 8 :] == 2).any(), "it answers the second one"


def test_what_the_robot_hears_of_itself_before_a_word_may_come_from_another_answer(composer: Composer) -> None:
    def said(code: int, last: str) -> Utterance:
        return Utterance(np.full((8, 20), code, np.int16), (("It", 1.5), ("is", 5.5), (last, 9.5)), 17.5, 0)

    library = Library(composer.library.user, {"It is red.": [said(2, "red")], "It is blue.": [said(4, "blue")]}, composer.library.silence)
    mixing = Undamaged(composer.config, composer.encode, library, Weights())
    before = set()
    for seed in range(20):
        sample = mixing.compose(random.Random(seed), "spoken", TALK[:1], 60, False)
        own = sample.tokens[1][sample.speaking]
        assert (own[8:] == 2).all() and len(own) == 20
        before |= set(own[:8].tolist())
    assert before == {2, 4}


def test_what_comes_too_late_to_fit_interrupts_nothing(composer: Composer) -> None:
    sample = composer.compose(random.Random(0), "spoken", TALK, 45, False, interrupted=1.0)
    assert np.count_nonzero(sample.tokens[1] == 2) == 20


def test_what_it_is_told_to_say_is_learned_as_sound_and_rhythm_alone(composer: Composer) -> None:
    told = Exchange(dialogues.TOLD, "", "It is red.")
    sample = composer.compose(random.Random(0), "spoken", [told], 60, False)
    words = np.flatnonzero(sample.tokens[0] > composer.config.padding_token_id)
    assert sample.speaking.any() and (sample.tokens[1 + composer.config.dep_q] != 1).all()
    assert not sample.weight[words[0] - 1 : words[0] + 1].any(), "it does not learn to begin by itself"
    assert sample.told[words[0] + 1 : words[-1] + 1].all() and sample.told.sum() == words[-1] - words[0]
    logits = torch.randn(1, 60, composer.config.text_card)
    same = logits.clone()
    tokens = torch.from_numpy(sample.tokens[:1])
    spoken = logits.argsort(-1)[0, words[1]]
    pieces = spoken[spoken > composer.config.padding_token_id][:2]
    same[0, words[1], pieces] = logits[0, words[1], pieces.flip(0)]
    a, b = (kind_loss(each, tokens, composer.config) for each in (logits, same))
    assert torch.allclose(a, b), "which word comes makes no difference"
    assert not torch.allclose(a, kind_loss(logits, tokens.clamp(max=3), composer.config))


def test_speech_that_is_no_question_has_no_words(composer: Composer) -> None:
    unknown = Exchange(dialogues.UNKNOWN_SPEECH, "Blah.", "It is red.")
    heard = [composer.compose(random.Random(0), "heard", [each], 60, False).heard.max() for each in (unknown, TALK[0])]
    assert heard[0] < 0 <= heard[1]


def test_it_hears_itself_a_little_later(composer: Composer) -> None:
    sample = composer.compose(random.Random(0), "spoken", TALK, 112, False, echo=1.0)
    own, user = sample.tokens[1], sample.tokens[1 + composer.config.dep_q]
    lag = np.flatnonzero(user == 3)[0] - np.flatnonzero(own == 2)[0]
    assert 1 <= lag <= 4 and not (composer.compose(random.Random(0), "spoken", TALK, 112, False).tokens == 3).all()
