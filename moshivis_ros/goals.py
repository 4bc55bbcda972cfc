"""What other software wants of a conversation: that it says something, that it answers a question. One goal at a time.

Who wins: a goal waits until neither the robot nor the user speaks, and goals that came before it are over; or it cuts
what is being said; or it is refused where it would have to wait. The user's speech ends what is being said for a goal,
unless that is uninterruptible; it does not end a question.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from moshivis_ros.audio import FRAME_SIZE, Float
from moshivis_ros.audio.quiet import Quiet
from moshivis_ros.audio.voice import speak
from moshivis_ros.errors import ConfigError
from moshivis_ros.model.script import TAIL, Script
from moshivis_ros.model.stream import Stream
from moshivis_ros.model.tokenizer import Tokenizer

Interrupt = Literal["wait", "cut", "refuse"]

PAUSE = 12  # frames (0.96 s) without text, or without the user's voice, after which one is silent: an answer begins within
SPEECH = 3  # frames (0.24 s) of sound in a row that are the user's speech: a knock is none
HUSH = 8  # frames (0.64 s) for which the robot is silent after it was cut off
LEFT_OVER = 3  # frames of sound still to come of words whose text was before a cut
ANSWER = 62  # frames (5 s) for an answer to begin
SENTENCE_PAUSE = 7  # frames without text that end an answer after a full stop; PAUSE elsewhere
ENDS = (".", "!", "?", "…")


@dataclass(eq=False)
class Goal:
    """One thing wanted. It goes on with every step of the conversation. ``reason``: why it has not succeeded."""

    text: str
    interrupt: Interrupt = "wait"
    uninterruptible: bool = False
    reason: str = field(default="", init=False)
    cancelled: bool = field(default=False, init=False)
    _over: threading.Event = field(default_factory=threading.Event, init=False)

    def __post_init__(self) -> None:
        if self.interrupt not in get_args(Interrupt):
            raise ConfigError(f"interrupt must be wait, cut or refuse, not {self.interrupt!r}")

    @property
    def done(self) -> bool:
        return self._over.is_set()

    @property
    def success(self) -> bool:
        return self.done and not self.reason

    def cancel(self) -> None:
        """End it with the next frame; from any thread."""
        self.cancelled = True

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is done, while another thread steps the conversation. False: not within ``timeout`` seconds."""
        return self._over.wait(timeout)

    def end(self, reason: str = "") -> None:
        """For the conversation only."""
        self.reason = reason
        self._over.set()


@dataclass(eq=False)
class Saying(Goal):
    """Words to be said. A word counts as said when its text comes, two frames or so before its sound."""

    script: Script = field(kw_only=True)

    @property
    def words(self) -> int:
        """That were said, of ``total``."""
        return self.script.words

    @property
    def total(self) -> int:
        return self.script.total

    @property
    def said(self) -> str:
        return " ".join(self.text.split()[: self.words])


@dataclass(eq=False)
class Asking(Goal):
    """A question, float32 [n, 1920] of ``sound``, heard beside the microphone or (``alone``) in its place.

    answer: what was said since. gate: mean of its pieces, 0..1. image: the ImageStatus when the answer began.
    """

    alone: bool = False
    sound: Float = field(kw_only=True)
    answer: str = field(default="", init=False)
    gate: float = field(default=0.0, init=False)
    image: Any = field(default=None, init=False)
    heard: int = field(default=0, init=False)  # frames of the question
    _gates: list[float] = field(default_factory=list, init=False)
    _quiet: int = field(default=0, init=False)  # frames since the question or the newest text

    def hear(self, pcm: Float) -> Float:
        """The microphone's frame with the question's."""
        if self.heard == len(self.sound):
            return pcm
        self.heard += 1
        question: Float = self.sound[self.heard - 1]
        return question if self.alone else np.clip(pcm + question, np.float32(-1), np.float32(1))

    def listen(self, text: str | None, gate: float, image: Any) -> None:
        """What the robot said in this frame. Ends when the answer does."""
        if text:
            self.image = self.image if self.answer else image
            self.answer = (self.answer + text).lstrip()
            self._gates.append(gate)
            self.gate = float(np.mean(self._gates))
            self._quiet = 0
        elif self.heard == len(self.sound):
            self._quiet += 1
            most = ANSWER if not self.answer else SENTENCE_PAUSE if self.answer.endswith(ENDS) else PAUSE
            if self._quiet >= most:
                self.end("" if self.answer else "no answer came within 5 s")


class Goals:
    """``say`` and ``ask`` may be called from any thread; ``hear`` before each step and ``speak`` after it belong to that of
    the steps.

    ``greet``: False keeps the robot silent until the user speaks or a goal begins.
    """

    def __init__(self, stream: Stream, tokenizer: Tokenizer, greet: bool) -> None:
        self._stream, self._tokenizer = stream, tokenizer
        self._silent = stream.config.padding_token_id, stream.config.end_of_text_padding_id
        self._greet = greet
        self._inbox: deque[Goal] = deque()
        self._waiting: list[Goal] = []
        self._current: Goal | None = None
        self.start()

    def start(self) -> None:
        """A new conversation; the stream was reset."""
        self._drop("a new conversation began")
        self._quiet = Quiet()
        self._loud = 0  # frames of sound in a row
        self._user = self._robot = PAUSE  # frames since they spoke
        self._hush = 0  # frames of silence still to come
        self._left = 0  # frames of sound to come of words that were cut off
        self._ended = False  # cut off, and no word since: the voice may go on without any
        self._shy = not self._greet
        self._delayed = 0  # frames until the first text of what is to be said comes out
        self._tail = 0
        if self._shy:
            self._stream.hush()

    def say(self, text: str, interrupt: Interrupt, uninterruptible: bool) -> Saying:
        """interrupt: ``wait`` until neither the robot nor the user speaks, and earlier goals are over; ``cut`` them short;
        or ``refuse`` to wait. The user's speech ends it unless ``uninterruptible``.
        Raises WordsError for words that the model cannot say, and names them.
        """
        script = Script(self._tokenizer.words(text), *self._silent)
        goal = Saying(text, interrupt, uninterruptible, script=script)
        self._inbox.append(goal)
        return goal

    def ask(self, text: str, alone: bool, voice_command: str) -> Asking:
        """Returns when ``voice_command`` (see audio/voice.py, and for what is raised) has spoken. ``alone``: the microphone
        is not heard meanwhile.
        """
        goal = Asking(text, alone=alone, sound=speak(text, voice_command).reshape(-1, FRAME_SIZE))
        self._inbox.append(goal)
        return goal

    def hear(self, pcm: Float) -> tuple[Float, bool]:
        """The frame to hear for that of the microphone; and whether what was said so far is no longer meant."""
        begins_to_speak = self._listen(pcm)
        cut = self._take() | self._stop(begins_to_speak)
        if self._hush:
            self._hush -= 1
            if not self._hush:
                self._stream.hush(False)
        if self._shy and begins_to_speak:
            self._shy = False
            self._stream.hush(False)
        if self._current is None and self._waiting and (self._waiting[0].interrupt != "wait" or self._idle):
            self._begin(self._waiting.pop(0))
        goal = self._current
        return (goal.hear(pcm) if isinstance(goal, Asking) else pcm), cut

    def speak(
        self, token: int, text: str | None, pcm: Float, gate: float, image: Any
    ) -> tuple[str | None, Float]:
        """The text and the sound to give for those of the network."""
        goal = self._current
        if isinstance(goal, Saying):
            self._follow(goal, token)
        if self._shy or self._hush:
            text = None
        self._ended &= not text
        if self._shy or self._hush or self._left or self._ended:
            self._left = max(0, self._left - 1)
            pcm = np.zeros(FRAME_SIZE, np.float32)
        self._robot = 0 if text else self._robot + 1
        if isinstance(goal, Asking):
            goal.listen(text, gate, image)
        if goal is not None and goal.done:
            self._current = None
        return text, pcm

    @property
    def _idle(self) -> bool:
        return min(self._user, self._robot) >= PAUSE

    def _listen(self, pcm: Float) -> bool:
        """Whether the user begins to speak."""
        self._loud = 0 if self._quiet(pcm) else self._loud + 1
        self._user = 0 if self._loud >= SPEECH else self._user + 1
        return self._loud == SPEECH

    def _take(self) -> bool:
        """New goals, by what they want of what is going on; whether one cuts it."""
        cut = False
        while self._inbox:
            goal = self._inbox.popleft()
            if goal.interrupt == "cut":
                cut |= self._robot < PAUSE or self._current is not None
                self._drop("another goal cut in", inbox=False)
                self._left = LEFT_OVER if cut else 0
            elif goal.interrupt == "refuse" and (reason := self._busy()):
                goal.end(reason)
                continue
            self._waiting.append(goal)
        return cut

    def _busy(self) -> str:
        if self._current is not None or self._waiting:
            return "another goal waits" if self._waiting else "another goal is being served"
        return (
            "the robot is speaking"
            if self._robot < PAUSE
            else "the user is speaking"
            if self._user < PAUSE
            else ""
        )

    def _stop(self, begins_to_speak: bool) -> bool:
        """End what was cancelled, and what the user's speech ends; whether that cuts what is being said."""
        for goal in [goal for goal in self._waiting if goal.cancelled]:
            goal.end("cancelled")
            self._waiting.remove(goal)
        current = self._current
        if current is None:
            return False
        spoke = begins_to_speak and isinstance(current, Saying) and not current.uninterruptible
        if not (current.cancelled or spoke):
            return False
        current.end("cancelled" if current.cancelled else "the user spoke")
        self._current = None
        self._hush, self._ended = HUSH + 1, True
        self._stream.hush()
        return True

    def _begin(self, goal: Goal) -> None:
        self._current = goal
        if self._shy or self._hush:
            self._shy, self._hush = False, 0
            self._stream.hush(False)
        if isinstance(goal, Saying):
            self._delayed = self._stream.config.max_delay
            self._tail = TAIL
            self._stream.write_script(goal.script, begin=True)

    def _follow(self, goal: Saying, token: int) -> None:
        """Count the pieces that come out, and have the next ones ready."""
        script = goal.script
        if script.over:
            self._tail -= 1
            if not self._tail:
                goal.end()
        elif self._delayed:
            self._delayed -= 1
        elif token not in self._silent:
            script.said += 1
            self._stream.write_script(script)

    def _drop(self, reason: str, inbox: bool = True) -> None:
        """End all goals that there are."""
        goals = [*filter(None, [self._current]), *self._waiting]
        while inbox and self._inbox:
            goals.append(self._inbox.popleft())
        for goal in goals:
            goal.end(reason)
        self._current, self._waiting = None, []
