"""The recogniser that judges whether the speech can be understood."""

from __future__ import annotations

import random
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from torch import Tensor

from moshivis_ros.errors import CheckpointError, MissingDependencyError
from moshivis_ros.evaluation import intelligibility
from moshivis_ros.evaluation.intelligibility import Recogniser, recordings, speech_line, word_error_rate
from moshivis_ros.training import make_takes
from moshivis_ros.training.voices import SAMPLE_RATE, EspeakVoice, Sound, Speech, Word

WORDS = ["ball", "bottle", "red"]


def test_word_error_rate() -> None:
    assert word_error_rate([(["a", "red", "ball"], ["a", "red", "ball"])]) == 0
    assert word_error_rate([(["a", "red", "ball"], ["a", "blue"]), (["one"], ["one"])]) == 0.5
    assert word_error_rate([(["yes"], ["no", "it", "is"])]) == 3


def test_a_recogniser_of_three_words_tells_them_apart_in_any_order(tmp_path: Path) -> None:
    rng = random.Random(0)
    texts = {" ".join(rng.choices(WORDS, k=rng.randint(1, 8))) for _ in range(60)}
    try:
        takes = {text: [EspeakVoice().say(text)] for text in sorted(texts)}
    except MissingDependencyError as error:
        pytest.skip(str(error))
    known, unknown = recordings(takes, 96), recordings(takes, 20, seed=1)
    recogniser = Recogniser(WORDS)
    recogniser.train(known, 20)
    recogniser.save(tmp_path / "recogniser.safetensors")
    loaded = Recogniser.load(tmp_path / "recogniser.safetensors")
    heard = [([word.text for word in said], loaded(sound)) for said, sound in unknown]
    assert word_error_rate(heard) < 0.1
    shuffled = [(said, other) for (said, _), (_, other) in zip(heard, heard[1:])]
    assert word_error_rate(shuffled) > 0.5


def test_a_file_that_is_no_recogniser_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recogniser.safetensors"
    path.write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"recogniser\.safetensors"):
        Recogniser.load(path)


def test_the_model_is_judged_beside_its_voice_and_takes_are_enough_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words are tones here; the codec is well, and what the model said has one word too many."""
    words = ["it", "is", "red", "blue"]

    def said(text: str) -> Sound:
        times = np.arange(SAMPLE_RATE // 5) / SAMPLE_RATE
        tones = (np.cos(2 * np.pi * 500 * (1 + words.index(word)) * times) for word in intelligibility.words_of(text))
        return 0.5 * np.concatenate(list(tones)).astype(np.float32)

    class Ear:
        def __init__(self) -> None:
            self.words = words

        def __call__(self, pcm: Sound) -> list[str]:
            heard = []
            for part in np.trim_zeros(pcm).reshape(-1, SAMPLE_RATE // 5):
                loudest = np.abs(np.fft.rfft(part)).argmax() * 5
                heard.append(words[round(loudest / 500) - 1])
            return heard

    answers = ["It is red.", "It is blue."]
    for k, text in enumerate(answers):
        timed = tuple(Word(word, 0.2 * n, 0.2 * n + 0.2) for n, word in enumerate(text.split()))
        make_takes.write(tmp_path / f"{k:05}.npz", text, Speech(said(text), timed))
    spoken = {k: said(text) for k, text in enumerate(["It is red.", "It is blue blue.", "Red it."])}

    def decoded(mimi: object, codes: Tensor) -> list[Sound]:
        return [spoken[int(codes[0, 0, 0])]]

    monkeypatch.setattr(intelligibility, "mimi_sound", decoded)
    monkeypatch.setattr(intelligibility, "through", lambda mimi, sounds: sounds)
    replies = [(text, np.full((1, 1), k)) for k, text in enumerate([*answers, "Red it."])]
    line = speech_line(cast(Recogniser, Ear()), None, make_takes.Kept(tmp_path), replies)
    assert "3 replies, word error rate 12 % of their own text" in line  # one of 8
    assert "its voice with 2 of the same texts 0 %, after the codec 0 %" in line
