"""`make drive`: told to turn left, the robot says so and turns; asked what it sees, it tells the new view. Over DDS."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from moshivis_ros.msg import Speaking, Transcript
from nav_msgs.msg import Odometry
from robot import Robot, executable
from std_msgs.msg import Float64

sys.path.append(str(Path(__file__).parents[1]))
from hearing import whisper  # noqa: E402

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("mujoco"), reason="mujoco is not installed")


def words(messages: list[Transcript]) -> list[str]:
    return [" ".join(re.findall(r"\w+", message.text.lower())) for message in messages if message.final]


def test_it_turns_when_told_and_tells_what_it_sees_then(robot: Robot, environment: dict[str, str]) -> None:
    topic = "/moshivis_demo/{}".format
    heard, said = robot.collect(Transcript, topic("user_transcript")), robot.collect(Transcript, topic("transcript"))
    turns, places = robot.collect(Float64, topic("turn")), robot.collect(Odometry, topic("odom"))
    speaking = robot.collect(Speaking, topic("speaking"))
    drive = subprocess.Popen(
        [executable("drive"), "--whisper", whisper()],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    robot.until(lambda: drive.poll() is not None, timeout=240)
    output, _ = drive.communicate()
    assert drive.returncode == 0, output
    assert words(heard) == ["turn left", "what do you see"]
    assert [message.data for message in turns] == [pytest.approx(math.pi / 2, abs=1e-3)]
    assert any("yes on the left" in text for text in words(said)), words(said)
    turned = places[-1].pose.pose.orientation
    assert 2 * math.atan2(turned.z, turned.w) == pytest.approx(math.pi / 2, abs=0.1)
    # The view before held a red ball and a blue cup.
    answer = words(said)[-1]
    assert "green bottle" in answer and "red" not in answer and "blue" not in answer, output
    assert any(message.user for message in speaking) and any(message.robot for message in speaking)
