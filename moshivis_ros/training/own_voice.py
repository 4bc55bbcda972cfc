"""The voice of a checkpoint itself: it says what it is told, so new dialogues for it need no other program that speaks."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from moshivis_ros.audio import FRAME_SECONDS, FRAME_SIZE
from moshivis_ros.conversation import Conversation
from moshivis_ros.training.people import trimmed
from moshivis_ros.training.samples import TEXT_AHEAD
from moshivis_ros.training.voices import Sound, Speech, Word

SEED = 0


class OwnVoice:
    """Every text is spoken once (about as long as it lasts, on one core) and kept."""

    def __init__(self, model: str = "builtin") -> None:
        self._model = model
        self._said: dict[str, Speech] = {}

    def say(self, text: str) -> Speech:
        """Raises WordsError for words that the checkpoint cannot say, and names them."""
        if text not in self._said:
            self._said[text] = self._speak(text)
        return self._said[text]

    @cached_property
    def _conversation(self) -> Conversation:
        return Conversation.load(self._model, greet=False, seed=SEED)

    def _speak(self, text: str) -> Speech:
        conversation = self._conversation
        conversation.reset()
        saying = conversation.say(text)
        silence = np.zeros(FRAME_SIZE, np.float32)
        sounds: list[Sound] = []
        starts: list[float] = []
        while not saying.done:
            sounds.append(conversation.step(silence).pcm)
            starts += [(len(sounds) - 1 + TEXT_AHEAD) * FRAME_SECONDS] * (saying.words - len(starts))
        pcm = np.concatenate(sounds)
        ends = [*starts[1:], len(pcm) / FRAME_SIZE * FRAME_SECONDS]
        return trimmed(Speech(pcm, tuple(Word(*word) for word in zip(text.split(), starts, ends, strict=True))))
