"""What a ROS user expects of any node: help, composition, QoS, diagnostics."""

from __future__ import annotations

import importlib
import itertools
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from moshivis_ros.msg import Audio
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import Executor, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from robot import Robot, executable

from moshivis_ros.audio import files
from moshivis_ros.nodes import describe
from moshivis_ros.nodes.audio_file import AudioFile
from moshivis_ros.nodes.echo_canceller import EchoCancellerNode
from moshivis_ros.nodes.messages import to_audio
from moshivis_ros.nodes.subscription import MatchedSubscription
from moshivis_ros.recording.bag import read_bag

BEST_EFFORT = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
WORD = (8000 * np.sin(np.arange(1920) / 10)).astype(np.int16)
NO_TORCH = "import sys; sys.modules.update(dict.fromkeys(['torch', 'moshi']))\n"


@pytest.fixture
def compose(ros: None) -> Iterator[Callable[..., None]]:
    """Spins nodes of this process in a thread of their own."""
    executors: list[tuple[Executor, threading.Thread, tuple[Any, ...]]] = []

    def start(*nodes: Any, executor: type[Executor] = SingleThreadedExecutor) -> None:
        made = executor()
        for node in nodes:
            made.add_node(node)
        thread = threading.Thread(target=made.spin)
        executors.append((made, thread, nodes))
        thread.start()

    yield start
    for executor, thread, nodes in executors:
        executor.shutdown()
        thread.join()
        for node in nodes:
            if hasattr(node, "close"):
                node.close()
            node.destroy_node()


@pytest.mark.parametrize("name", describe.NODES)
def test_help_names_everything_and_the_node_does_not_start(name: str, tmp_path: Path) -> None:
    """Without torch, too, which takes seconds to import."""
    (tmp_path / "sitecustomize.py").write_text(NO_TORCH)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([executable(name), "--help"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr
    module = importlib.import_module(f"moshivis_ros.nodes.{name}")
    for row in module.PARAMETERS:
        assert f"\n  {row.name}: " in done.stdout and row.meaning.split()[-1] in done.stdout
    for row in module.INTERFACES:
        assert f"\n  {row.name}  ({row.kind} {row.type})\n" in done.stdout


def test_nodes_share_a_process(robot: Robot, compose: Callable[..., None], tmp_path: Path) -> None:
    """Each with its own namespace and parameters, through rclpy's own arguments."""
    files.write(tmp_path / "word.wav", np.full(24000, 0.25, np.float32))

    def nodes(name: str, chunk: float) -> tuple[Node, Node]:
        parameters = {"path": str(tmp_path / "word.wav"), "chunk": chunk, "loop": True, "frame_id": name}
        return (
            AudioFile(
                namespace=f"{robot.namespace}/{name}",
                parameter_overrides=[rclpy.Parameter(key, value=value) for key, value in parameters.items()],
                cli_args=["--ros-args", "-r", "audio_in:=audio_raw"],
            ),
            EchoCancellerNode(namespace=f"{robot.namespace}/{name}"),
        )

    heard = {name: robot.collect(Audio, f"{name}/audio_in") for name in ("left", "right")}
    raw = {name: robot.collect(Audio, f"{name}/audio_raw") for name in ("left", "right")}
    compose(*nodes("left", 0.02), *nodes("right", 0.05))
    robot.until(lambda: all(len(messages) > 5 for messages in heard.values()))
    assert {len(message.data) for message in raw["left"]} == {480}
    assert {len(message.data) for message in raw["right"]} == {1200}
    for name, messages in heard.items():
        assert {message.header.frame_id for message in messages} == {name}
        np.testing.assert_allclose(messages[-1].data, 8192, atol=2)


@pytest.mark.parametrize(
    ("name", "topic", "parameters"),
    [
        ("echo_canceller", "audio_in", {}),
        ("audio_file", "audio_in", {"path": "word.wav"}),
        ("video_file", "image", {"path": "photo.png", "loop": True}),
    ],
)
def test_the_reliability_of_a_publisher_can_be_overridden(
    robot: Robot, tmp_path: Path, name: str, topic: str, parameters: dict[str, Any]
) -> None:
    files.write(tmp_path / "word.wav", WORD / 32768)
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((30, 40, 3), np.uint8))
    if "path" in parameters:
        parameters = {**parameters, "path": tmp_path / parameters["path"]}
    topic = f"{robot.namespace}/{topic}"
    robot.start(name, **parameters, **{f"qos_overrides.{topic}.publisher.reliability": "best_effort"})
    (info,) = robot.until(lambda: robot.node.get_publishers_info_by_topic(topic))
    assert info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT


def test_the_depth_of_a_subscription_can_be_overridden(robot: Robot) -> None:
    """What comes while the node is busy is kept so far back."""
    topic, heard = f"{robot.namespace}/audio_in", []
    override = rclpy.Parameter(f"qos_overrides.{topic}.subscription.depth", value=2)
    listener = Node("listener", namespace=robot.namespace, parameter_overrides=[override])
    subscription = MatchedSubscription(listener, Audio, "audio_in", heard.append, 50)
    publisher = robot.publisher(Audio, "audio_in")
    for index in range(5):
        publisher.publish(Audio(index=index))
    assert publisher.wait_for_all_acked()
    robot.until(lambda: rclpy.spin_once(listener, timeout_sec=0) or len(heard) >= 2)
    assert [message.index for message in heard] == [3, 4]
    subscription.close()
    listener.destroy_node()


class Listener(Node):
    """Hears audio_in by a MatchedSubscription."""

    def __init__(self, robot: Robot, parameter_overrides: Any = None, **kwargs: Any) -> None:
        super().__init__("listener", namespace=robot.namespace, parameter_overrides=parameter_overrides)
        self.heard: list[int] = []
        self.subscription = MatchedSubscription(
            self, Audio, "audio_in", lambda message: self.heard.append(message.index), 50, **kwargs
        )

    def close(self) -> None:
        self.subscription.close()


def requested(robot: Robot) -> list[ReliabilityPolicy]:
    """What the subscriptions to audio_in want."""
    infos = robot.node.get_subscriptions_info_by_topic(f"{robot.namespace}/audio_in")
    return [info.qos_profile.reliability for info in infos]


@pytest.mark.parametrize("executor", [SingleThreadedExecutor, MultiThreadedExecutor])
@pytest.mark.parametrize("reliability", ["RELIABLE", "BEST_EFFORT"])
def test_a_publisher_that_comes_later_is_heard_from_its_first_message(
    robot: Robot, compose: Callable[..., None], capfd: pytest.CaptureFixture[str], executor: type[Executor],
    reliability: str,
) -> None:  # fmt: skip
    """If it waits for somebody who listens."""
    listener = Listener(robot, callback_group=MutuallyExclusiveCallbackGroup())
    compose(listener, executor=executor)
    robot.until(lambda: requested(robot) == [ReliabilityPolicy.RELIABLE])
    qos = QoSProfile(depth=50, reliability=ReliabilityPolicy[reliability])
    publisher = robot.node.create_publisher(Audio, "audio_in", qos)
    robot.until(publisher.get_subscription_count)
    for index in range(3):
        publisher.publish(Audio(index=index))
    robot.until(lambda: len(listener.heard) >= 3)
    assert listener.heard == [0, 1, 2]
    assert "New publisher discovered" not in capfd.readouterr().err
    assert robot.node.destroy_publisher(publisher)
    robot.until(lambda: requested(robot) == [ReliabilityPolicy.RELIABLE])


def test_the_middleware_tells_of_a_best_effort_publisher(robot: Robot, compose: Callable[..., None]) -> None:
    """Nothing waits for the timer to look."""
    listener = Listener(robot)
    listener.subscription._timer.cancel()
    compose(listener)
    robot.until(lambda: requested(robot) == [ReliabilityPolicy.RELIABLE])
    robot.until(robot.node.create_publisher(Audio, "audio_in", BEST_EFFORT).get_subscription_count)


def test_a_best_effort_publisher_beside_a_reliable_one_is_heard(
    robot: Robot, compose: Callable[..., None]
) -> None:
    listener = Listener(robot)
    compose(listener)
    reliable = robot.publisher(Audio, "audio_in")
    lossy = robot.node.create_publisher(Audio, "audio_in", BEST_EFFORT)
    robot.until(lossy.get_subscription_count)
    lossy.publish(Audio(index=2))
    robot.until(lambda: 2 in listener.heard)
    robot.until(reliable.get_subscription_count)
    robot.until(lambda: reliable.publish(Audio(index=3)) or 3 in listener.heard)


@pytest.mark.parametrize("how", ["argument", "parameter"])
def test_a_forced_reliability_stays_and_warns(
    robot: Robot, compose: Callable[..., None], capfd: pytest.CaptureFixture[str], how: str
) -> None:
    name = f"qos_overrides.{robot.namespace}/audio_in.subscription.reliability"
    if how == "argument":
        listener = Listener(robot, reliability="reliable")
    else:
        listener = Listener(robot, parameter_overrides=[rclpy.Parameter(name, value="reliable")])
    compose(listener)
    errors: list[str] = []

    def warned() -> bool:
        robot.node.create_publisher(Audio, "audio_in", BEST_EFFORT)  # another: the first may be there too soon
        errors.append(capfd.readouterr().err)  # a line may come in two
        return "New publisher discovered" in "".join(errors)

    robot.until(warned)
    assert requested(robot) == [ReliabilityPolicy.RELIABLE]


def test_the_nodes_hear_best_effort_publishers(
    robot: Robot, pulse: dict[str, str], tmp_path: Path
) -> None:
    """The echo canceller, the speaker and the recorder, which are there before them."""
    nodes = [
        robot.start("echo_canceller"),
        robot.start("recorder", folder=tmp_path),
        robot.start("speaker", environment=pulse, device="pulse"),
    ]
    clean, played = robot.collect(Audio, "audio_in"), robot.collect(Audio, "audio_played")
    robot.until(lambda: played and robot.node.count_subscribers("audio_out") == 2)
    robot.until(lambda: robot.node.count_subscribers("audio_raw"))
    user, voice = (robot.publisher(Audio, topic, BEST_EFFORT) for topic in ("audio_raw", "audio_out"))
    robot.until(lambda: voice.get_subscription_count() == 2)
    index = itertools.count()

    def speak() -> bool:
        now, number = robot.node.get_clock().now().nanoseconds, next(index)
        for publisher in (user, voice):
            publisher.publish(to_audio(WORD.tobytes(), number, now))
        return bool(clean and max(clean[-1].data) > 4000 and max(played[-1].data) > 4000)

    robot.until(speak)
    assert all(node.end() == 0 and "New publisher discovered" not in node.log for node in nodes)
    assert any(entry.role == "audio_out" for entry in read_bag(tmp_path))


def newest(robot: Robot, name: str) -> DiagnosticStatus | None:
    arrays = robot.collect(DiagnosticArray, "/diagnostics")
    wanted = f"{robot.namespace}/{name}"
    return next((s for array in reversed(arrays) for s in array.status if s.name.startswith(wanted)), None)


def diagnosed(robot: Robot, name: str, level: bytes, words: str) -> DiagnosticStatus:
    def found() -> DiagnosticStatus | None:
        status = newest(robot, name)
        return status if status and status.level == level and words in status.message else None

    return robot.until(found)


@pytest.mark.parametrize("name", ["microphone", "speaker"])
def test_no_sound_card_is_an_error_in_words(robot: Robot, pulse: dict[str, str], name: str) -> None:
    robot.start(name, environment=pulse, device="no such card")
    status = diagnosed(robot, name, DiagnosticStatus.ERROR, "is 'no such card'")
    assert status.hardware_id == "no such card"


def test_sound_cards_tell_how_they_are(robot: Robot, pulse: dict[str, str]) -> None:
    robot.start("microphone", environment=pulse, device="pulse", sample_rate=48000, channels=2)
    robot.start("speaker", environment=pulse, device="pulse", sample_rate=44100)
    for name, rate, channels in (("microphone", "48000", "2"), ("speaker", "44100", "1")):
        status = diagnosed(robot, name, DiagnosticStatus.OK, "running")
        values = {pair.key: pair.value for pair in status.values}
        assert status.hardware_id == "pulse"
        assert (values["device"], values["rate (Hz)"], values["channels"]) == ("pulse", rate, channels)
        assert {"xruns", "dropped"} <= set(values)
    voice = robot.publisher(Audio, "audio_out")
    voice.publish(to_audio(WORD.tobytes() * 20, 0, 0))  # 1.6 s at once: a speaker holds back half a second
    status = diagnosed(robot, "speaker", DiagnosticStatus.WARN, "skipped")
    assert int({pair.key: pair.value for pair in status.values}["skipped"]) > 44100


def test_a_sound_card_that_is_lost_is_an_error(robot: Robot, pulse: dict[str, str]) -> None:
    robot.start("microphone", environment=pulse, device="pulse")
    diagnosed(robot, "microphone", DiagnosticStatus.OK, "running")
    subprocess.run(["pactl", "exit"], env={**os.environ, **pulse}, check=True)
    diagnosed(robot, "microphone", DiagnosticStatus.ERROR, "")


def test_the_echo_canceller_tells_how_it_is(robot: Robot) -> None:
    robot.start("echo_canceller")
    diagnosed(robot, "echo_canceller", DiagnosticStatus.WARN, f"nothing publishes {robot.namespace}/audio_raw")
    raw, played = robot.publisher(Audio, "audio_raw"), robot.publisher(Audio, "audio_played")
    diagnosed(robot, "echo_canceller", DiagnosticStatus.WARN, "though")
    indices = itertools.count()

    def send(*publishers: Any) -> bool:
        for publisher in publishers:
            publisher.publish(to_audio(WORD.tobytes(), next(indices) * 2, robot.node.get_clock().now().nanoseconds))
        return True

    robot.until(lambda: send(raw) and newest(robot, "echo_canceller").message.endswith("sound passes as it is"))
    robot.until(lambda: send(raw, played) and newest(robot, "echo_canceller").message == "cancelling")
    status = newest(robot, "echo_canceller")
    assert status.level == DiagnosticStatus.OK and status.hardware_id
    assert int({pair.key: pair.value for pair in status.values}["messages lost"]) > 0
