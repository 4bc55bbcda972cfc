"""The scenarios of worlds/scenarios, over DDS: a simulated camera robot, the talk node, and what comes of it."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
from moshivis_ros.msg import Audio, ImageCacheStatus, Transcript
from rclpy.qos import DurabilityPolicy, QoSProfile
from robot import FRAME, Robot
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger

from moshivis_ros.audio import SAMPLE_RATE
from moshivis_ros.audio.files import read, write
from moshivis_ros.nodes.messages import to_nanoseconds
from moshivis_ros.simulation.scenario import Scenario, load_scenario

# Not importorskip: mujoco chooses its OpenGL when it is first imported, and the renderer has a say in that.
pytestmark = pytest.mark.skipif(not importlib.util.find_spec("mujoco"), reason="mujoco is not installed")

SCENARIOS = sorted((Path(__file__).parents[2] / "worlds" / "scenarios").glob("*.yaml"))
LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SLACK = 1.0  # seconds of conversation by which messages of different nodes may be apart


@pytest.fixture(scope="module")
def shared(make_robot: Callable[[], Robot]) -> Robot:
    """Its model is silent while nobody asks, so that nothing but the policy decides when it looks."""
    robot = make_robot()
    sampling = {"text_temperature": 0.0, "audio_temperature": 0.5}
    # So long a backlog that no word is dropped because the machine has other things to do.
    robot.start("talk", model="builtin", refresh_policy="gating", max_backlog=100, **sampling)
    assert robot.change_state("configure"), robot.processes[0].log
    return robot


@pytest.fixture
def robot_with_eyes(shared: Robot) -> Iterator[Robot]:
    """Not active yet: camera and microphone begin with their first listener."""
    yield shared
    if shared.state == "active":
        assert shared.change_state("deactivate")
    for process in shared.processes[1:]:
        if process.popen.poll() is None:
            process.end()


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(robot_with_eyes: Robot, path: Path, tmp_path: Path) -> None:
    """What happens when is told by the stamps of the pictures, how long it took by the frames that were spoken."""
    robot, scenario = robot_with_eyes, load_scenario(path)
    statuses = robot.collect(ImageCacheStatus, "image_cache", LATCHED)
    infos = robot.collect(CameraInfo, "camera_info")  # the pictures themselves are large
    heard = robot.collect(Audio, "audio_out")
    said = robot.collect(Transcript, "transcript")
    for messages in (statuses, infos, heard, said):
        messages.clear()
    camera = robot.start("sim_camera", scenario=path)
    robot.until(lambda: infos)
    if scenario.questions:
        write(tmp_path / "questions.wav", sound_track(scenario))
        microphone = robot.start("audio_file", path=tmp_path / "questions.wav")
        robot.until(lambda: "waiting" in microphone.log)
    assert robot.change_state("activate"), robot.processes[0].log
    begin = int(robot.until(lambda: re.search(r"begins at (\d+)", camera.log))[1])

    def looked(since: int) -> ImageCacheStatus | None:
        return next((s for s in statuses if s.has_image and stamp(s) >= since), None)

    def shows(time: int) -> bool:
        return bool(infos) and stamp(infos[-1]) >= time

    # The last scenario may have ended with the view of this one: nothing new to see.
    robot.until(lambda: robot.call(Trigger, "talk/refresh_image").success)
    robot.until(partial(looked, begin))
    for wanted in scenario.refreshes:
        after = begin + int(wanted.after * 1e9)
        robot.until(partial(shows, after))
        frames = len(heard)
        robot.until(partial(looked, after))
        assert (len(heard) - frames) * FRAME <= (wanted.within + SLACK) * 1e9
    robot.until(lambda: shows(begin + int(scenario.seconds * 1e9)))
    for question, following in zip_longest(scenario.questions, scenario.questions[1:]):
        end = following.at if following else math.inf
        answer = partial(words, said, begin + question.at * 1e9, begin + end * 1e9)
        robot.until(lambda answer=answer: answer() & {other.answer for other in scenario.questions})
        assert question.answer in answer(), [message.text for message in said]
    reasons = {status.refreshes: status.reason for status in reversed(statuses)}  # the first of each number
    change = begin + min(change.time for change in scenario.scene.changes) * 1e9
    before = max(status.refreshes for status in statuses if stamp(status) < change)
    assert statuses[-1].refreshes - before <= scenario.at_most, reasons
    indices = [message.index for message in heard]
    assert indices == list(range(indices[0], indices[0] + len(indices)))  # no sound lost by looking
    assert camera.end() == 0, camera.log


def sound_track(scenario: Scenario) -> np.ndarray:
    """float32 [n] at 24 kHz: silence with every question at its time."""
    track = np.zeros(round(scenario.seconds * SAMPLE_RATE), np.float32)
    for question in scenario.questions:
        sound, start = read(question.sound), round(question.at * SAMPLE_RATE)
        track[start : start + len(sound)] = sound
    return track


def stamp(message: ImageCacheStatus | CameraInfo | Transcript) -> int:
    return to_nanoseconds(message.header.stamp)


def words(said: list[Transcript], start: float, end: float) -> set[str]:
    """Of the utterances that were finished between these times."""
    texts = [message.text for message in said if message.final and start <= stamp(message) < end]
    return set(re.findall(r"\w+", " ".join(texts).lower()))


def test_the_camera_is_a_ros_camera(robot: Robot) -> None:
    robot.start("sim_camera", scenario=SCENARIOS[0])
    pictures, infos = robot.collect(Image, "image"), robot.collect(CameraInfo, "camera_info")
    robot.until(lambda: len(pictures) > 2 and len(infos) > 2)
    picture, info = pictures[-1], infos[-1]
    assert (picture.encoding, picture.width, picture.height, picture.step) == ("rgb8", 640, 480, 1920)
    assert picture.header.frame_id == info.header.frame_id == "camera_optical_frame"
    assert {stamp(picture) for picture in pictures} & {stamp(info) for info in infos}
    assert info.k[2] == 320 and info.k[0] == info.k[4] > 0


@pytest.mark.parametrize(
    ("given", "words"),
    [({}, "either"), ({"world": "none.sdf"}, "none.sdf"), ({"scenario": "none.yaml"}, "none")],
)
def test_what_cannot_be_shown_is_said(robot: Robot, given: dict[str, str], words: str) -> None:
    camera = robot.start("sim_camera", **given)
    assert camera.wait() == 2
    assert words in camera.log
