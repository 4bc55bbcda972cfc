"""`moshivis watch` beside other nodes."""

from __future__ import annotations

import signal
from array import array
from pathlib import Path

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from moshivis_ros.msg import Audio, Gate, ImageCacheStatus, Speaking, Transcript
from rclpy.qos import DurabilityPolicy, QoSProfile
from robot import Robot
from sensor_msgs.msg import CompressedImage

from moshivis_ros.nodes.messages import to_audio, to_time

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def test_what_goes_on_is_seen_in_a_terminal(robot: Robot, tmp_path: Path) -> None:
    watch = robot.start_command(
        "moshivis", "watch", "--namespace", robot.namespace, "--ros-args", "-r", "transcript:=words",
        environment={"FORCE_COLOR": "1", "COLORTERM": "truecolor", "TERM": "xterm-256color", "COLUMNS": "120"},
    )  # fmt: skip
    words, gate = robot.publisher(Transcript, "words"), robot.publisher(Gate, "gate")
    voice, cache = robot.publisher(Audio, "audio_out"), robot.publisher(ImageCacheStatus, "image_cache", LATCHED)
    state = robot.publisher(Speaking, "speaking")
    health = robot.publisher(DiagnosticArray, "/diagnostics")
    loud = np.full(1920, 16000, np.int16).tobytes()
    slow = DiagnosticStatus(level=DiagnosticStatus.WARN, name=f"{robot.namespace}/talk: engine", message="too slow for this")
    slow.values = [KeyValue(key="frame time p50 (ms)", value="91.5"), KeyValue(key="frames dropped (too slow)", value="7")]
    other = DiagnosticStatus(name="/another/talk: engine", message="somebody else")
    camera = robot.publisher(CompressedImage, "image/compressed")
    green = np.full((48, 64, 3), (0, 255, 0), np.uint8)
    picture = CompressedImage(format="png", data=array("B", cv2.imencode(".png", green)[1].tobytes()))
    picture.header.stamp = to_time(5_000_000_000)
    sight = ImageCacheStatus(decision="keep", reason="unchanged", has_image=True, distance=0.125)
    sight.header.stamp = picture.header.stamp
    expected = ("48;2;0;255;0m▀", "say this", "48;2;255;166;0m", "keep: unchanged", "too slow for this", "p50 91.5", "frames dropped (too slow): 7", "speaking: user, asleep")

    def seen() -> bool:
        words.publish(Transcript(text=" say this", gate=1.0))
        words.publish(Transcript(text="say this", gate=1.0, final=True))
        gate.publish(Gate(normalised=0.75))
        voice.publish(to_audio(loud, robot.spoken, robot.spoken * 80_000_000))
        robot.spoken += 1
        camera.publish(picture)
        cache.publish(sight)
        state.publish(Speaking(user=True, asleep=True))
        health.publish(DiagnosticArray(status=[other, slow]))
        return all(text in watch.log for text in (*expected, "0.75", "scene distance 0.125", "█"))

    robot.until(seen)
    assert watch.end(signal.SIGINT) == 0
    assert "somebody else" not in watch.log and "Traceback" not in watch.log
