"""The recogniser that judges whether the speech can be understood."""

from __future__ import annotations

from pathlib import Path

import pytest

from moshivis_ros.errors import CheckpointError, MissingDependencyError
from moshivis_ros.evaluation.intelligibility import Recogniser, recordings, word_error_rate

WORDS = ["ball", "bottle", "red"]


def test_word_error_rate() -> None:
    assert word_error_rate([(["a", "red", "ball"], ["a", "red", "ball"])]) == 0
    assert word_error_rate([(["a", "red", "ball"], ["a", "blue"]), (["one"], ["one"])]) == 0.5
    assert word_error_rate([(["yes"], ["no", "it", "is"])]) == 3


def test_a_recogniser_of_three_words_tells_them_apart_in_any_order(tmp_path: Path) -> None:
    try:
        known, unknown = recordings(WORDS, 96), recordings(WORDS, 20, seed=1)
    except MissingDependencyError as error:
        pytest.skip(str(error))
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
