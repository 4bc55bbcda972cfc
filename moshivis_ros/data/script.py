"""The words of a dialogue about a picture: two roles of one language model talk, line by line."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from moshivis_ros.data import filters, prompts
from moshivis_ros.data.writer import Message, Writer, Written
from moshivis_ros.training.dialogues import Exchange

SWITCHES = 0.25  # share of the dialogues in which somebody changes the subject for a while
TRIES = 2  # for a line that cannot be used
SWITCH = "SWITCH"


class RejectedError(Exception):
    """A dialogue of which a line could not be used. Its text is the reason, in a word."""


@dataclass
class Tokens:
    """What was read and written."""

    requests: int = 0
    read: int = 0
    said: int = 0

    def add(self, other: Tokens) -> None:
        self.requests += other.requests
        self.read += other.read
        self.said += other.said


@dataclass
class Script:
    """A dialogue. kind: of prompts.NAMES."""

    kind: str
    caption: str
    exchanges: list[Exchange] = field(default_factory=list)


class Author:
    """Writes dialogues, one at a time; `tokens` counts what they took."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.tokens = Tokens()

    def caption(self, picture: bytes) -> str:
        """What is in a picture of which nothing is known. Raises RejectedError, EndpointError."""
        text = self._ask([Message("user", prompts.CAPTION, picture)]).text
        text = " ".join(filters.cleaned(text).split())
        if (wrong := filters.problem(text, True, ())) not in (
            None,
            "too long",
            "repetition",
            "speaks of a description",
        ):
            raise RejectedError(f"caption: {wrong}")
        return text

    def script(self, rng: random.Random, kind: str, caption: str, turns: int) -> Script:
        """`turns` questions and answers. Raises RejectedError, EndpointError."""
        script = Script(kind, caption)
        switch = rng.randrange(1, turns) if turns > 2 and rng.random() < SWITCHES else None
        for turn in range(turns):
            if turn == switch:
                topic = rng.choice(prompts.TOPICS)
                asked, answered, name = prompts.SWITCH.format(topic=topic), prompts.SWITCHED, SWITCH
                asked, answered = f"{asked}\n{prompts.MANNER}", f"{answered}\n{prompts.MANNER}"
            else:
                one, name = self._kind(rng, kind, turn)
                asked, answered = prompts.friend(one, caption), prompts.robot(one, caption)
            lines = [line for e in script.exchanges for line in (e.question, e.answer)]
            question = self._line(asked, [prompts.BEGIN, *lines], lines[::2])
            answer = self._line(answered, [*lines, question], lines[1::2])
            script.exchanges.append(Exchange(name, question, answer))
        return script

    def _kind(self, rng: random.Random, kind: str, turn: int) -> tuple[prompts.Kind, str]:
        if kind != prompts.COMB:
            return prompts.KINDS[kind], kind
        if turn == 0:
            return prompts.GENERAL, prompts.COMB
        name = rng.choice(tuple(prompts.KINDS))
        return prompts.KINDS[name], name

    def _line(self, role: str, lines: Sequence[str], before: Sequence[str]) -> str:
        """The next line of who is told `role`, after `lines`: the first is the other's, and the last."""
        talk = [Message("assistant" if k % 2 else "user", line) for k, line in enumerate(lines)]
        wrong: str | None = None
        for _ in range(TRIES):
            written = self._ask([Message("system", role), *talk])
            text = filters.cleaned(written.text)
            if (wrong := filters.problem(text, written.whole, before)) is None:
                return " ".join(text.split())
        raise RejectedError(str(wrong))

    def _ask(self, messages: Sequence[Message]) -> Written:
        written = self._writer(messages)
        self.tokens.add(Tokens(1, written.read, written.said))
        return written
