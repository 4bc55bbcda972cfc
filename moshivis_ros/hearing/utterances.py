"""Frames with the probability of speech in, utterances out: where they begin and end."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from moshivis_ros.audio import Float
from moshivis_ros.hearing import FRAME_SECONDS, SAMPLE_RATE
from moshivis_ros.hearing.recogniser import LONGEST

BEGIN, GO_ON = 0.5, 0.35  # probabilities at which speech begins, and at which it still is some
SHORTEST = 3  # frames of speech in a row with which an utterance begins: a click is none
LEAD = 0.3  # seconds of sound before that belong to it
TAIL = 0.2  # seconds of silence after the last word that are given to the recogniser


@dataclass(frozen=True)
class Utterance:
    """`start`, `end`: of the speech, in nanoseconds; `sound`: float32 [n] at 16 kHz, with some silence around it."""

    number: int  # from 0
    start: int
    end: int
    sound: Float
    final: bool  # False: it goes on


class Utterances:
    """`pause`: seconds of silence that end an utterance; `every`: seconds of speech after which what there is so far is
    given out, 0: never. One that is longer than a recogniser takes (LONGEST) is ended, and goes on as another.
    """

    def __init__(self, pause: float, every: float) -> None:
        self._pause, self._every = pause, every
        self._frames: deque[Float] = deque(maxlen=round(LEAD / FRAME_SECONDS) + SHORTEST)
        self._said: list[Float] = []  # of the utterance
        self._row = 0  # frames of speech in a row
        self._number = -1
        self._start = self._end = 0
        self._silent = self._since = 0.0  # seconds: without speech; of speech since something was given out

    @property
    def speaking(self) -> bool:
        return bool(self._said)

    def push(self, stamp: int, frame: Float, probability: float) -> Utterance | None:
        """`stamp`: of the frame's first sample, nanoseconds."""
        over = stamp + round(FRAME_SECONDS * 1e9)
        if not self._said:
            self._frames.append(frame)
            self._row = self._row + 1 if probability >= BEGIN else 0
            if self._row >= SHORTEST:
                self._number += 1
                self._said, self._row = list(self._frames), 0
                self._start, self._end = over - round(SHORTEST * FRAME_SECONDS * 1e9), over
                self._silent = self._since = 0.0
            return None
        self._said.append(frame)
        self._since += FRAME_SECONDS
        if probability >= GO_ON:
            self._end, self._silent = over, 0.0
        else:
            self._silent += FRAME_SECONDS
        final = self._silent >= self._pause or len(self._said) * FRAME_SECONDS >= LONGEST
        if not final and not 0 < self._every <= self._since:
            return None
        self._since = 0.0
        sound = np.concatenate(self._said)
        beyond = round((self._silent - TAIL) * SAMPLE_RATE)
        found = Utterance(self._number, self._start, self._end, sound[: sound.size - max(0, beyond)], final)
        if final:
            self._said = []
            self._frames.clear()
        return found
