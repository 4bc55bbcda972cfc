"""Recordings, pictures, sound cards and the recorder as nodes, over DDS."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from moshivis_ros.msg import Audio
from rclpy.qos import DurabilityPolicy, QoSProfile
from robot import Robot
from sensor_msgs.msg import CompressedImage, Image

from moshivis_ros.audio import files
from moshivis_ros.nodes.messages import to_audio, to_nanoseconds
from moshivis_ros.vision import encoded, encodings

SECOND = 1_000_000_000
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
COLOURS = {"a": (200, 30, 20), "b": (20, 30, 200)}


def tone(seconds: float, frequency: float = 440.0, rate: int = 24000) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    folder = tmp_path / "slides"
    folder.mkdir()
    for name, colour in COLOURS.items():
        cv2.imwrite(str(folder / f"{name}.png"), np.full((30, 40, 3), colour[::-1], np.uint8))
    return folder


@pytest.mark.parametrize("chunk", [0.02, 0.08])
def test_a_recording_is_published_in_real_time_and_the_node_ends(
    robot: Robot, tmp_path: Path, chunk: float
) -> None:
    samples = tone(0.5)
    files.write(tmp_path / "question.wav", samples)
    heard = robot.collect(Audio, "audio_in")
    node = robot.start("audio_file", path=tmp_path / "question.wav", chunk=chunk, tail=0.3)
    robot.until(lambda: node.popen.poll() is not None)
    assert node.popen.returncode == 0
    robot.until(lambda: sum(len(message.data) for message in heard) == 0.8 * 24000)
    assert [message.index for message in heard] == list(range(len(heard)))
    steps = np.diff([to_nanoseconds(message.header.stamp) for message in heard])
    assert (steps == chunk * SECOND).all()
    sound = np.concatenate([message.data for message in heard])
    np.testing.assert_allclose(sound[:12000] / 32768, samples, atol=1e-3)
    assert not sound[12000:].any()


def test_a_looping_recording_goes_on(robot: Robot, tmp_path: Path) -> None:
    files.write(tmp_path / "word.wav", tone(0.1))
    heard = robot.collect(Audio, "audio_in")
    node = robot.start("audio_file", path=tmp_path / "word.wav", loop=True)
    robot.until(lambda: len(heard) > 12)
    assert [message.index for message in heard] == list(range(len(heard)))
    assert node.end() == 0


def test_a_recording_waits_for_all_its_listeners(robot: Robot, tmp_path: Path, slides: Path) -> None:
    files.write(tmp_path / "word.wav", tone(0.1))
    first, second = robot.collect(Audio, "audio_in"), []
    robot.start("audio_file", path=tmp_path / "word.wav", loop=True, listeners=2)
    robot.until(lambda: robot.node.count_publishers("audio_in"))
    pictures = robot.collect(Image, "image")  # they pass the time in which it could begin
    robot.start("video_file", path=slides, rate=10.0, loop=True)
    robot.until(lambda: len(pictures) > 5)
    assert not first
    robot.node.create_subscription(Audio, "audio_in", second.append, 100)
    robot.until(lambda: first and second)
    assert first[0].index == second[0].index == 0


@pytest.mark.parametrize(("name", "words"), [("audio_file", "no such recording"), ("video_file", "nowhere")])
def test_a_missing_file_is_said(robot: Robot, name: str, words: str) -> None:
    node = robot.start(name, path="/nowhere.wav")
    assert node.wait() == 2
    assert words in node.log and "Traceback" not in node.log


@pytest.mark.parametrize("kind", ["raw", "jpeg", "png"])
def test_a_slide_show(robot: Robot, slides: Path, kind: str) -> None:
    message_type, topic = (Image, "image") if kind == "raw" else (CompressedImage, "image/compressed")
    pictures = robot.collect(message_type, topic)
    node = robot.start(
        "video_file", path=slides, slide_seconds=1.0, rate=20.0, format=kind, frame_id="eye", loop=True
    )
    middles = []

    def both() -> bool:
        for message in pictures[len(middles) :]:
            if kind == "raw":
                picture = encodings.decode(
                    bytes(message.data), encoding=message.encoding, height=message.height, width=message.width,
                    step=message.step,
                )  # fmt: skip
            else:
                picture = encoded.decode_compressed(bytes(message.data), message.format)
            middles.append(tuple(picture[15, 20].astype(int)))
        # From the first to the second and, as it loops, to the first again.
        changes = [
            after
            for before, after in zip(middles, middles[1:])
            if np.abs(np.subtract(before, after)).max() > 50
        ]
        return len(changes) >= 2

    robot.until(both)
    for colour in COLOURS.values():
        assert any(np.allclose(colour, middle, atol=6) for middle in middles)
    assert {message.header.frame_id for message in pictures} == {"eye"}
    stamps = [to_nanoseconds(message.header.stamp) for message in pictures]
    assert stamps == sorted(set(stamps))
    assert node.end() == 0


def test_a_video_ends(robot: Robot, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (40, 30))
    for n in range(10):
        writer.write(np.full((30, 40, 3), 20 * n, np.uint8))
    writer.release()
    pictures = robot.collect(Image, "image")
    node = robot.start("video_file", path=tmp_path / "clip.avi", rate=20.0)
    robot.until(lambda: node.popen.poll() is not None)
    assert node.popen.returncode == 0
    assert pictures and all(
        (message.height, message.width, message.encoding) == (30, 40, "rgb8") for message in pictures
    )


def test_microphone_and_speaker_on_virtual_devices(
    robot: Robot, pulse: dict[str, str], tmp_path: Path
) -> None:
    """A real PortAudio path: what plays into the virtual microphone is published, what is published is
    played.
    """
    heard, played = robot.collect(Audio, "audio_in"), robot.collect(Audio, "audio_played")
    robot.start(
        "microphone", environment=pulse, device="pulse", sample_rate=48000, channels=2, frame_id="ear"
    )
    robot.start("speaker", environment=pulse, device="pulse", sample_rate=48000)
    voice = robot.publisher(Audio, "audio_out")
    files.write(tmp_path / "question.wav", np.stack([tone(30, rate=48000)] * 2, axis=1), 48000)
    source = subprocess.Popen(
        ["paplay", "--device=mic", tmp_path / "question.wav"],
        env={**os.environ, **pulse, "PULSE_SINK": "mic"},
    )
    try:
        robot.until(lambda: heard and max(heard[-1].data) > 10000)
    finally:
        source.terminate()
        source.wait()
    assert {(m.sample_rate, m.channels, m.header.frame_id) for m in heard} == {(48000, 2, "ear")}
    assert [message.index for message in heard] == list(range(heard[0].index, heard[0].index + len(heard)))
    age = robot.node.get_clock().now().nanoseconds - to_nanoseconds(heard[-1].header.stamp)
    assert 0 < age < 5 * SECOND  # stamped with the time of day it was heard

    loud = (tone(0.08) * 32767).astype(np.int16).tobytes()
    count = itertools.count()

    def plays() -> bool:
        voice.publish(to_audio(loud, next(count), 0))
        return any(max(message.data) > 10000 for message in played)

    robot.until(plays)
    assert {(message.sample_rate, message.channels) for message in played} == {(48000, 1)}
    assert all(process.end() == 0 for process in robot.processes)


@pytest.mark.parametrize("name", ["microphone", "speaker"])
def test_without_a_device_the_node_waits_for_one(robot: Robot, pulse: dict[str, str], name: str) -> None:
    node = robot.start(name, environment=pulse, device="no such device")
    robot.until(lambda: "no such device" in node.log and "Trying again" in node.log)
    assert node.end() == 0
