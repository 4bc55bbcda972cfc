"""The scenarios of worlds/scenarios, over DDS: a simulated camera robot, the talk node, and what comes of it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from moshivis_ros.msg import Audio, ImageCacheStatus
from rclpy.qos import DurabilityPolicy, QoSProfile
from robot import FRAME, Robot
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger

from moshivis_ros.nodes.messages import to_nanoseconds
from moshivis_ros.simulation.scenario import load_scenario

# Not importorskip: mujoco chooses its OpenGL when it is first imported, and the renderer has a say in that.
pytestmark = [
    pytest.mark.scenario,
    pytest.mark.skipif(not importlib.util.find_spec("mujoco"), reason="mujoco is not installed"),
]

SCENARIOS = sorted((Path(__file__).parents[2] / "worlds" / "scenarios").glob("*.yaml"))
LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SLACK = 1.0  # seconds of conversation by which messages of different nodes may be apart


@pytest.fixture(scope="module")
def robot_with_eyes(make_robot: Callable[[], Robot], checkpoint: Path) -> Robot:
    robot = make_robot()
    robot.start("talk", model=checkpoint, refresh_policy="gating", seed=1)
    assert robot.change_state("configure"), robot.processes[0].log
    return robot


@pytest.fixture
def talking(robot_with_eyes: Robot) -> Iterator[Robot]:
    assert robot_with_eyes.change_state("activate"), robot_with_eyes.processes[0].log
    yield robot_with_eyes
    assert robot_with_eyes.change_state("deactivate")


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(talking: Robot, path: Path) -> None:
    """What happens when is told by the stamps of the pictures, how long it took by the frames that were spoken."""
    robot, scenario = talking, load_scenario(path)
    statuses = robot.collect(ImageCacheStatus, "image_cache", LATCHED)
    infos = robot.collect(CameraInfo, "camera_info")  # the pictures themselves are large
    heard = robot.collect(Audio, "audio_out")
    for messages in (statuses, infos, heard):
        messages.clear()
    camera = robot.start("sim_camera", scenario=path)
    begin = int(robot.until(lambda: re.search(r"begins at (\d+)", camera.log))[1])

    def seen_since(time: int) -> ImageCacheStatus | None:
        return next((s for s in statuses if s.has_image and to_nanoseconds(s.header.stamp) >= time), None)

    def shows(time: int) -> bool:
        return bool(infos) and to_nanoseconds(infos[-1].header.stamp) >= time

    while not (first := seen_since(begin)):  # the last scenario may have ended with the view of this one
        before = robot.until(lambda: statuses)[-1].refreshes
        robot.until(lambda: robot.call(Trigger, "talk/refresh_image").success)
        robot.until(partial(looked_again, statuses, before))

    for wanted in scenario.refreshes:
        after = begin + int(wanted.after * 1e9)
        robot.until(partial(shows, after))
        frames = len(heard)
        robot.until(partial(seen_since, after))
        assert (len(heard) - frames) * FRAME <= (wanted.within + SLACK) * 1e9
    robot.until(lambda: shows(begin + int(scenario.seconds * 1e9)))
    reasons = {status.refreshes: status.reason for status in reversed(statuses)}  # the first of each number
    requested = sum(number > first.refreshes and reasons[number] == "requested" for number in reasons)
    assert statuses[-1].refreshes - first.refreshes - requested <= scenario.at_most, reasons
    indices = [message.index for message in heard]
    assert indices == list(range(indices[0], indices[0] + len(indices)))  # no sound lost by looking
    assert camera.end() == 0, camera.log


def looked_again(statuses: list[ImageCacheStatus], before: int) -> bool:
    return statuses[-1].refreshes > before


def test_the_camera_is_a_ros_camera(robot: Robot) -> None:
    robot.start("sim_camera", scenario=SCENARIOS[0])
    pictures, infos = robot.collect(Image, "image"), robot.collect(CameraInfo, "camera_info")
    robot.until(lambda: len(pictures) > 2 and len(infos) > 2)
    picture, info = pictures[-1], infos[-1]
    assert (picture.encoding, picture.width, picture.height, picture.step) == ("rgb8", 640, 480, 1920)
    assert picture.header.frame_id == info.header.frame_id == "camera_optical_frame"
    assert {to_nanoseconds(p.header.stamp) for p in pictures} & {
        to_nanoseconds(i.header.stamp) for i in infos
    }
    assert info.k[2] == 320 and info.k[0] == info.k[4] > 0


@pytest.mark.parametrize(
    ("given", "words"),
    [({}, "either"), ({"world": "none.sdf"}, "none.sdf"), ({"scenario": "none.yaml"}, "none")],
)
def test_what_cannot_be_shown_is_said(robot: Robot, given: dict[str, str], words: str) -> None:
    camera = robot.start("sim_camera", **given)
    assert camera.popen.wait(60) == 1
    assert words in camera.log
