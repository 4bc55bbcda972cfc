"""What the user said and who is speaking, over DDS."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moshivis_ros.msg import Audio, Speaking, Transcript
from rclpy.qos import DurabilityPolicy, QoSProfile
from robot import Robot
from std_msgs.msg import Bool

from moshivis_ros.audio.pcm import encode
from moshivis_ros.nodes.messages import to_audio, to_nanoseconds

sys.path.append(str(Path(__file__).parents[1]))
from hearing import OTHER, pause, spoken, whisper  # noqa: E402

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SECOND = 1_000_000_000


class Sound:
    """Publishes sound, in messages of 80 ms whose stamps follow one another, as fast as it is taken."""

    def __init__(self, robot: Robot, topic: str, stamp: int = SECOND) -> None:
        self._publisher, self._index, self.stamp = robot.publisher(Audio, topic, 1000), 0, stamp

    def send(self, *sounds: np.ndarray) -> None:
        samples = encode(np.concatenate(sounds))
        for start in range(0, len(samples) - 1919, 1920):
            self._publisher.publish(to_audio(samples[start : start + 1920].tobytes(), self._index, self.stamp))
            self._index += 1
            self.stamp += 80_000_000
        assert self._publisher.wait_for_all_acked()


def words(message: Transcript) -> str:
    return " ".join(re.findall(r"\w+", message.text.lower()))


@pytest.fixture(scope="module")
def shared(make_robot: Callable[[], Robot]) -> Robot:
    robot = make_robot()
    robot.start("listener", model=whisper(), partial_every=0.5)
    return robot


def test_the_user_is_heard_in_part_and_whole(shared: Robot) -> None:
    robot = shared
    heard, speaking = robot.collect(Transcript, "user_transcript"), robot.collect(Speaking, "speaking")
    robot.until(lambda: speaking and not speaking[-1].user)
    sound = Sound(robot, "audio_in")
    question = spoken("Please tell me what you see. And turn left.")
    half = len(question) // 1920 // 2 * 1920
    sound.send(pause(1), question[:half])
    first = robot.until(lambda: next((message for message in heard if not message.final), None))
    assert words(first).startswith("please")
    robot.until(lambda: speaking[-1].user)
    sound.send(question[half:], pause(1))
    whole = robot.until(lambda: next((message for message in heard if message.final), None))
    assert words(whole) == "please tell me what you see and turn left"
    assert whole.speaker == "user" and 0.3 < whole.confidence <= 1.0 and whole.utterance == first.utterance
    seconds = len(question) / 24000
    assert whole.start == pytest.approx(1.0, abs=0.3) and whole.end == pytest.approx(1.0 + seconds, abs=0.3)
    assert to_nanoseconds(whole.header.stamp) / 1e9 == pytest.approx(2.0 + seconds, abs=0.3)
    robot.until(lambda: not speaking[-1].user)
    assert not any(message.robot for message in speaking)


def test_the_robots_voice_is_told_and_not_taken_for_the_user(shared: Robot) -> None:
    robot = shared
    heard, speaking = robot.collect(Transcript, "user_transcript"), robot.collect(Speaking, "speaking")
    heard.clear()
    begin = 1000 * SECOND  # a new time: nothing of the test before is in the way
    voice, user = Sound(robot, "audio_out", begin), Sound(robot, "audio_in", begin)
    answer = np.concatenate([pause(0.5), spoken("I see a red ball and a green cup.", OTHER), pause(2)])
    voice.send(answer)
    robot.until(lambda: any(message.robot for message in speaking))
    user.send(answer / 10)
    robot.until(lambda: not speaking[-1].robot)
    user.send(spoken("What do you see?"), pause(1))
    robot.until(lambda: any(message.final for message in heard))
    assert {words(message) for message in heard if message.final} == {"what do you see"}


def test_muted_and_asleep_are_told(shared: Robot) -> None:
    robot, told = shared, shared.collect(Speaking, "speaking")
    for topic in ("muted", "asleep"):
        publisher = robot.publisher(Bool, f"talk/{topic}", LATCHED)
        for value in (True, False):
            publisher.publish(Bool(data=value))
            robot.until(lambda topic=topic, value=value: told and getattr(told[-1], topic) == value)


def test_ros4hri_is_told_where_its_messages_are(shared: Robot) -> None:
    hri = pytest.importorskip("hri_msgs.msg", reason="hri_msgs is not installed")
    robot = shared
    voices = robot.collect(hri.IdsList, "humans/voices/tracked", LATCHED)
    heard = robot.collect(hri.LiveSpeech, "humans/voices/user/speech")
    robot.until(lambda: voices and robot.node.count_publishers("humans/voices/user/speech"))
    assert voices[-1].ids == ["user"]
    Sound(robot, "audio_in", 2000 * SECOND).send(spoken("What do you see?"), pause(1))
    robot.until(lambda: any(message.final for message in heard))
    assert heard[-1].final.strip(" ?").lower() == "what do you see" and 0.3 < heard[-1].confidence <= 1


def test_a_model_that_is_not_there_is_said(robot: Robot) -> None:
    listener: Any = robot.start("listener", model="/no/such")
    assert listener.wait() == 2
    assert "'/no/such' of the listener cannot be loaded" in listener.log and "Traceback" not in listener.log
