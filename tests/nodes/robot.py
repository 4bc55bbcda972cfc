"""A robot under test: nodes in processes of their own, and a ROS node of the test that talks with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from moshivis_ros.msg import Audio
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.qos import QoSProfile

TIMEOUT = 60.0  # seconds for anything to happen; machines may be busy
FRAME = 80_000_000  # nanoseconds


def executable(name: str) -> Path:
    """As `ros2 run moshivis_ros NAME` finds it."""
    for prefix in [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]:
        path = Path(prefix) / "lib" / "moshivis_ros" / name
        if path.exists():
            return path
    pytest.fail(f"{name} is not built: make build")


class Process:
    """A running node."""

    def __init__(self, name: str, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        self.name, self._log = name, log
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                [executable(name), *arguments],
                env={**os.environ, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def children(self) -> list[int]:
        """Of whatever thread."""
        tasks = Path(f"/proc/{self.popen.pid}/task").glob("*/children")
        return [int(child) for task in tasks for child in task.read_text().split()]

    def wait(self) -> int:
        """The exit code. If it does not end, what its threads were doing then is told."""
        try:
            return self.popen.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.popen.send_signal(signal.SIGABRT)
            self.popen.wait()
            pytest.fail(f"{self.name} did not end by itself\n{self.log}")

    def end(self, number: int = signal.SIGINT) -> int:
        """The exit code after this signal. Nothing that it started may be running then."""
        children = self.children if self.popen.poll() is None else []
        self.popen.send_signal(number)
        code = self.wait()
        deadline = time.monotonic() + TIMEOUT
        while any(_running(child) for child in children):
            assert time.monotonic() < deadline, f"{self.name} left processes behind\n{self.log}"
            time.sleep(0.01)
        return code


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Robot:
    """Starts nodes, sends and collects messages. Everything is in one namespace of its own."""

    def __init__(self, namespace: str, environment: dict[str, str], logs: Path) -> None:
        self.namespace = f"/{namespace}"
        self._environment, self._logs = environment, logs
        self.node = Node("test", namespace=namespace)
        self.processes: list[Process] = []
        self.received: dict[str, list[Any]] = {}
        self._publishers: dict[str, Any] = {}
        self._clients: dict[str, Any] = {}
        self._speech: Any = None
        self.spoken = 0  # audio_in messages sent

    def start(
        self, name: str, *extra: str, environment: dict[str, str] | None = None, **parameters: Any
    ) -> Process:
        arguments = ["--ros-args", "-r", f"__ns:={self.namespace}", *extra]
        for key, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else value
            quote = "'" if isinstance(value, str | Path) else ""
            arguments += ["-p", f"{key}:={quote}{text}{quote}"]
        return self.start_command(name, *arguments, environment=environment)

    def start_command(self, name: str, *arguments: str, environment: dict[str, str] | None = None) -> Process:
        """With these arguments as they are."""
        log = self._logs / f"{name}{len(self.processes)}.log"
        self.processes.append(Process(name, list(arguments), {**self._environment, **(environment or {})}, log))
        return self.processes[-1]

    def close(self) -> None:
        for process in self.processes:
            if process.popen.poll() is None:
                process.end()
        self.node.destroy_node()

    def until(self, condition: Callable[[], Any], timeout: float = TIMEOUT) -> Any:
        """Spin until the condition gives something true, and return that."""
        deadline = time.monotonic() + timeout
        while not (result := condition()):
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {process.name}\n{process.log[-3000:]}" for process in self.processes)
                pytest.fail(f"nothing happened within {timeout} s\n{logs}\n--- seen by the test\n{self._graph()}")
            rclpy.spin_once(self.node, timeout_sec=0.05)
        return result

    def _graph(self) -> str:
        """Every endpoint of the robot, as discovery has told the test."""
        lines = []
        for topic, _ in self.node.get_topic_names_and_types():
            publishers = self.node.get_publishers_info_by_topic(topic)
            subscriptions = self.node.get_subscriptions_info_by_topic(topic)
            ends = [f"{end.node_name} {way} {end.qos_profile.reliability.name}"
                    for way, infos in (("->", publishers), ("<-", subscriptions)) for end in infos]  # fmt: skip
            lines += [f"{topic}: {', '.join(ends)}"] if topic.startswith(self.namespace) else []
        return "\n".join(lines)

    def collect(self, kind: Any, topic: str, qos: QoSProfile | int = 100) -> list[Any]:
        """A list that grows by every message on the topic."""
        if topic not in self.received:
            messages = self.received[topic] = []
            self.node.create_subscription(kind, topic, messages.append, qos)
        return self.received[topic]

    def publisher(self, kind: Any, topic: str, qos: QoSProfile | int = 10) -> Any:
        """One that somebody listens to."""
        if topic not in self._publishers:
            self._publishers[topic] = self.node.create_publisher(kind, topic, qos)
        publisher = self._publishers[topic]
        self.until(publisher.get_subscription_count)
        return publisher

    def call(self, kind: Any, service: str, **fields: Any) -> Any:
        if service not in self._clients:
            self._clients[service] = self.node.create_client(kind, service)
        client = self._clients[service]
        self.until(client.service_is_ready)
        future = client.call_async(kind.Request(**fields))
        self.until(future.done)
        return future.result()

    def change_state(self, *transitions: str) -> bool:
        """configure, activate, deactivate or cleanup, one after the other; False when one is refused."""
        numbers = (getattr(Transition, f"TRANSITION_{name.upper()}") for name in transitions)
        return all(
            self.call(ChangeState, "talk/change_state", transition=Transition(id=number)).success
            for number in numbers
        )

    @property
    def state(self) -> str:
        return self.call(GetState, "talk/get_state").current_state.label

    def set_parameter(self, name: str, value: Any) -> str:
        """Why it was refused; empty when it was not."""
        parameter = rclpy.Parameter(name, value=value).to_parameter_msg()
        result = self.call(SetParameters, "talk/set_parameters", parameters=[parameter]).results[0]
        assert result.successful or result.reason
        return result.reason

    def speak(self) -> None:
        """Publish a tone with pauses on audio_in from now on, 80 ms at a time, in real time: as real as this machine can."""
        if self._speech is None:
            self.publisher(Audio, "audio_in")
            self._speech = self.node.create_timer(0.08, self.say)
        self._speech.reset()

    def hush(self) -> None:
        if self._speech is not None:
            self._speech.cancel()

    def say(self, samples: np.ndarray | None = None, **fields: Any) -> Audio:
        """Publish one message on audio_in."""
        if samples is None:  # in the pauses the robot makes up for what came late
            samples = 8000 * np.sin(np.arange(1920) / 10) * (self.spoken % 25 < 17)
        message = Audio(index=self.spoken, sample_rate=24000, channels=1)
        message.data = array("h", samples.astype(np.int16).tobytes())
        message.header.stamp = self.node.get_clock().now().to_msg()
        for name, value in fields.items():
            setattr(message, name, value)
        # Called by a timer, too, and then must not wait.
        publisher = self._publishers.get("audio_in") or self.publisher(Audio, "audio_in")
        publisher.publish(message)
        self.spoken = message.index + 1
        return message
