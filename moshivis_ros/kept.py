"""What a conversation leaves on disk."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from moshivis_ros.audio import FRAME_SIZE, SAMPLE_RATE, Float, files
from moshivis_ros.outputs import Outputs, TranscriptFile
from moshivis_ros.transcript import Piece, Refresh, Transcript, Utterance

if TYPE_CHECKING:
    from moshivis_ros.conversation import Frame


class Kept:
    """The voice of a conversation and its transcript, written while it goes on, the one also without the other.

    Raises OutputError at once for what cannot be written. What fails later is said, and `failed`.
    """

    def __init__(self, voice: str | None, transcript: str | None, seconds: float) -> None:
        """`seconds`: how much sound is expected."""
        self.transcript = Transcript()
        self._frames = 0
        openers: dict[str, Callable[[], Any]] = {}
        if voice:
            openers["voice"] = lambda: files.Writer(voice, seconds=seconds)
        if transcript:
            openers["transcript"] = lambda: TranscriptFile(transcript)
        self._outputs = Outputs(_say, **openers)

    @property
    def failed(self) -> bool:
        return self._outputs.failed

    def add(self, frame: Frame, voice: Float) -> list[Piece | Utterance]:
        """A frame of the conversation, and as much of its sound as is wanted -> what it brought."""
        self._frames += 1
        seen = len(self.transcript.refreshes)
        news = self.transcript.add(frame)
        self._outputs.attempt("voice", lambda file: file.write(voice))
        self._note(*news, *self.transcript.refreshes[seen:])
        return news

    def finish(self) -> list[Utterance]:
        """What was still being said."""
        news = self.transcript.finish()
        self._note(*news)
        return news

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not self._frames:
            self._outputs.discard()
            return
        self.finish()
        if kind is not None:
            _say(
                f"ended early, after {self._frames * FRAME_SIZE / SAMPLE_RATE:.1f} s; what there is of it is kept"
            )
        self._outputs.attempt("voice", lambda file: file.close())
        self._outputs.attempt("transcript", lambda file: file.close(self.transcript.to_json()))

    def _note(self, *items: Piece | Utterance | Refresh) -> None:
        for item in items:
            add = partial(TranscriptFile.add, kind=type(item).__name__.lower(), entry=asdict(item))
            self._outputs.attempt("transcript", add)


def _say(text: str) -> None:
    print(f"moshivis: {text}", file=sys.stderr)
