"""Spoken commands, over DDS: what is in the list happens, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from geometry_msgs.msg import Twist
from moshivis_ros.action import Say
from moshivis_ros.msg import Speaking, Transcript
from rclpy.action import ActionServer
from rclpy.callback_groups import ReentrantCallbackGroup
from robot import Robot
from std_msgs.msg import Float64
from std_srvs.srv import SetBool

LIST = """
ignore: [please, robot]
confirm_within: 60
commands:
  turn:
    hear: ["turn {side}", "turn to the {side}"]
    parts: {side: {left: 1.5, right: -1.5}}
    before: "I turn {side}."
    publish: {topic: turn, type: std_msgs/msg/Float64, message: {data: "{side}"}}
    after: "Done."
  forward:
    hear: [go forward]
    confirm: "Shall I go?"
    publish: {topic: cmd_vel, type: geometry_msgs/msg/Twist, message: {linear: {x: 0.3}}, seconds: 600}
  tell:
    hear: [say hello]
    goal: {action: say, type: moshivis_ros/action/Say, goal: {text: Hello.}}
  stop:
    stop: true
    hear: [stop]
    publish: {topic: cmd_vel, type: geometry_msgs/msg/Twist}
  wake:
    asleep: true
    hear: [wake up]
    call: {service: talk/sleep, type: std_srvs/srv/SetBool, request: {data: false}}
"""


class Talk:
    """Stands for the talk node: says everything, and can be woken."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self.said: list[str] = []
        self.woken: list[bool] = []
        self.utterance = 0
        group = ReentrantCallbackGroup()
        self._say = ActionServer(robot.node, Say, "say", self._on_say, callback_group=group)
        robot.node.create_service(SetBool, "talk/sleep", self._on_sleep)

    def _on_say(self, handle: Any) -> Any:
        self.said.append(handle.request.text)
        handle.succeed()
        return Say.Result(success=True, said=handle.request.text)

    def _on_sleep(self, request: Any, response: Any) -> Any:
        self.woken.append(request.data)
        response.success = True
        return response

    def hear(self, text: str, final: bool = True, confidence: float = 0.9) -> None:
        publisher = self._robot.publisher(Transcript, "user_transcript")
        publisher.publish(Transcript(text=text, final=final, confidence=confidence, speaker="user", utterance=self.utterance))
        self.utterance += final

    def close(self) -> None:
        self._say.destroy()


@pytest.fixture(scope="module")
def shared(make_robot: Callable[[], Robot], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Robot, Talk]]:
    robot = make_robot()
    path = tmp_path_factory.mktemp("list") / "commands.yaml"
    path.write_text(LIST)
    robot.start("commands", commands=path)
    talk = Talk(robot)
    yield robot, talk
    talk.close()


def turned(robot: Robot) -> list[float]:
    return [message.data for message in robot.collect(Float64, "turn")]


def test_what_is_in_the_list_is_said_done_and_said(shared: tuple[Robot, Talk]) -> None:
    robot, talk = shared
    turned(robot)
    for nothing in ("Turn over.", "Do not turn left.", "I turn left.", "Turn left or right."):
        talk.hear(nothing)
    talk.hear("Turn left.", final=False)
    talk.hear("Turn left.", confidence=0.1)
    talk.hear("Please, turn to the right, robot!")
    robot.until(lambda: "Done." in talk.said)
    talk.hear("turn left")
    robot.until(lambda: talk.said.count("Done.") == 2)
    robot.until(lambda: turned(robot) == [-1.5, 1.5])
    assert talk.said == ["I turn right.", "Done.", "I turn left.", "Done."]


def test_only_yes_confirms_and_stop_waits_for_nothing(shared: tuple[Robot, Talk]) -> None:
    robot, talk = shared
    driven = robot.collect(Twist, "cmd_vel")
    talk.said.clear()
    talk.hear("Yes.")  # to nothing
    talk.hear("Go forward.")
    robot.until(lambda: talk.said == ["Shall I go?"])
    talk.hear("No.")
    robot.until(lambda: "not confirmed" in robot.processes[0].log)
    talk.hear("Go forward.")
    robot.until(lambda: len(talk.said) == 2)
    assert not driven
    talk.hear("Yes, please.")
    robot.until(lambda: len(driven) > 2)
    assert {message.linear.x for message in driven} == {0.3}
    talk.hear("Oh no, please stop and", final=False)
    robot.until(lambda: not driven[-1].linear.x)
    after = len(driven)
    talk.hear("Oh no, please stop and go back.")  # the same utterance: it has stopped already
    talk.said.clear()
    talk.hear("Turn left.")
    robot.until(lambda: "Done." in talk.said)
    assert len(driven) == after  # one message that stops, and none of what was stopped


def test_a_stop_ends_a_question(shared: tuple[Robot, Talk]) -> None:
    robot, talk = shared
    driven = robot.collect(Twist, "cmd_vel")
    driven.clear()
    talk.said.clear()
    talk.hear("Go forward.")
    robot.until(lambda: talk.said == ["Shall I go?"])
    talk.hear("Stop!")
    robot.until(lambda: driven)
    talk.hear("Yes.")
    talk.hear("Turn left.")
    robot.until(lambda: "Done." in talk.said)
    assert [message.linear.x for message in driven] == [0.0]


def test_a_listener_that_was_started_again_counts_anew(shared: tuple[Robot, Talk]) -> None:
    robot, talk = shared
    driven = robot.collect(Twist, "cmd_vel")
    driven.clear()
    for count in (1, 2):
        talk.utterance = 0
        talk.hear("Stop", final=False)
        talk.hear("Stop!")
        robot.until(lambda count=count: len(driven) == count)


def test_asleep_it_hears_its_wake_words_only(shared: tuple[Robot, Talk]) -> None:
    robot, talk = shared
    speaking, commands = robot.publisher(Speaking, "speaking"), robot.processes[0]

    def heard(asleep: bool) -> str:
        """Of two topics nothing says which comes first: told again until it is known."""
        speaking.publish(Speaking(asleep=asleep))
        before = len(commands.log)
        talk.hear("Say hello.")
        talk.hear("Wake up.")
        return robot.until(lambda: re.search("heard (.*)", commands.log[before:]))[1]

    robot.until(lambda: heard(asleep=True) == "wake")
    robot.until(lambda: talk.woken)
    assert set(talk.woken) == {False}
    robot.until(lambda: heard(asleep=False) == "tell")


def test_a_dry_run_tells_and_does_nothing(robot: Robot, tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text(LIST)
    commands = robot.start("commands", commands=tmp_path / "list.yaml", dry_run=True)
    talk, moved = Talk(robot), turned(robot)
    talk.hear("turn left")
    talk.hear("stop")
    robot.until(lambda: "stop would publish" in commands.log)
    assert "turn {'side': 'left'} would publish std_msgs.msg.Float64(data=1.5)" in commands.log
    assert not talk.said and not moved
    talk.close()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("robot: /other\n" + LIST, "list.yaml:1: robot: this list is for /other"),
        (LIST.replace("std_msgs/msg/Float64", "std_msgs/msg/Float46"), "list.yaml:9: commands.turn.publish.type: there is no message type"),
        (LIST.replace("left: 1.5", "left: far"), "list.yaml:9: commands.turn.publish.message.data: must be a double, and is 'far'"),
        (LIST.replace("linear: {x", "linear: {forward"), "list.yaml:14: commands.forward.publish.message.linear.forward: Vector3 has no such field; it has x, y, z"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_named_at_the_start(robot: Robot, tmp_path: Path, wrong: str, words: str) -> None:
    (tmp_path / "list.yaml").write_text(wrong)
    commands = robot.start("commands", commands=tmp_path / "list.yaml")
    assert commands.wait() == 2
    assert words in commands.log and "Traceback" not in commands.log
