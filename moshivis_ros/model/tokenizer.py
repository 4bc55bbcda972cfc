"""Text tokens to text and back: the SentencePiece model of a checkpoint."""

from __future__ import annotations

import codecs
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from moshivis_ros.errors import CheckpointError, WordsError
from moshivis_ros.model.config import ModelConfig


class Tokenizer:
    """The pieces of text that the model reads and says."""

    def __init__(
        self, pieces: SentencePieceProcessor, silent: frozenset[int], says: frozenset[str] = frozenset()
    ) -> None:
        self._pieces = pieces
        self._silent = silent  # ids that are no text: padding, end of padding
        self._says = says  # words that the model has learned to say; none: whatever has pieces

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
        silent = frozenset((config.padding_token_id, config.end_of_text_padding_id))
        return cls(pieces, silent, frozenset(config.says.split()))

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        ids: list[int] = self._pieces.encode(text)
        return ids

    def words(self, text: str) -> list[list[int]]:
        """The pieces of every word of a text that is to be said. Where a word has none as it is written, with a small or a
        capital letter at its beginning. Raises WordsError with the words that the model cannot say.
        """
        words = text.split()
        if not words:
            raise WordsError("there is nothing to say: the text is empty")
        found = [self._word(word) for word in words]
        if unknown := [word.strip(".,?!;:") or word for word, pieces in zip(words, found) if pieces is None]:
            raise WordsError(f"the model cannot say: {', '.join(dict.fromkeys(unknown))}")
        return [pieces for pieces in found if pieces]

    def _word(self, word: str) -> list[int] | None:
        """Its pieces; None: it has none."""
        for form in (word, word.lower(), word.capitalize()):
            pieces = self.encode(form)
            known = pieces and not any(
                piece in self._silent or self._pieces.is_unknown(piece) or self._pieces.is_control(piece)
                for piece in pieces
            )
            if known and (not self._says or form.strip(".,?").lower() in self._says):
                return pieces
        return None

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
