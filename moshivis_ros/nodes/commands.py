"""Spoken commands: what the user said (user_transcript) -> a message, a service call or an action goal of a list in YAML.

The list says which words do what, and nothing else can happen; moshivis_ros/hearing/command_list.py explains it. The newest
command wins: what an earlier one was doing or asking is ended. One that stops does so at the first word of it, and
waits for nothing.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.node import Node

from moshivis_ros.action import Say
from moshivis_ros.errors import ConfigError, MoshiVisError
from moshivis_ros.hearing.command_list import NAMES, Command, CommandList, Heard, said_with
from moshivis_ros.msg import Speaking, Transcript
from moshivis_ros.nodes.filling import Misfit, fill
from moshivis_ros.nodes.interface import Interface, Parameter, declare
from moshivis_ros.nodes.messages import interface_type
from moshivis_ros.nodes.spin import spin

PARAMETERS = [
    Parameter("commands", "", "the list, a file in YAML"),
    Parameter("dry_run", False, "tell in the log what would be done, and do nothing"),
    Parameter(
        "confidence",
        0.2,
        "of what was heard, below which it is no command (except one that stops)",
        (0.0, 1.0),
    ),
]
INTERFACES = [
    Interface("user_transcript", "subscribes", "moshivis_ros/msg/Transcript", "what the user said"),
    Interface("speaking", "subscribes", "moshivis_ros/msg/Speaking", "whether the robot sleeps"),
    Interface("say", "calls", "moshivis_ros/action/Say", "what the robot says before and after, and asks"),
]
PERIOD = (
    0.1  # seconds between messages that are published again and again: a base stands 0.5 s after the last
)
PATIENCE = 2.0  # seconds for a server to be there
MODULES = {"publish": "msg", "call": "srv", "goal": "action"}


class Stopped(Exception):
    """The command gives way to another one."""


class Commands(Node):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__("commands", **kwargs)
        declare(self, PARAMETERS)
        if not self.get_parameter("commands").value:
            raise ConfigError("which commands? Give the file of their list: -p commands:=FILE")
        self._list = CommandList(Path(self.get_parameter("commands").value))
        if self._list.robot and self._list.robot.strip("/") != self.get_namespace().strip("/"):
            raise self._list.error(
                [(("robot",), f"this list is for {self._list.robot}, and here is {self.get_namespace()}")]
            )
        self._dry = self.get_parameter("dry_run").value
        self._asleep = False
        self._stopped: int | None = None  # utterance that has stopped something already
        self._tasks: list[Task] = []  # the newest last; those before it have been stopped
        self.say_client = ActionClient(self, Say, "say")
        self.doers = {command.name: self._doer(command) for command in self._list.commands}
        self.create_subscription(Speaking, "speaking", self._on_speaking, 10)
        self.create_subscription(Transcript, "user_transcript", self._on_transcript, 50)
        self.get_logger().info(f"{'dry run of ' if self._dry else ''}commands: {', '.join(self.doers)}")

    def close(self) -> None:
        for task in self._tasks:
            task.stop()
            task.join()

    def message(self, command: Command, words: dict[str, str]) -> Any:
        """What the command sends with these words for its parts. Raises ConfigError, by line and key."""
        act = command.act
        where = ("commands", command.name, act.kind)
        try:
            kind = interface_type(act.type, MODULES[act.kind])
            empty = kind() if act.kind == "publish" else kind.Request() if act.kind == "call" else kind.Goal()
        except ConfigError as error:
            raise self._list.error([((*where, "type"), str(error))]) from error
        try:
            return fill(empty, command.fields(words))
        except Misfit as error:
            raise self._list.error([((*where, NAMES[act.kind][1], *error.where), str(error))]) from error

    def _doer(self, command: Command) -> Any:
        """The publisher or client, and a try of every message that could be sent."""
        for words in command.variants():
            self.message(command, words)
        act = command.act
        kind = interface_type(act.type, MODULES[act.kind])
        if act.kind == "publish":
            return self.create_publisher(kind, act.name, 10)
        return (
            self.create_client(kind, act.name) if act.kind == "call" else ActionClient(self, kind, act.name)
        )

    def _on_speaking(self, message: Speaking) -> None:
        self._asleep = message.asleep

    def _on_transcript(self, message: Transcript) -> None:
        stop, stopped = self._list.stops(message.text), self._stopped == message.utterance
        if stop or stopped:  # its end is forgotten: after a restart of the listener its number comes again
            self._stopped = None if message.final else message.utterance
        if stop:
            if not stopped:
                self._begin(stop)
            return
        if not message.final or message.confidence < self.get_parameter("confidence").value:
            return
        answer = self._list.answer(message.text)
        if answer is not None and self._tasks and self._tasks[-1].answer(answer):
            return
        if heard := self._list.match(message.text, self._asleep):
            self._begin(heard)

    def _begin(self, heard: Heard) -> None:
        what = f"{heard.command.name} {heard.words or ''}".strip()
        if self._dry:
            self.get_logger().info(
                f"dry run: {what} would {heard.command.act.kind} {self.message(heard.command, heard.words)}"
            )
            return
        self.get_logger().info(f"heard {what}")
        for earlier in self._tasks:
            earlier.stop()
        task = Task(self, heard, self._list.confirm_within)
        self._tasks = [*filter(Task.is_alive, self._tasks), task]
        task.start()


class Task(threading.Thread):
    """One command from its first word to its last, which waits for others and must not keep the node waiting."""

    def __init__(self, node: Commands, heard: Heard, confirm_within: float) -> None:
        super().__init__(name=heard.command.name)
        self._node, self._command, self._words = node, heard.command, heard.words
        self._confirm_within = confirm_within
        self._news = threading.Condition()
        self._answer: bool | None = None
        self._asking = self._stopped = False
        self._goal: Any = None  # that is being carried out

    def stop(self) -> None:
        with self._news:
            self._stopped = True
            if self._goal is not None and self._goal.accepted:
                self._goal.cancel_goal_async()
            self._news.notify_all()

    def answer(self, yes: bool) -> bool:
        """Of the user; False where nothing was asked."""
        with self._news:
            if not self._asking:
                return False
            self._answer = yes
            self._news.notify_all()
            return True

    def run(self) -> None:
        command, log = self._command, self._node.get_logger()
        try:
            if command.confirm and not self._confirmed(command.confirm):
                log.info(f"{self.name}: not confirmed")
                return
            if command.before:
                self._say(command.before)
            self._do()
            if command.after:
                self._say(command.after)
            log.info(f"{self.name}: done")
        except Stopped:
            log.info(f"{self.name}: ended before it was done")
        except MoshiVisError as error:
            log.error(f"{self.name}: {error}")

    def _confirmed(self, question: str) -> bool:
        self._asking = True
        try:
            if not self._say(question):
                return False
            self._wait(lambda: self._answer is not None, self._confirm_within)
            return self._answer is True
        finally:
            self._asking = False

    def _say(self, sentence: str) -> bool:
        """It was said, or the user or another goal cut in; False where the robot cannot say it."""
        goal = Say.Goal(text=said_with(sentence, self._words), interrupt=Say.Goal.CUT)
        try:
            result = self._reach(self._node.say_client, goal, "say").result
        except MoshiVisError as error:
            self._node.get_logger().warning(f"{self.name}: {goal.text!r} is not said: {error}")
            return False
        if not result.success:
            self._node.get_logger().warning(
                f"{self.name}: of {goal.text!r} only {result.said!r} was said: {result.reason}"
            )
        return bool(result.success or result.said)

    def _do(self) -> None:
        act, doer = self._command.act, self._node.doers[self._command.name]
        message = self._node.message(self._command, self._words)
        if act.kind == "publish":
            self._unless_stopped(doer.publish, message)
            for _ in range(round(act.seconds / PERIOD)):
                self._wait(lambda: False, PERIOD)
                self._unless_stopped(doer.publish, message)
        elif act.kind == "call":
            if not doer.wait_for_service(PATIENCE):
                raise CommandError(f"there is no service {act.name}")
            response = self._result(self._unless_stopped(doer.call_async, message))
            if getattr(response, "success", True) is False:
                raise CommandError(f"{act.name} answered: {getattr(response, 'message', '')}")
        elif (status := self._reach(doer, message, act.name).status) != GoalStatus.STATUS_SUCCEEDED:
            raise CommandError(f"the goal of {act.name} ended with status {status}")

    def _reach(self, client: ActionClient, goal: Any, name: str) -> Any:
        """The result of a goal, which is cancelled when the command is stopped."""
        if not client.wait_for_server(PATIENCE):
            raise CommandError(f"there is no action {name}")
        sent = self._unless_stopped(client.send_goal_async, goal)
        sent.add_done_callback(self._on_accepted)
        handle = self._result(sent)
        if not handle.accepted:
            raise CommandError(f"{name} did not accept the goal")
        result = self._result(handle.get_result_async())
        with self._news:
            self._goal = None
        return result

    def _on_accepted(self, sent: Any) -> None:
        """A command may have been stopped before its goal was accepted."""
        with self._news:
            self._goal = sent.result()
            if self._stopped and self._goal.accepted:
                self._goal.cancel_goal_async()

    def _unless_stopped(self, send: Any, message: Any) -> Any:
        """Once stop() has returned nothing more is sent. Raises Stopped."""
        with self._news:
            if self._stopped:
                raise Stopped
            return send(message)

    def _result(self, future: Any) -> Any:
        future.add_done_callback(self._on_done)
        self._wait(future.done)
        return future.result()

    def _on_done(self, _: Any) -> None:
        with self._news:
            self._news.notify_all()

    def _wait(self, condition: Any, seconds: float | None = None) -> None:
        """Until the condition holds or the time is over. Raises Stopped."""
        with self._news:
            self._news.wait_for(lambda: self._stopped or condition(), seconds)
            if self._stopped:
                raise Stopped


class CommandError(MoshiVisError):
    """A command could not be carried out."""


def main(args: list[str] | None = None) -> int:
    return spin(Commands, args)
