"""What other software wants of the conversation, in the engine process: goals by the node's numbers, new settings."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from moshivis_ros.conversation import Asking, Conversation, Saying
from moshivis_ros.engine.events import Event, Progress, Trouble, sight_of
from moshivis_ros.errors import MoshiVisError
from moshivis_ros.goals import Interrupt
from moshivis_ros.options import Options


class Served:
    """`tell` belongs to the thread of the steps, everything else to that of the node's commands."""

    def __init__(self, conversation: Conversation, send: Callable[[Event], None]) -> None:
        self._conversation, self._send = conversation, send
        self._image_size = conversation.image_size
        self._changing = threading.Lock()
        self._goals: dict[int, Saying | Asking] = {}  # that are not done
        self._told: dict[int, Progress] = {}
        self._cancelled: set[int] = set()  # before the voice had spoken them

    def say(self, number: int, text: str, interrupt: Interrupt, uninterruptible: bool) -> None:
        self._want(number, partial(self._conversation.say, text, interrupt, uninterruptible))

    def ask(self, number: int, text: str, alone: bool, voice_command: str) -> None:
        """The voice takes its time: other commands do not wait for it."""
        ask = partial(self._conversation.ask, text, alone, voice_command)
        threading.Thread(target=self._want, args=(number, ask), daemon=True).start()

    def cancel(self, number: int) -> None:
        with self._changing:
            if goal := self._goals.get(number):
                goal.cancel()
            else:
                self._cancelled.add(number)

    def tune(self, options: Options, new_seed: bool) -> None:
        try:
            self._conversation.tune(options.sampling, options.refresh, options.seed if new_seed else None)
            size = options.image_size or self._image_size
            if size != self._conversation.image_size:
                self._conversation.image_size = size
        except MoshiVisError as error:
            self._send(Trouble(str(error)))

    def tell(self) -> None:
        """How far the goals are that went on."""
        with self._changing:
            goals = list(self._goals.items())
        for number, goal in goals:
            done, news = goal.done, _progress(number, goal)
            if done:
                with self._changing:
                    del self._goals[number]
                self._told.pop(number, None)
                self._send(replace(news, done=True, reason=goal.reason))
            elif news != self._told.get(number):
                self._told[number] = news
                self._send(news)

    def _want(self, number: int, make: Callable[[], Saying | Asking]) -> None:
        try:
            goal = make()
        except MoshiVisError as error:
            self._send(Progress(number, done=True, reason=str(error)))
            return
        with self._changing:
            self._goals[number] = goal
            if number in self._cancelled:
                self._cancelled.remove(number)
                goal.cancel()


def _progress(number: int, goal: Saying | Asking) -> Progress:
    if isinstance(goal, Saying):
        return Progress(number, goal.said, goal.words, goal.total)
    sight = None if goal.image is None else sight_of(goal.image)
    return Progress(number, goal.answer, gate=goal.gate, sight=sight)
