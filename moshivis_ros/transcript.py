"""What was said and when, from the frames of a conversation: pieces of words, whole utterances, pictures looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moshivis_ros.conversation import Frame

SENTENCE_ENDS = (".", "!", "?")


@dataclass(frozen=True)
class Piece:
    """A piece of a word, as the tokenizer cuts it; pieces join to text without anything between them."""

    time: float  # seconds from the start: when its frame begins
    text: str
    gate: float  # how much the model was looking at the picture, 0..1
    utterance: int  # number of the utterance it belongs to, from 0


@dataclass(frozen=True)
class Utterance:
    """What was said without a pause."""

    start: float  # seconds: its first frame begins
    end: float  # seconds: its last frame with text ends
    text: str
    gate: float  # mean over its pieces, 0..1
    number: int  # from 0


@dataclass(frozen=True)
class Refresh:
    """A new picture was in use from this time on."""

    time: float  # seconds
    reason: str


def utterance_of(pieces: Sequence[Piece], frame_seconds: float = 0.08) -> Utterance:
    """What these pieces are together."""
    return Utterance(
        start=pieces[0].time,
        end=round(pieces[-1].time + frame_seconds, 6),
        text="".join(piece.text for piece in pieces).strip(),
        gate=sum(piece.gate for piece in pieces) / len(pieces),
        number=pieces[0].utterance,
    )


class Transcript:
    """Collects frames. An utterance is over after `pause` seconds without text, half of that after a full stop.

    Times are counted in input frames of `frame_seconds` each, so they belong to the sound that goes with them.
    """

    def __init__(self, frame_seconds: float = 0.08, pause: float = 1.0) -> None:
        self.pieces: list[Piece] = []
        self.utterances: list[Utterance] = []
        self.refreshes: list[Refresh] = []
        self._frame_seconds = frame_seconds
        self._pause = pause
        self._open: list[Piece] = []  # of the utterance now being said
        self._seen = 0  # refreshes

    def add(self, frame: Frame) -> list[Piece | Utterance]:
        """What this frame brought: an utterance that is over, a new piece, both or neither."""
        time = round(frame.index * self._frame_seconds, 6)
        status = frame.image
        if status.refreshes > self._seen:
            self.refreshes.append(Refresh(time, status.reason))
        self._seen = status.refreshes
        news: list[Piece | Utterance] = []
        if self._open and time - self._end() >= self._patience():
            news += self.finish()
        if frame.text:
            piece = Piece(time, frame.text, frame.gate_normalised, len(self.utterances))
            self.pieces.append(piece)
            self._open.append(piece)
            news.append(piece)
        return news

    def finish(self) -> list[Utterance]:
        """The utterance that was still being said, as it is now."""
        if not self._open:
            return []
        utterance = utterance_of(self._open, self._frame_seconds)
        self.utterances.append(utterance)
        self._open = []
        return [utterance]

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """Plain data: pieces [time, text, gate], utterances [start, end, text, gate], refreshes [time, reason]."""
        return {
            "pieces": [{"time": p.time, "text": p.text, "gate": p.gate} for p in self.pieces],
            "utterances": [
                {"start": u.start, "end": u.end, "text": u.text, "gate": u.gate} for u in self.utterances
            ],
            "refreshes": [{"time": r.time, "reason": r.reason} for r in self.refreshes],
        }

    def _end(self) -> float:
        return round(self._open[-1].time + self._frame_seconds, 6)

    def _patience(self) -> float:
        return self._pause / 2 if self._open[-1].text.endswith(SENTENCE_ENDS) else self._pause
