"""Text tokens to text and back: the SentencePiece model of a checkpoint."""

from __future__ import annotations

import codecs
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from moshivis_ros.errors import CheckpointError
from moshivis_ros.model.config import ModelConfig


class Tokenizer:
    """The pieces of text that the model reads and says."""

    def __init__(self, pieces: SentencePieceProcessor, silent: frozenset[int]) -> None:
        self._pieces = pieces
        self._silent = silent  # ids that are no text: padding, end of padding

    @classmethod
    def load(cls, folder: Path | str, config: ModelConfig) -> Tokenizer:
        """Read the SentencePiece model of a checkpoint folder. Raises CheckpointError."""
        path = Path(folder) / config.text_tokenizer
        if not path.is_file():
            raise CheckpointError(f"there is no {path.name} in {folder}: download the checkpoint again")
        try:
            pieces = SentencePieceProcessor(model_file=str(path))
        except RuntimeError as error:
            raise CheckpointError(
                f"{path} is damaged or not a SentencePiece model: {error}; download it again"
            ) from error
        if pieces.get_piece_size() != config.text_card:
            raise CheckpointError(
                f"{path} is another model's tokenizer: it has {pieces.get_piece_size()} pieces, the network "
                f"{config.text_card} (text_card); take the tokenizer that belongs to these weights"
            )
        return cls(pieces, frozenset((config.padding_token_id, config.end_of_text_padding_id)))

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        ids: list[int] = self._pieces.encode(text)
        return ids

    def decoder(self) -> TextDecoder:
        """A decoder for one stream of tokens."""
        return TextDecoder(self._pieces, self._silent)


class TextDecoder:
    """Text of a stream of tokens, one token at a time.

    A word's first piece starts with a space, so ``"".join(pieces).strip()`` is the sentence.
    """

    def __init__(self, pieces: SentencePieceProcessor, silent: frozenset[int]) -> None:
        self._pieces = pieces
        self._silent = silent
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str | None:
        """The text that ``token`` completes; None for padding, control tokens and half a character."""
        if token in self._silent or self._pieces.is_control(token):
            return None
        piece: str = self._pieces.id_to_piece(token)
        if self._pieces.is_byte(token):  # "<0xE2>", one byte of a character that has no piece of its own
            return self._utf8.decode(bytes([int(piece[1:-1], 16)])) or None
        broken_off = self._utf8.decode(b"", final=True)
        return broken_off + piece.replace("▁", " ")  # SentencePiece's space, U+2581
