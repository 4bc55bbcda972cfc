"""talk.launch.py as `ros2 launch` runs it, where launch is installed: the wheels do not bring it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lifecycle_msgs.srv import GetState
from moshivis_ros.msg import Audio
from robot import TIMEOUT, Robot

pytestmark = pytest.mark.launch
pytest.importorskip("launch_ros", reason="launch comes with ROS, not with the wheels")

FILE = Path(__file__).parents[2] / "launch" / "talk.launch.py"
RUN = """
import runpy, sys
from launch import LaunchService
service = LaunchService(argv=sys.argv[2:])
service.include_launch_description(runpy.run_path(sys.argv[1])["generate_launch_description"]())
from launch.actions import DeclareLaunchArgument
service.context.launch_configurations.update(argument.split(":=", 1) for argument in sys.argv[2:])
sys.exit(service.run())
"""


class Launched:
    """A running launch file, and what it prints."""

    def __init__(self, robot: Robot, environment: dict[str, str], log: Path, **arguments: object) -> None:
        arguments = {"namespace": robot.namespace, "microphone": "false", "speaker": "false", **arguments}
        self._log = log
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-c", RUN, FILE, *(f"{name}:={value}" for name, value in arguments.items())],
                env={**os.environ, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def pids(self, name: str) -> list[int]:
        """Of all processes that this node has had."""
        return [int(pid) for pid in re.findall(rf"\[{name}-\d+\]: process started with pid \[(\d+)\]", self.log)]


@pytest.fixture
def launch(robot: Robot, environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    started: list[Launched] = []

    def start(**arguments: Any) -> Launched:
        started.append(Launched(robot, environment, tmp_path / "launch.log", **arguments))
        return started[-1]

    yield start
    for launched in started:
        if launched.popen.poll() is None:
            launched.popen.send_signal(signal.SIGINT)
            launched.popen.wait(TIMEOUT)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"params_file": "/no/such.yaml"}, "there is no file '/no/such.yaml' (params_file)"),
        ({"model": "/no/such"}, "there is no folder /no/such"),
        ({"autostart": "maybe"}, "maybe"),
    ],
)
def test_what_cannot_work_ends_with_its_reason(
    launch: Callable[..., Launched], arguments: dict[str, str], words: str
) -> None:
    launched = launch(**arguments)
    assert launched.popen.wait(TIMEOUT) == 1
    assert words in launched.log and "Traceback" not in launched.log


def test_a_refused_parameter_ends_with_its_reason(launch: Callable[..., Launched], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("/**/talk:\n  ros__parameters:\n    max_backlog: 0\n")
    launched = launch(params_file=tmp_path / "bad.yaml")
    assert launched.popen.wait(TIMEOUT) == 1
    assert "max_backlog out of range" in launched.log and "talk-1 cannot work like this" in launched.log


def test_what_dies_is_started_again_and_talks(
    robot: Robot, launch: Callable[..., Launched], checkpoint: Path
) -> None:
    heard = robot.collect(Audio, "voice")
    launched = launch(model=checkpoint, audio_out="voice")
    robot.until(lambda: heard)
    (first,) = launched.pids("talk")
    os.kill(first, signal.SIGKILL)
    robot.until(lambda: len(launched.pids("talk")) == 2)
    heard.clear()
    robot.until(lambda: heard, timeout=2 * TIMEOUT)


def test_a_manager_is_left_alone(robot: Robot, launch: Callable[..., Launched], checkpoint: Path) -> None:
    launch(model=checkpoint, autostart="false")
    assert robot.state == "unconfigured"
    assert robot.change_state("configure")
    for _ in range(20):  # answered after everything that happened before
        assert robot.call(GetState, "talk/get_state").current_state.label == "inactive"
    assert robot.change_state("activate", "deactivate", "cleanup")


def test_autostart_happens_once(robot: Robot, launch: Callable[..., Launched], checkpoint: Path) -> None:
    heard = robot.collect(Audio, "audio_out")
    launch(model=checkpoint)
    robot.until(lambda: heard)
    assert robot.change_state("deactivate", "cleanup", "configure")
    for _ in range(20):
        assert robot.state == "inactive"
