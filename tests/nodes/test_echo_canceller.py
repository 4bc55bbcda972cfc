"""The robot's own voice between its loudspeaker and its microphone, as nodes, over DDS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from moshivis_ros.msg import Audio
from robot import Robot

from moshivis_ros.audio.resample import resample
from moshivis_ros.nodes.messages import to_audio, to_nanoseconds

QUESTION = Path(__file__).parents[2] / "media" / "question.wav"
SECOND = 1_000_000_000


def line(messages: list[Audio], begin: int, end: int) -> np.ndarray:
    """The messages' sound between two times (nanoseconds), mono at 24 kHz."""
    parts = []
    for message in messages:
        if begin <= to_nanoseconds(message.header.stamp) < end:
            sound = np.asarray(message.data, np.float32).reshape(-1, message.channels).mean(1)
            parts.append(resample(sound, message.sample_rate, 24000))
    return np.concatenate(parts)


SILENCE = np.zeros(480, np.int16)


class Ear:
    """A microphone of the test; messages of 20 ms."""

    def __init__(self, robot: Robot) -> None:
        self._publisher = robot.publisher(Audio, "audio_raw")
        self._index = 0

    def hear(self, sound: np.ndarray | None, sample_rate: int = 24000) -> bool:
        """None: the message gets lost."""
        if sound is not None:
            stamp = SECOND + self._index * 20_000_000
            self._publisher.publish(to_audio(sound.tobytes(), self._index, stamp, sample_rate))
        self._index += 1
        return True


def test_what_the_loudspeaker_plays_is_gone_from_what_the_microphone_hears(
    robot: Robot, pulse: dict[str, str]
) -> None:
    """Real PortAudio streams with their own buffers and clocks; the microphone is held to the loudspeaker."""
    raw, clean = robot.collect(Audio, "audio_raw"), robot.collect(Audio, "audio_in")
    canceller = robot.start("echo_canceller")
    robot.start(
        "microphone",
        "-r",
        "audio_in:=audio_raw",
        environment={**pulse, "PULSE_SOURCE": "spk.monitor"},
        device="pulse",
        sample_rate=48000,
        channels=2,
        frame_id="ear",
    )
    robot.start("speaker", environment=pulse, device="pulse", sample_rate=48000)
    robot.until(lambda: raw and robot.node.count_subscribers(f"{robot.namespace}/audio_out"))
    robot.start("audio_file", "-r", "audio_in:=audio_out", path=QUESTION, loop=True)
    robot.until(lambda: max(raw[-1].data) > 1000)
    begin = to_nanoseconds(raw[-1].header.stamp)

    def gone() -> bool:
        """In three seconds in a row: a busy machine may have lost sound between the devices, and it is learnt anew."""
        nonlocal begin
        end = begin + 3 * SECOND
        if to_nanoseconds(clean[-1].header.stamp) <= end:
            return False
        with_echo, without = line(raw, begin, end), line(clean, begin, end)
        begin += SECOND
        return bool(20 * np.log10(np.std(with_echo) / np.std(without)) > 15)

    robot.until(gone)
    assert [message.index for message in clean] == list(range(clean[0].index, clean[-1].index + 1))
    assert {(m.sample_rate, m.channels, m.header.frame_id) for m in clean} == {(24000, 1, "ear")}
    assert canceller.end() == 0 and "lost" not in canceller.log


def test_without_a_speaker_sound_passes_at_once(robot: Robot) -> None:
    clean = robot.collect(Audio, "audio_in")
    canceller = robot.start("echo_canceller")
    ear = Ear(robot)
    robot.until(lambda: ear.hear(SILENCE) and clean)  # what is said before discovery has gone both ways is lost
    sound = (3000 * np.cos(np.arange(480) / 10)).astype(np.int16)
    for message in (sound, sound, None, sound):
        ear.hear(message)

    def heard() -> np.ndarray:
        """From the first sample that is not silence."""
        return np.trim_zeros(np.concatenate([message.data for message in clean]), "f")

    robot.until(lambda: heard().size == 4 * 480)
    assert np.abs(heard()[:960] - np.tile(sound, 2)).max() <= 1
    assert not heard()[960:1440].any()  # what was lost is silence, and said
    robot.until(lambda: "1 messages of audio_raw were lost" in canceller.log)


def test_bad_sound_is_refused_and_the_next_is_heard(robot: Robot) -> None:
    clean = robot.collect(Audio, "audio_in")
    canceller = robot.start("echo_canceller")
    ear = Ear(robot)
    ear.hear(SILENCE, sample_rate=3)
    robot.until(lambda: ear.hear(SILENCE) and clean)
    robot.until(lambda: "sound was refused" in canceller.log)
