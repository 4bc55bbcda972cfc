"""The actions of the talk node, say and ask: goals in, to the engine; how far they are and how they ended, out.

A goal stays "accepted" until it is over, and is executed then, in no time: a callback that waited would take a thread
for each goal, and a coroutine is asked again and again by rclpy's executors, which takes a whole core.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.node import Node

from moshivis_ros.action import Ask, Say
from moshivis_ros.engine.engine import Engine
from moshivis_ros.engine.events import Progress
from moshivis_ros.nodes.messages import to_time

INTERRUPTS = {Say.Goal.WAIT: "wait", Say.Goal.CUT: "cut", Say.Goal.REFUSE: "refuse"}


class Goals:
    """`engine`: the one that talks now, or None; `asleep`: it does not talk. `take` is called by the thread of its events, the rest by the node's."""

    def __init__(self, node: Node, engine: Callable[[], Engine | None], asleep: Callable[[], bool]) -> None:
        self._node, self._engine, self._asleep = node, engine, asleep
        self._changing = threading.Lock()
        self._numbers = 0
        self._open: dict[int, Any] = {}  # handles
        self._ended: dict[bytes, Progress] = {}  # by the goal's id
        for kind, name in (Say, "say"), (Ask, "ask"):
            ActionServer(
                node,
                kind,
                name,
                execute_callback=self._result,
                goal_callback=self._on_goal,
                handle_accepted_callback=self._on_accepted,
                cancel_callback=self._on_cancel,
            )

    def take(self, progress: Progress) -> None:
        with self._changing:
            handle = self._open.pop(progress.number, None) if progress.done else self._open.get(progress.number)
        if handle is None:  # the node has ended it
            return
        if not progress.done:
            handle.publish_feedback(_feedback(handle.request, progress))
            return
        self._ended[bytes(handle.goal_id.uuid)] = progress
        handle.execute()

    def end(self, reason: str) -> None:
        """All goals that are not over."""
        for number in list(self._open):
            if (engine := self._engine()) is not None:
                engine.cancel(number)
            self.take(Progress(number, done=True, reason=reason))

    def _on_goal(self, goal: Any) -> GoalResponse:
        return GoalResponse.REJECT if self._engine() is None else GoalResponse.ACCEPT

    def _on_accepted(self, handle: Any) -> None:
        with self._changing:
            self._numbers += 1
            number = self._numbers
            self._open[number] = handle
        goal, engine = handle.request, self._engine()
        if engine is None or self._asleep():
            why = "does not talk now" if engine is None else "is asleep"
            self.take(Progress(number, done=True, reason=f"the node {why}"))
        elif isinstance(goal, Ask.Goal):
            command = self._node.get_parameter("voice_command").value
            engine.ask(number, goal.text, goal.alone, command)
        elif goal.interrupt in INTERRUPTS:
            engine.say(number, goal.text, INTERRUPTS[goal.interrupt], goal.uninterruptible)
        else:
            self.take(Progress(number, done=True, reason=f"interrupt is {goal.interrupt}; it must be 0, 1 or 2"))

    def _on_cancel(self, handle: Any) -> CancelResponse:
        with self._changing:
            numbers = [number for number, other in self._open.items() if other == handle]
        engine = self._engine()
        for number in numbers:
            if engine is not None:
                engine.cancel(number)
        return CancelResponse.ACCEPT

    def _result(self, handle: Any) -> Say.Result | Ask.Result:
        progress = self._ended.pop(bytes(handle.goal_id.uuid))
        if not progress.reason:
            handle.succeed()
        elif handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        return _result(handle.request, progress)


def _feedback(goal: Any, progress: Progress) -> Say.Feedback | Ask.Feedback:
    if isinstance(goal, Ask.Goal):
        return Ask.Feedback(answer=progress.text)
    return Say.Feedback(said=progress.text, words=progress.words, total=progress.total)


def _result(goal: Any, progress: Progress) -> Say.Result | Ask.Result:
    success = not progress.reason
    if isinstance(goal, Say.Goal):
        return Say.Result(success=success, said=progress.text, reason=progress.reason)
    result = Ask.Result(success=success, answer=progress.text, gate=progress.gate, reason=progress.reason)
    if progress.sight is not None and progress.sight.has_image:
        result.has_image = True
        result.image.stamp, result.image.frame_id = to_time(progress.sight.stamp), progress.sight.frame_id
    return result
