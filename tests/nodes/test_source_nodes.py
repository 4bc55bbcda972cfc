"""Recordings, pictures, sound cards and the recorder as nodes, over DDS."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import soundfile
from moshivis_ros.msg import Audio, ImageCacheStatus, Transcript
from rcl_interfaces.srv import GetParameters
from rclpy.qos import DurabilityPolicy, QoSProfile
from robot import Process, Robot
from sensor_msgs.msg import CompressedImage, Image

from moshivis_ros.audio import files
from moshivis_ros.nodes.messages import to_audio, to_nanoseconds, to_time
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
    assert node.popen.wait(60) == 2
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


def test_a_conversation_is_recorded_where_its_stamps_say(robot: Robot, tmp_path: Path) -> None:
    node = robot.start("recorder", folder=tmp_path / "out")

    def send(publisher: Any, *messages: Any) -> None:
        for message in messages:
            publisher.publish(message)
            for _ in range(2):  # answered after the message was taken
                robot.call(GetParameters, "recorder/get_parameters")

    user, voice = robot.publisher(Audio, "audio_in"), robot.publisher(Audio, "audio_out")
    text, cache = (
        robot.publisher(Transcript, "transcript"),
        robot.publisher(ImageCacheStatus, "image_cache", LATCHED),
    )
    start = 1_700_000_000 * SECOND
    loud, word = ((tone(0.08, rate=rate) * 32767).astype(np.int16).tobytes() for rate in (24000, 16000))
    # The robot is silent for 0.96 s, then speaks. The user does from 0.4 s to 0.8 s, at 16 kHz.
    send(voice, *(to_audio(loud if n >= 12 else bytes(3840), n, start + n * 80_000_000) for n in range(24)))
    send(cache, ImageCacheStatus(refreshes=1, reason="interval", has_image=True))
    send(
        user, *(to_audio(word, n, start + 400_000_000 + n * 80_000_000, sample_rate=16000) for n in range(5))
    )
    send(user, Audio(index=5))  # no sound at all: refused
    said = ((False, 0.96, 1.04, " he"), (False, 1.04, 1.12, "y"), (True, 0.96, 1.12, "hey"))
    for final, begin, end, words in said:
        message = Transcript(text=words, final=final, start=begin, end=end, gate=0.5)
        message.header.stamp = to_time(start + round((1.9 if final else begin) * SECOND))
        send(text, message)
    assert node.end() == 0

    left, right = np.transpose(soundfile.read(tmp_path / "out" / "conversation.wav")[0])
    loudness = np.abs(np.stack([left, right])).reshape(2, -1, 1920).max(axis=2)  # [side, frame of 80 ms]
    assert (loudness[0] > 0.4).tolist() == [False] * 12 + [True] * 12
    # Only whole frames are kept: resampled by 1.5 ms later, the fifth word is not complete.
    assert (loudness[1] > 0.4).tolist()[:9] == [False] * 5 + [True] * 4 and loudness[1][10:].max() < 0.01
    transcript = json.loads((tmp_path / "out" / "transcript.json").read_text())
    assert transcript == {
        "pieces": [{"time": 0.96, "text": " he", "gate": 0.5}, {"time": 1.04, "text": "y", "gate": 0.5}],
        "utterances": [{"start": 0.96, "end": 1.12, "text": "hey", "gate": 0.5}],
        "refreshes": [{"time": 1.92, "reason": "interval"}],
    }
    assert "not recorded" in node.log


def test_nothing_to_record_is_said(robot: Robot, tmp_path: Path) -> None:
    node = robot.start("recorder", folder=tmp_path / "out")
    robot.publisher(Audio, "audio_in")
    assert node.end() == 0
    assert "nothing was recorded" in node.log


def speaks(robot: Robot, out: Path, seconds: float) -> Process:
    """A recorder that has heard so much of the robot, after a moment in which it may not have been connected."""
    node = robot.start("recorder", folder=out)
    voice, text = robot.publisher(Audio, "audio_out"), robot.publisher(Transcript, "transcript")
    loud = (tone(0.08) * 32767).astype(np.int16).tobytes()
    count = itertools.count()

    def lines() -> int:
        path = out / "transcript.part.json"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def say() -> None:
        n = next(count)
        voice.publish(to_audio(loud, n, 1_700_000_000 * SECOND + n * 80_000_000))
        message = Transcript(text="hey", start=0.0)
        message.header.stamp = to_time(1_700_000_000 * SECOND)
        text.publish(message)

    def heard() -> bool:
        say()
        return lines() > 0

    robot.until(heard)
    for _ in range(round(seconds / 0.08)):
        before = lines()
        say()
        robot.until(lambda before=before: lines() > before)
    return node


def test_a_recorder_that_is_killed_loses_seconds_and_the_next_keeps_what_it_left(
    robot: Robot, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    node = speaks(robot, out, 20)
    assert node.end(signal.SIGKILL) == -signal.SIGKILL
    kept = files.read(out / "conversation.part.wav")
    assert kept.size >= 9 * 24000 and np.abs(kept).max() > 0.2
    line = json.loads((out / "transcript.part.json").read_text().splitlines()[0])
    assert line["kind"] == "pieces" and line["text"] == "hey" and line["time"] <= 0
    again = robot.start("recorder", folder=out)
    robot.until(lambda: (out / "transcript.part2.json").exists())
    assert again.end() == 0
    assert (out / "conversation.part.wav").exists() and not (out / "conversation.wav").exists()
    assert (out / "transcript.part.json").exists()


def test_a_recording_whose_folder_is_removed_is_not_lost(robot: Robot, tmp_path: Path) -> None:
    out = tmp_path / "out"
    node = speaks(robot, out, 0.8)
    shutil.rmtree(out)
    assert node.end() == 0, node.log
    sound, rate = soundfile.read(out / "conversation.wav")
    assert rate == 24000 and len(sound) >= 0.4 * rate and np.abs(sound[:, 0]).max() > 0.4
    assert sorted(path.name for path in out.iterdir()) == ["conversation.wav", "transcript.json"]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_stands_in_the_way_of_a_recording_is_said_at_once(robot: Robot, tmp_path: Path, what: str) -> None:
    out = tmp_path / "out"
    if what == "file":
        out.write_text("mine")
    else:
        (out / "conversation.wav").mkdir(parents=True)
    node = robot.start("recorder", folder=out)
    assert node.popen.wait(60) == 2
    assert str(out) in node.log and "name" in node.log and "Traceback" not in node.log
    assert not list(tmp_path.glob("**/*.part*"))


def test_a_transcript_that_cannot_be_written_leaves_the_sound(robot: Robot, tmp_path: Path) -> None:
    out = tmp_path / "out"
    node = speaks(robot, out, 0.8)
    (out / "transcript.json").mkdir()
    assert node.end() == 1
    assert "transcript.json: is a folder" in node.log and "Traceback" not in node.log
    assert len(soundfile.read(out / "conversation.wav")[0]) >= 0.4 * 24000
    assert "hey" in (out / "transcript.part.json").read_text()


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
