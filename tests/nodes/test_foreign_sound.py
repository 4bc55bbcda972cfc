"""Sound in other packages' messages, both ways: standard ones, and those of the two packages that are both called
audio_common_msgs, built here from their lists of fields.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moshivis_ros.msg import Audio
from rclpy.qos import ReliabilityPolicy
from robot import Robot

from moshivis_ros.audio import files
from moshivis_ros.audio.pcm import decode
from moshivis_ros.errors import ConfigError
from moshivis_ros.nodes.messages import AudioReader, AudioWriter, to_nanoseconds
from moshivis_ros.recording.recorded import Recorded, follow

SECOND = 1_000_000_000
RATE = 24000
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)

# Package by its author -> its messages.
DEFINITIONS = {
    "mgonzs13": {
        "AudioInfo": "int32 format\nint32 channels\nint32 rate\nint32 chunk\n",
        "AudioData": "float32[] float32_data\nint32[] int32_data\nint16[] int16_data\nint8[] int8_data\n"
        "uint8[] uint8_data\n",
        "Audio": "AudioData audio_data\nAudioInfo info\n",
        "AudioStamped": "std_msgs/Header header\nAudio audio\n",
    },
    "ros-drivers": {
        "AudioData": "uint8[] data\n",
        "AudioDataStamped": "std_msgs/Header header\nAudioData audio\n",
    },
}
PACKAGE = """<package format="3"><name>audio_common_msgs</name><version>0.0.0</version><description>test</description>
<maintainer email="test@example.org">test</maintainer><license>none</license>
<buildtool_depend>ament_cmake</buildtool_depend><buildtool_depend>rosidl_default_generators</buildtool_depend>
<depend>std_msgs</depend><member_of_group>rosidl_interface_packages</member_of_group>
<export><build_type>ament_cmake</build_type></export></package>"""
CMAKE = """cmake_minimum_required(VERSION 3.22)
project(audio_common_msgs)
find_package(ament_cmake REQUIRED)
find_package(rosidl_default_generators REQUIRED)
find_package(std_msgs REQUIRED)
file(GLOB messages RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} msg/*.msg)
rosidl_generate_interfaces(${PROJECT_NAME} ${messages} DEPENDENCIES std_msgs)
ament_package()
"""

# A program of the other ecosystem: hears `there`, tells what came first, and says the same on `back`.
RELAY = """
import json, sys, array
import rclpy
from rclpy.qos import qos_profile_sensor_data
from audio_common_msgs import msg as messages

def stamped(message):
    audio = message.audio
    info = {name: getattr(audio.info, name) for name in ("format", "channels", "rate", "chunk")}
    filled = [name for name in audio.audio_data.get_fields_and_field_types() if len(getattr(audio.audio_data, name))]
    told = {"frame_id": message.header.frame_id, "samples": len(audio.audio_data.int16_data), "filled": filled, **info}
    answer = messages.AudioStamped(header=message.header)
    answer.audio.info = messages.AudioInfo(format=1, channels=1, rate=info["rate"], chunk=info["chunk"])
    answer.audio.audio_data.float32_data = [sample / 32768 for sample in audio.audio_data.int16_data]
    return told, answer

def data(message):
    samples = array.array("h", bytes(message.data))
    return {"samples": len(samples)}, messages.AudioData(data=samples.tobytes())

rclpy.init(args=["--ros-args", "-r", f"__ns:={sys.argv[1]}"])
node = rclpy.create_node("relay")
convert = stamped if sys.argv[2] == "AudioStamped" else data
kind = getattr(messages, sys.argv[2])
publisher = node.create_publisher(kind, "back", qos_profile_sensor_data)
first = True

def hear(message):
    global first
    told, answer = convert(message)
    if first:
        print(json.dumps(told), flush=True)
    first = False
    publisher.publish(answer)

node.create_subscription(kind, "there", hear, 100)
rclpy.spin(node)
"""


@pytest.fixture(scope="session", params=DEFINITIONS)
def foreign(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment in which one of the packages is installed. What was built is kept for the next time."""
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "")
    if not (shutil.which("cmake") and shutil.which("c++") and prefixes):
        pytest.skip("needs cmake, a C++ compiler and AMENT_PREFIX_PATH: source ROS, or make test")
    definitions = DEFINITIONS[request.param]
    key = hashlib.sha256(json.dumps([definitions, CMAKE, sys.prefix, sys.version]).encode()).hexdigest()[:16]
    folder = Path(str(request.config.cache.mkdir("audio_common_msgs"))) / key
    if not (folder / "built").exists():
        _build(folder, definitions, prefixes)
    (site,) = {path.parents[1] for path in folder.glob("prefix/**/audio_common_msgs/__init__.py")}
    paths = {
        "AMENT_PREFIX_PATH": folder / "prefix",
        "PYTHONPATH": site,
        "LD_LIBRARY_PATH": folder / "prefix" / "lib",
    }
    return {name: f"{path}{os.pathsep}{os.environ.get(name, '')}" for name, path in paths.items()}


def _build(folder: Path, definitions: dict[str, str], prefixes: str) -> None:
    source = folder / "source"
    (source / "msg").mkdir(parents=True, exist_ok=True)
    (source / "package.xml").write_text(PACKAGE)
    (source / "CMakeLists.txt").write_text(CMAKE)
    for name, text in definitions.items():
        (source / "msg" / f"{name}.msg").write_text(text)
    configure = [
        f"-DCMAKE_INSTALL_PREFIX={folder / 'prefix'}",
        f"-DCMAKE_PREFIX_PATH={prefixes.replace(os.pathsep, ';')}",
        f"-DPython3_EXECUTABLE={sys.executable}",
    ]
    for arguments in (
        ["-S", source, "-B", folder / "build", *configure],
        ["--build", folder / "build"],
        ["--install", folder / "build"],
    ):
        done = subprocess.run(["cmake", *map(str, arguments)], capture_output=True, text=True)
        assert not done.returncode, done.stdout + done.stderr
    (folder / "built").touch()


@pytest.fixture
def relay(robot: Robot, foreign: dict[str, str], tmp_path: Path) -> Iterator[Any]:
    """Starts a program of the other ecosystem for one type; returns where it writes what it was told."""
    started = []

    def start(kind: str) -> Path:
        out = tmp_path / "told.json"
        environment = {**os.environ, **foreign}
        with out.open("w") as stdout:
            command = [sys.executable, "-c", RELAY, robot.namespace, kind]
            started.append(subprocess.Popen(command, env=environment, stdout=stdout, cwd=tmp_path))
        return out

    yield start
    for process in started:
        process.kill()
        process.wait()


def type_of(foreign: dict[str, str]) -> str:
    """The type that is used of the package that is installed there."""
    stamped = (Path(foreign["AMENT_PREFIX_PATH"].split(os.pathsep)[0]) / "share/audio_common_msgs/msg").glob("*.msg")
    return "AudioStamped" if "AudioStamped.msg" in {path.name for path in stamped} else "AudioData"


def heard_tone(messages: list[Audio]) -> np.ndarray:
    return np.concatenate([np.asarray(message.data, np.int16) for message in messages]) / np.float32(32768)


def test_sound_goes_to_the_other_ecosystem_and_comes_back(
    robot: Robot, foreign: dict[str, str], relay: Any, tmp_path: Path
) -> None:
    """A recording -> their message -> a program of theirs -> their message, best effort -> the echo canceller, and
    the recorder -> ours."""
    kind = type_of(foreign)
    name = f"audio_common_msgs/msg/{kind}"
    files.write(tmp_path / "tone.wav", TONE)
    clean = robot.collect(Audio, "audio_in")
    told = relay(kind)
    robot.start(
        "echo_canceller", "-r", "audio_raw:=back", environment=foreign, audio_raw_type=name, audio_raw_rate=RATE
    )
    recorder = robot.start(
        "recorder", "-r", "audio_out:=back", environment=foreign, audio_out_type=name, audio_out_rate=RATE,
        folder=tmp_path / "out",
    )  # fmt: skip
    # What the relay is told goes on at once: whoever is to hear all of it is there before.
    # The reliable subscriptions, which they leave for best-effort ones, may stay in the graph that the middleware shows.
    robot.until(lambda: robot.node.count_publishers("back") and robot.node.count_publishers("audio_in"))
    robot.until(lambda: _best_effort_subscriptions(robot, "back") == 2)
    robot.start(
        "audio_file", "-r", "audio_in:=there", environment=foreign, path=tmp_path / "tone.wav", chunk=0.08, tail=1.0,
        audio_in_type=name, frame_id="ear",
    )  # fmt: skip
    robot.until(lambda: clean and sum(len(message.data) for message in clean) >= 1.5 * RATE)
    first = json.loads(told.read_text().splitlines()[0])
    if kind == "AudioStamped":
        assert first == {
            "frame_id": "ear", "samples": 1920, "filled": ["int16_data"],
            "format": 8, "channels": 1, "rate": RATE, "chunk": 1920,
        }  # fmt: skip
        assert {message.header.frame_id for message in clean} == {"ear"}
        ages = [robot.node.get_clock().now().nanoseconds - to_nanoseconds(m.header.stamp) for m in clean]
        assert 0 < min(ages) and max(ages) < 100 * SECOND
    else:
        assert first == {"samples": 1920}
    sound = heard_tone(clean)
    assert sound[: TONE.size].std() == pytest.approx(TONE.std(), rel=0.1)
    assert recorder.end() == 0
    robot_side = np.concatenate(list(follow(tmp_path / "out", Recorded())))[:, 0]
    assert pitch(robot_side) == pytest.approx(440, abs=2) and pitch(sound) == pytest.approx(440, abs=2)


def test_a_microphone_and_a_speaker_of_the_other_ecosystem(
    robot: Robot, foreign: dict[str, str], pulse: dict[str, str], tmp_path: Path
) -> None:
    """What the microphone hears is played, through nothing but their messages."""
    name = f"audio_common_msgs/msg/{type_of(foreign)}"
    files.write(tmp_path / "tone.wav", np.stack([np.tile(TONE, 60)] * 2, axis=1), RATE)
    played = robot.collect(Audio, "audio_played")
    common: dict[str, Any] = {"environment": {**pulse, **foreign}, "device": "pulse", "sample_rate": 48000}
    robot.start("microphone", "-r", "audio_in:=voice", audio_in_type=name, channels=2, **common)
    robot.start(
        "speaker", "-r", "audio_out:=voice", audio_out_type=name, audio_out_rate=48000, audio_out_channels=2, **common
    )
    source = subprocess.Popen(
        ["paplay", "--device=mic", tmp_path / "tone.wav"], env={**os.environ, **pulse, "PULSE_SINK": "mic"}
    )
    try:
        robot.until(lambda: len(played) > 30 and min(max(message.data) for message in played[-30:]) > 8000)
    finally:
        source.terminate()
        source.wait()
    assert pitch(heard_tone(played[-25:]), 48000) == pytest.approx(440, abs=4)


def pitch(sound: np.ndarray, rate: int = RATE) -> float:
    """Hz of the loudest frequency."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(sound.size)))
    return float(np.argmax(spectrum)) * rate / sound.size


def _best_effort_subscriptions(robot: Robot, topic: str) -> int:
    infos = robot.node.get_subscriptions_info_by_topic(f"{robot.namespace}/{topic}")
    return sum(info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT for info in infos)


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [
        ("moshivis_ros/msg/Audio", 0),
        ("std_msgs/msg/Int16MultiArray", 0),
        ("std_msgs/msg/Float32MultiArray", 0),
        ("std_msgs/msg/Int32MultiArray", 0),
        ("std_msgs/msg/UInt8MultiArray", 0),  # bytes of 16 bit PCM
        ("std_msgs/msg/Int8MultiArray", 2**-7),
    ],
)
def test_what_is_written_is_read(kind: str, tolerance: float) -> None:
    samples = np.array([0, 1, -32768, 32767, 1234, -4321], np.int16)
    writer, reader = AudioWriter(kind), AudioReader(kind, 16000, 2)
    data, fields = reader.read(writer.write(samples.tobytes(), 7, 5 * SECOND, 16000, 2, "ear"), now=9)
    read, _ = decode(data, 1, fields["sample_format"])
    np.testing.assert_allclose(read, samples / np.float32(32768), atol=tolerance)
    assert (fields["sample_rate"], fields["channels"]) == (16000, 2)
    if kind == "moshivis_ros/msg/Audio":
        assert (fields["index"], fields["stamp"]) == (7, 5 * SECOND)


def test_a_type_that_cannot_hold_sound_is_refused() -> None:
    with pytest.raises(ConfigError, match="std_msgs/msg/String has no array of samples"):
        AudioWriter("std_msgs/msg/String")
    with pytest.raises(ConfigError, match="no message type no_msgs/msg/Sound"):
        AudioWriter("no_msgs/msg/Sound")
