"""Tokens to text, one at a time, as they come from the model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from moshivis_ros.errors import CheckpointError
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.init import init_checkpoint
from moshivis_ros.model.tokenizer import Tokenizer

PAD, END_OF_PAD, BOS, EOS = 3, 0, 1, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return init_checkpoint(tmp_path_factory.mktemp("tokenizer") / "tiny")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder, ModelConfig.load(folder))


@pytest.mark.parametrize(
    "sentence", ["I see a red ball.", "a café 😀 in Zürich", "ein Ärger: «naïve» 日本", "x  y"]
)
def test_pieces_join_to_the_sentence(tokenizer: Tokenizer, sentence: str) -> None:
    decoder = tokenizer.decoder()
    pieces = [decoder.push(token) for token in tokenizer.encode(sentence)]
    assert "".join(piece for piece in pieces if piece is not None).strip() == " ".join(sentence.split())


def test_words_start_with_a_space(tokenizer: Tokenizer) -> None:
    decoder = tokenizer.decoder()
    pieces = [decoder.push(token) or "" for token in tokenizer.encode("the door")]
    assert "".join(pieces) == " the door"


def test_silent_tokens_are_none_and_do_not_part_a_character(tokenizer: Tokenizer) -> None:
    decoder = tokenizer.decoder()
    pieces = []
    for token in tokenizer.encode("é"):
        pieces += [decoder.push(token), *(decoder.push(silent) for silent in (PAD, END_OF_PAD, BOS, EOS))]
    assert [piece for piece in pieces if piece is not None] == [" ", "é"]


def test_a_broken_character_shows_once_and_loses_nothing(tokenizer: Tokenizer) -> None:
    decoder = tokenizer.decoder()
    half = tokenizer.encode("😀")[:-1]
    word = tokenizer.encode("the")
    assert "".join(decoder.push(token) or "" for token in half + word) == " \N{REPLACEMENT CHARACTER} the"


def test_two_decoders_do_not_mix(tokenizer: Tokenizer) -> None:
    one, two = tokenizer.decoder(), tokenizer.decoder()
    space, *smile = tokenizer.encode("😀")
    for token in smile[:-1]:
        assert one.push(token) is None
    assert two.push(space) == " "
    assert one.push(smile[-1]) == "😀"


def test_another_models_tokenizer_is_refused(folder: Path) -> None:
    config = dataclasses.replace(ModelConfig.load(folder), text_card=32000)
    with pytest.raises(CheckpointError, match=r"384 pieces, the network 32000 \(text_card\)"):
        Tokenizer.load(folder, config)


def test_a_missing_or_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    config = ModelConfig.preset("tiny")
    with pytest.raises(CheckpointError, match="there is no tokenizer_spm_32k_3.model"):
        Tokenizer.load(tmp_path, config)
    (tmp_path / config.text_tokenizer).write_bytes(b"<html>not found</html>")
    with pytest.raises(CheckpointError, match="tokenizer_spm_32k_3.model is damaged"):
        Tokenizer.load(tmp_path, config)
    (tmp_path / config.text_tokenizer).write_bytes(b"")
    with pytest.raises(CheckpointError, match="tokenizer_spm_32k_3.model is damaged"):
        Tokenizer.load(tmp_path, config)
