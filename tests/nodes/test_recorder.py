"""The recorder: what it writes down, what is left of it when it is killed, and who can read that."""

from __future__ import annotations

import itertools
import shutil
import signal
from array import array
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from moshivis_ros.msg import Audio, Gate, ImageCacheStatus, Transcript
from rcl_interfaces.srv import GetParameters
from rclpy.qos import DurabilityPolicy, QoSProfile
from robot import Process, Robot
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import CompressedImage

from moshivis_ros.cli import main
from moshivis_ros.nodes.messages import to_audio, to_time
from moshivis_ros.recording.bag import read_bag
from moshivis_ros.recording.recorded import Recorded, follow

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def tone(seconds: float, rate: int = 24000) -> bytes:
    wave = 0.5 * np.sin(2 * np.pi * 440.0 * np.arange(round(seconds * rate)) / rate)
    return (wave * 32767).astype(np.int16).tobytes()


def test_a_conversation_is_recorded_where_its_stamps_say(robot: Robot, tmp_path: Path) -> None:
    out = tmp_path / "out"
    node = robot.start("recorder", folder=out)

    def send(publisher: Any, *messages: Any) -> None:
        for message in messages:
            publisher.publish(message)
            for _ in range(2):  # answered after the message was taken
                robot.call(GetParameters, "recorder/get_parameters")

    user, voice = robot.publisher(Audio, "audio_in"), robot.publisher(Audio, "audio_out")
    text, gate = robot.publisher(Transcript, "transcript"), robot.publisher(Gate, "gate")
    cache = robot.publisher(ImageCacheStatus, "image_cache", LATCHED)
    camera = robot.publisher(CompressedImage, "image/compressed")
    _, encoded = cv2.imencode(".png", np.full((480, 640, 3), (10, 20, 200), np.uint8))
    picture = CompressedImage(format="png", data=array("B", encoded.tobytes()))
    picture.header.stamp = to_time(START + 5)
    send(camera, picture)
    # The robot is silent for 0.96 s, then speaks. The user does from 0.4 s to 0.8 s, at 16 kHz.
    send(voice, *(to_audio(tone(0.08) if n >= 12 else bytes(3840), n, START + n * 80_000_000) for n in range(24)))
    status = ImageCacheStatus(refreshes=1, reason="interval", decision="refresh", has_image=True, distance=0.25)
    status.header.stamp = picture.header.stamp
    send(cache, status)
    word = tone(0.08, 16000)
    send(user, *(to_audio(word, n, START + 400_000_000 + n * 80_000_000, sample_rate=16000) for n in range(5)))
    send(user, Audio(index=5))  # no sound at all: refused
    looked = Gate(normalised=0.5)
    looked.header.stamp = to_time(START + 960_000_000)
    send(gate, looked)
    said = ((False, 0.96, 1.04, " he"), (False, 1.04, 1.12, "y"), (True, 0.96, 1.12, "hey"))
    for final, begin, end, words in said:
        message = Transcript(text=words, final=final, start=begin, end=end, gate=0.5)
        message.header.stamp = to_time(START + round((1.9 if final else begin) * SECOND))
        send(text, message)
    assert node.end() == 0

    recorded = Recorded()
    left, right = np.concatenate(list(follow(out, recorded))).T
    loudness = np.abs(np.stack([left, right])).reshape(2, -1, 1920).max(axis=2)  # [side, frame of 80 ms]
    assert (loudness[0] > 0.4).tolist() == [False] * 12 + [True] * 12
    # Only whole frames are kept: resampled by 1.5 ms later, the fifth word is not complete.
    assert (loudness[1] > 0.4).tolist()[:9] == [False] * 5 + [True] * 4 and loudness[1][10:].max() < 0.01
    assert recorded.to_json() == {
        "pieces": [{"time": 0.96, "text": " he", "gate": 0.5}, {"time": 1.04, "text": "y", "gate": 0.5}],
        "utterances": [{"start": 0.96, "end": 1.12, "text": "hey", "gate": 0.5}],
        "refreshes": [{"time": 1.92, "reason": "interval"}],
    }
    assert recorded.gates == [(0.96, 0.5)]
    assert any("not sound" in note for note in recorded.notes)
    seen = cv2.imdecode(np.frombuffer(recorded.pictures[START + 5], np.uint8), cv2.IMREAD_COLOR)
    assert seen.shape == (240, 320, 3) and np.abs(seen.mean(axis=(0, 1)) - (10, 20, 200)).max() < 4

    with AnyReader([out]) as reader:  # as anybody reads it, without ROS
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
        assert counts[f"{robot.namespace}/audio_out"] == 24 and counts[f"{robot.namespace}/transcript"] == 3
        (cached,) = [
            reader.deserialize(raw, connection.msgtype)
            for connection, _, raw in reader.messages()
            if connection.topic.endswith("image_cache")
        ]
        assert cached.reason == "interval" and cached.distance == 0.25


def test_nothing_to_record_is_said(robot: Robot, tmp_path: Path) -> None:
    node = robot.start("recorder", folder=tmp_path / "out")
    robot.call(GetParameters, "recorder/get_parameters")  # it is made
    assert node.end() == 0
    assert "nothing was recorded" in node.log and not (tmp_path / "out").exists()


def speaks(robot: Robot, out: Path, size: int) -> Process:
    """A recorder that has written at least so many bytes of the robot's sound."""
    node = robot.start("recorder", folder=out)
    voice, count = robot.publisher(Audio, "audio_out"), itertools.count()
    rng = np.random.default_rng(0)

    def written() -> bool:
        n = next(count)
        noise = rng.integers(-20000, 20000, 1920, np.int16).tobytes()  # which does not get smaller
        voice.publish(to_audio(noise, n, START + n * 80_000_000))
        return sum(file.stat().st_size for file in out.glob("*.mcap")) >= size

    robot.until(written)
    return node


def test_a_recorder_that_is_killed_loses_a_chunk_and_leaves_a_bag(
    robot: Robot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    node = speaks(robot, out, 400_000)
    assert node.end(signal.SIGKILL) == -signal.SIGKILL
    assert not (out / "metadata.yaml").exists()
    numbers = [entry.message.index for entry in read_bag(out) if entry.role == "audio_out"]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) and len(numbers) >= 400_000 / 3840 - 40
    assert main(["report", str(out), "--wav", str(tmp_path / "sound.wav")]) == 0
    assert "not complete" in capsys.readouterr().out
    assert (tmp_path / "sound.wav").stat().st_size > len(numbers) * 3840
    assert "data:audio/mpeg" in (out / "report.html").read_text()
    with AnyReader([out]) as reader:
        assert reader.message_count >= len(numbers)


def test_a_recording_whose_folder_is_removed_is_not_lost(robot: Robot, tmp_path: Path) -> None:
    out = tmp_path / "out"
    node = speaks(robot, out, 200_000)
    shutil.rmtree(out)
    assert node.end() == 0, node.log
    assert sum(1 for entry in read_bag(out) if entry.role == "audio_out") >= 40


@pytest.mark.parametrize("what", ["file", "bag"])
def test_what_stands_in_the_way_of_a_recording_is_said_at_once(robot: Robot, tmp_path: Path, what: str) -> None:
    out = tmp_path / "out"
    if what == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine.mcap").write_text("mine")
    node = robot.start("recorder", folder=out)
    assert node.wait() == 2
    assert str(out) in node.log and "name" in node.log and "Traceback" not in node.log
    assert not list(tmp_path.glob("**/*.part*"))
