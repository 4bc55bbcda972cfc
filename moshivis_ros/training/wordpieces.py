"""The tokenizer of the miniature: SentencePiece over the words of the dialogues, one piece for each."""

from __future__ import annotations

import io
import re
from pathlib import Path

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from moshivis_ros.errors import ConfigError
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.training.dialogues import sentences


def make_tokenizer(config: ModelConfig, folder: Path | str) -> Path:
    """Write the SentencePiece model of ``config`` to ``folder``, with as many pieces as text_card says."""
    texts = sentences()
    words = sorted({word for text in texts for word in re.findall(r"[A-Za-z]+", text)})
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=config.text_card,
            user_defined_symbols=["▁" + word for word in words],
            unk_id=config.end_of_text_padding_id,
            bos_id=1,
            eos_id=2,
            pad_id=config.padding_token_id,
            normalization_rule_name="identity",
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ConfigError(f"text_card {config.text_card} does not fit {len(words)} words: {error}") from error
    path = Path(folder) / config.text_tokenizer
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.getvalue())
    pieces = SentencePieceProcessor(model_file=str(path))
    split = [word for word in words if len(pieces.encode(word)) != 1]
    if split or pieces.get_piece_size() != config.text_card:
        raise ConfigError(
            f"text_card {config.text_card}: {pieces.get_piece_size()} pieces, words split: {split}"
        )
    return path
