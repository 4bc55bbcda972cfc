"""What other software does with the conversation: say, ask, sleep, parameters that change, over DDS and with builtin."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from moshivis_ros.action import Ask, Say
from moshivis_ros.msg import Audio, ImageCacheStatus, Transcript
from rclpy.action import ActionClient
from rclpy.qos import DurabilityPolicy, QoSProfile
from robot import Robot
from sensor_msgs.msg import Image
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

SUCCEEDED, CANCELED, ABORTED = (
    GoalStatus.STATUS_SUCCEEDED,
    GoalStatus.STATUS_CANCELED,
    GoalStatus.STATUS_ABORTED,
)
LONG = "I see a red ball, a green cup, a blue box and a yellow bottle."
GREETING = "Hello, nice to meet you."


class Client:
    """Of one action."""

    def __init__(self, robot: Robot, kind: Any, name: str) -> None:
        self.robot, self.kind = robot, kind
        self.client = ActionClient(robot.node, kind, f"{robot.namespace}/{name}")

    def send(self, **goal: Any) -> Goal:
        self.robot.until(self.client.server_is_ready)
        return Goal(self, goal)


class Goal:
    """One that was sent and accepted."""

    def __init__(self, client: Client, goal: dict[str, Any]) -> None:
        self.robot, self.feedback = client.robot, []  # type: ignore[var-annotated]
        future = client.client.send_goal_async(
            client.kind.Goal(**goal), lambda message: self.feedback.append(message.feedback)
        )
        self.robot.until(future.done)
        self.handle = future.result()
        assert self.handle.accepted
        self.over = self.handle.get_result_async()

    def end(self) -> tuple[int, Any]:
        """The status, the result."""
        self.robot.until(self.over.done)
        return self.over.result().status, self.over.result().result

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope="module")
def robot(make_robot: Callable[[], Robot]) -> Robot:
    robot = make_robot()
    robot.start("talk", model="builtin", seed=1, restarts=0, greet=False, refresh_policy="manual")
    assert robot.change_state("configure", "activate"), robot.processes[0].log
    robot.collect(Audio, "audio_out")
    robot.collect(Transcript, "transcript")
    return robot


@pytest.fixture(scope="module")
def say(robot: Robot) -> Client:
    return Client(robot, Say, "say")


@pytest.fixture(scope="module")
def ask(robot: Robot) -> Client:
    return Client(robot, Ask, "ask")


def loud(message: Audio) -> bool:
    return max(map(abs, message.data)) > 1000


def test_say(robot: Robot, say: Client) -> None:
    """Both goals are said in their order, word by word, aloud, and the transcript tells of them."""
    first, second = say.send(text=GREETING), say.send(text="My name is Moshi.")
    status, result = first.end()
    assert (status, result.success, result.said, result.reason) == (SUCCEEDED, True, GREETING, "")
    words = GREETING.split()
    assert [told.words for told in first.feedback if told.words] == list(range(1, len(words) + 1))
    assert {(told.said, told.total) for told in first.feedback} >= {("Hello,", 5), (GREETING, 5)}
    assert not second.over.done() and all(told.words == 0 for told in second.feedback)
    assert second.end()[0] == SUCCEEDED
    assert any(loud(message) for message in robot.received["audio_out"])
    said = "".join(text.text for text in robot.received["transcript"] if not text.final)
    assert said == " Hello, nice to meet you. My name is Moshi."


def test_words_that_it_cannot_say(say: Client) -> None:
    status, result = say.send(text="Hello zebra, I like the quagga.").end()
    assert status == ABORTED and not result.said
    assert "zebra, quagga" in result.reason
    assert "0, 1 or 2" in say.send(text="Hello.", interrupt=7).end()[1].reason


def test_a_cancelled_goal_is_silent_at_once(robot: Robot, say: Client) -> None:
    heard = robot.received["audio_out"]
    goal = say.send(text=LONG, interrupt=Say.Goal.CUT)
    robot.until(lambda: any(told.words > 4 for told in goal.feedback))
    begun = len(heard)
    goal.handle.cancel_goal_async()
    status, result = goal.end()
    assert status == CANCELED and result.reason == "cancelled"
    assert "I see a red" in result.said and "bottle" not in result.said
    cut = robot.until(lambda: [k for k in range(begun, len(heard)) if heard[k].flush])[0]
    robot.until(lambda: len(heard) > cut + 7)
    assert not any(any(message.data) for message in heard[cut : cut + 7])
    assert loud(heard[cut - 1]) or loud(heard[cut - 2])


def test_who_wins(robot: Robot, say: Client) -> None:
    """A goal that cuts before all others; one that refuses to wait; the user before those that may be interrupted."""
    long, waiting = say.send(text=LONG, interrupt=Say.Goal.CUT), say.send(text=GREETING)
    robot.until(lambda: any(told.words > 2 for told in long.feedback))
    refused = say.send(text=GREETING, interrupt=Say.Goal.REFUSE).end()
    assert refused[0] == ABORTED and refused[1].reason in (
        "another goal waits",
        "another goal is being served",
    )
    cutting = say.send(text="Sorry, I only talk.", interrupt=Say.Goal.CUT)
    assert long.end()[1].reason == waiting.end()[1].reason == "another goal cut in"
    assert cutting.end()[0] == SUCCEEDED

    rng = np.random.default_rng(0)
    for uninterruptible in (True, False):
        goal = say.send(text=LONG, interrupt=Say.Goal.CUT, uninterruptible=uninterruptible)
        robot.until(lambda goal=goal: any(told.words > 2 for told in goal.feedback))
        for _ in range(6):
            robot.say(rng.normal(0, 3000, 1920))
        status, result = goal.end()
        assert result.success is uninterruptible
        assert result.reason == ("" if uninterruptible else "the user spoke")


def test_ask(robot: Robot, ask: Client) -> None:
    statuses = robot.collect(ImageCacheStatus, "image_cache")
    status, result = ask.send(text="What is your name?", alone=True).end()
    assert status == SUCCEEDED and result.answer == "My name is Moshi." and result.gate == 0
    assert not result.has_image and not any(status.has_image for status in statuses)
    assert not robot.set_parameter("voice_command", "no-such-voice --loud")
    assert "no-such-voice" in ask.send(text="What is your name?").end()[1].reason


def test_sleep(robot: Robot, say: Client) -> None:
    asleep = robot.collect(Bool, "talk/asleep", LATCHED)
    heard, told = robot.received["audio_out"], robot.received["transcript"]
    goal = say.send(text=LONG, interrupt=Say.Goal.CUT)
    robot.until(lambda: any(told.words > 2 for told in goal.feedback))
    assert robot.call(SetBool, "talk/sleep", data=True).success
    assert goal.end()[1].reason == "the node fell asleep"
    robot.until(lambda: heard[-1].flush and told[-1].final)  # the last there is
    robot.until(lambda: [message.data for message in asleep][-1:] == [True])
    number, spoken = len(heard), len(told)
    assert say.send(text=GREETING).end()[1].reason == "the node is asleep"
    assert len(heard) == number and len(told) == spoken
    assert robot.call(SetBool, "talk/sleep", data=False).success
    robot.until(lambda: not asleep[-1].data)
    assert say.send(text=GREETING).end()[0] == SUCCEEDED
    assert heard[number].index == heard[number - 1].index + 1


def test_parameters_change_while_it_talks(robot: Robot) -> None:
    heard = robot.received["audio_out"]
    assert not robot.set_parameter("mute", True)
    robot.until(lambda: len(heard) and not any(any(message.data) for message in heard[-12:]))
    assert robot.call(SetBool, "talk/mute", data=False).success
    assert not robot.set_parameter("refresh_policy", "interval")
    pixels = np.full((48, 64, 3), (200, 30, 20), np.uint8)
    pixels[10:20, 10:30] = 255 - pixels[10:20, 10:30]
    seen, camera = robot.received["image_cache"], robot.publisher(Image, "image")
    picture = Image(height=48, width=64, step=192, encoding="rgb8", data=array("B", pixels.tobytes()))

    def looked() -> bool:
        picture.header.stamp = robot.node.get_clock().now().to_msg()
        camera.publish(picture)
        return any(status.has_image for status in seen)

    robot.until(looked)  # until now it looked at no picture by itself
    for name, value in (("audio_temperature", 0.0), ("seed", 3), ("image_size", 56)):
        assert not robot.set_parameter(name, value)
    assert "from 14 (one patch) to 112" in robot.set_parameter("image_size", 113)
    assert "cut_hold" in robot.set_parameter("refresh_hold", 0.5)
    assert "clean it up" in robot.set_parameter("device", "cpu")
    assert robot.change_state("deactivate")
    future = Client(robot, Say, "say").client
    robot.until(future.server_is_ready)
    sent = future.send_goal_async(Say.Goal(text=GREETING))
    robot.until(sent.done)
    assert not sent.result().accepted
