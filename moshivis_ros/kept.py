"""What a conversation leaves on disk."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from moshivis_ros.audio import FRAME_SIZE, SAMPLE_RATE, Float, files
from moshivis_ros.errors import OutputError
from moshivis_ros.outputs import TranscriptFile
from moshivis_ros.transcript import Piece, Refresh, Transcript, Utterance

if TYPE_CHECKING:
    from moshivis_ros.conversation import Frame


class Kept:
    """What a conversation leaves: its voice and its transcript, written while it goes on, the one also without the other.

    Raises OutputError at once for what cannot be written. What fails later is said, and `failed`.
    """

    def __init__(self, voice: str | None, transcript: str | None, seconds: float) -> None:
        self.transcript = Transcript()
        self.failed = False
        self._frames = 0
        self._files: dict[str, files.Writer | TranscriptFile] = {}
        try:
            if voice:
                self._files["voice"] = files.Writer(voice, seconds=seconds)
            if transcript:
                self._files["transcript"] = TranscriptFile(transcript)
        except OutputError:
            self._discard()
            raise

    def add(self, frame: Frame, voice: Float) -> list[Piece | Utterance]:
        """A frame of the conversation, and as much of its sound as is wanted -> what it brought."""
        self._frames += 1
        seen = len(self.transcript.refreshes)
        news = self.transcript.add(frame)
        self._attempt("voice", lambda file: file.write(voice))
        for item in [*news, *self.transcript.refreshes[seen:]]:
            self._note(item)
        return news

    def finish(self) -> list[Utterance]:
        """What was still being said."""
        news = self.transcript.finish()
        for item in news:
            self._note(item)
        return news

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not self._frames:
            self._discard()
            return
        if kind is not None and self._files:
            seconds = self._frames * FRAME_SIZE / SAMPLE_RATE
            print(f"moshivis: ended early; the first {seconds:.1f} s are kept", file=sys.stderr)
        self.finish()
        self._attempt("voice", lambda file: file.close())
        self._attempt("transcript", lambda file: file.close(self.transcript.to_json()))

    def _note(self, item: Piece | Utterance | Refresh) -> None:
        self._attempt("transcript", lambda file: file.add(type(item).__name__.lower(), asdict(item)))

    def _attempt(self, name: str, do: Callable[[Any], None]) -> None:
        """With a file that is open. What goes wrong is said, and ends that file only."""
        if (file := self._files.get(name)) is not None:
            try:
                do(file)
            except OutputError as error:
                del self._files[name]
                self.failed = True
                print(f"moshivis: {error}", file=sys.stderr)

    def _discard(self) -> None:
        for file in self._files.values():
            file.discard()
