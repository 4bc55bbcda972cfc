"""audio_in -> what the user said, as text (user_transcript), and who is speaking (speaking). By Silero's detector and Whisper, on
the CPU: `pip install faster-whisper`.

It costs little while nobody speaks. The robot's own voice is told from the user's by what is played: audio_played, or
audio_out where no speaker node is. A user who speaks over it is heard where echo cancellation leaves less than a tenth of it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from rclpy._rclpy_pybind11 import RCLError
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Bool

from moshivis_ros.audio import SAMPLE_RATE
from moshivis_ros.audio.framing import AudioInput
from moshivis_ros.audio.resample import Resampler
from moshivis_ros.errors import AudioError, ConfigError
from moshivis_ros.hearing import FRAME_SECONDS
from moshivis_ros.hearing import SAMPLE_RATE as HEARING_RATE
from moshivis_ros.hearing.detector import SpeechDetector
from moshivis_ros.hearing.own_voice import AUDIBLE, OwnVoice, level
from moshivis_ros.hearing.recogniser import Recognised, Recogniser
from moshivis_ros.hearing.utterances import Utterance, Utterances
from moshivis_ros.msg import Speaking, Transcript
from moshivis_ros.nodes.interface import QOS, Interface, Parameter, declare
from moshivis_ros.nodes.messages import AUDIO, AudioReader, interface_type, sound_parameters, to_time
from moshivis_ros.nodes.spin import spin
from moshivis_ros.nodes.subscription import MatchedSubscription

PARAMETERS = [
    Parameter(
        "model",
        "tiny.en",
        "Whisper: a size (tiny.en, base.en, ...), a folder in CTranslate2's format, or a Hugging Face repo",
    ),
    Parameter("device", "cpu", "that runs it", choices=("cpu", "cuda", "auto")),
    Parameter("threads", 1, "of the CPU that it may use", (1, 64)),
    Parameter("pause", 0.5, "seconds of silence that end an utterance", (0.2, 5.0)),
    Parameter("partial_every", 1.0, "seconds of speech between two partial results; 0: none", (0.0, 30.0)),
    *sound_parameters("audio_in"),
    *sound_parameters("audio_out"),
]
INTERFACES = [
    Interface("audio_in", "subscribes", AUDIO, "what the robot hears: any rate and channels"),
    Interface("audio_played", "subscribes", AUDIO, "what left the loudspeaker"),
    Interface("audio_out", "subscribes", AUDIO, "the robot's voice, where nothing publishes audio_played"),
    Interface("talk/muted", "subscribes", "std_msgs/msg/Bool", "told in speaking (transient local)"),
    Interface("talk/asleep", "subscribes", "std_msgs/msg/Bool", "the same"),
    Interface("user_transcript", "publishes", "moshivis_ros/msg/Transcript", "what the user said, partial and whole"),
    Interface("speaking", "publishes", "moshivis_ros/msg/Speaking", "robot, user, muted, asleep: on change and once a second"),
    Interface(
        "humans/voices/user/speech", "publishes", "hri_msgs/msg/LiveSpeech", "as user_transcript, for ROS4HRI; where hri_msgs is installed"
    ),
]  # fmt: skip
BLOCK = round(FRAME_SECONDS * SAMPLE_RATE)  # samples of a frame at our rate
HOLD = 0.3  # seconds for which the robot is speaking between two words
DEPTH = 400  # messages that may wait


class Listener(Node):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__("listener", **kwargs)
        declare(self, PARAMETERS)
        given = {row.name: self.get_parameter(row.name).value for row in PARAMETERS}
        self._detector = SpeechDetector()
        self.get_logger().info(f"loading {given['model']}")
        self._recogniser = Recogniser(given["model"], given["device"], given["threads"])
        self._utterances = Utterances(given["pause"], given["partial_every"])
        self._own_voice = OwnVoice()
        self._input, self._output = AudioInput(BLOCK), AudioInput(BLOCK)
        self._to_hearing = Resampler(SAMPLE_RATE, HEARING_RATE)
        self._begin: int | None = None  # stamp of the first sound, nanoseconds
        self._audible = -HOLD  # when the robot's voice was heard last, by time.monotonic()
        self._muted = self._asleep = False
        self._told: tuple[bool, ...] = ()

        self._transcript = self.create_publisher(
            Transcript, "user_transcript", 50, qos_overriding_options=QOS
        )
        self._speaking = self.create_publisher(Speaking, "speaking", 10, qos_overriding_options=QOS)
        self._live = _live_speech(self)
        # Recognition takes longer than a frame of sound, and has a thread of its own.
        self._wanted: deque[Utterance] = deque()
        self._news, self._closing = threading.Condition(), False
        self._thread = threading.Thread(target=self._recognise, name="recogniser")

        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(Bool, "talk/muted", self._on_muted, latched)
        self.create_subscription(Bool, "talk/asleep", self._on_asleep, latched)
        reader, out, played = (
            AudioReader.of(self, "audio_in"),
            AudioReader.of(self, "audio_out"),
            AudioReader(AUDIO),
        )
        self._played = MatchedSubscription(
            self, played.type, "audio_played", lambda m: self._on_played(played, m), DEPTH
        )
        MatchedSubscription(self, out.type, "audio_out", lambda m: self._on_audio_out(out, m), DEPTH)
        MatchedSubscription(self, reader.type, "audio_in", lambda m: self._on_audio(reader, m), DEPTH)
        self.create_timer(1.0, lambda: self._tell(again=True), clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._thread.start()  # last: what has come up to here without an error is closed by close()
        self.get_logger().info("listening")

    def close(self) -> None:
        with self._news:
            self._closing = True
            self._news.notify()
        self._thread.join()

    # Sound

    def _frames(self, input: AudioInput, reader: AudioReader, message: Any) -> list[tuple[int, Any]]:
        data, fields = reader.read(message, self.get_clock().now().nanoseconds)
        try:
            return input.push(data, **fields)
        except AudioError as error:
            self.get_logger().warning(f"not heard: {error}", throttle_duration_sec=5.0)
            return []

    def _on_audio(self, reader: AudioReader, message: Any) -> None:
        for stamp, frame in self._frames(self._input, reader, message):
            if self._begin is None:
                self._begin = stamp
            sound = self._to_hearing(frame)
            probability = self._detector(sound)
            if self._own_voice.is_own(stamp, level(frame)):
                probability = 0.0
            if (found := self._utterances.push(stamp, sound, probability)) is not None:
                self._want(found)
        self._tell()

    def _on_audio_out(self, reader: AudioReader, message: Any) -> None:
        if not self._played.publishers:
            self._on_played(reader, message)

    def _on_played(self, reader: AudioReader, message: Any) -> None:
        for stamp, frame in self._frames(self._output, reader, message):
            played = level(frame)
            self._own_voice.play(stamp, played)
            if played >= AUDIBLE:
                self._audible = time.monotonic()
        self._tell()

    # Who is speaking

    def _on_muted(self, message: Bool) -> None:
        self._muted = message.data
        self._tell()

    def _on_asleep(self, message: Bool) -> None:
        self._asleep = message.data
        self._tell()

    def _tell(self, again: bool = False) -> None:
        robot = time.monotonic() - self._audible < HOLD
        now = robot, self._utterances.speaking, self._muted, self._asleep
        if again or now != self._told:
            self._told = now
            message = Speaking(robot=robot, user=now[1], muted=self._muted, asleep=self._asleep)
            message.header.stamp = self.get_clock().now().to_msg()
            self._speaking.publish(message)

    # What the user said

    def _want(self, utterance: Utterance) -> None:
        """Whole utterances in their order; of those that go on, the newest, if nothing else waits."""
        with self._news:
            if self._wanted and not self._wanted[-1].final:
                self._wanted.pop()
            if utterance.final or not self._wanted:
                self._wanted.append(utterance)
            self._news.notify()

    def _recognise(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._closing or self._wanted)
                if self._closing:
                    return
                utterance = self._wanted.popleft()
            try:
                heard = self._recogniser(utterance.sound)
                if heard.text:
                    self._publish(utterance, heard)
            except RCLError:
                if self.context.ok():
                    raise
                # A signal ended the context in the middle of a call.
            except RuntimeError as error:  # of the library's own code, such as a GPU's memory that is full
                self.get_logger().error(f"what the user said is lost: {error}")

    def _publish(self, utterance: Utterance, heard: Recognised) -> None:
        assert self._begin is not None
        message = Transcript(
            utterance=utterance.number, text=heard.text, final=utterance.final, speaker="user"
        )
        message.confidence = heard.confidence
        message.header.stamp = to_time(utterance.end)
        message.start, message.end = (
            (time - self._begin) / 1e9 for time in (utterance.start, utterance.end)
        )
        self._transcript.publish(message)
        if self._live:
            text = {"final" if message.final else "incremental": message.text}
            self._live.publish(
                self._live.msg_type(header=message.header, confidence=message.confidence, **text)
            )


def _live_speech(node: Node) -> Any:
    """A publisher for ROS4HRI, and the list of voices that its tools look for; None where hri_msgs is not installed."""
    try:
        speech, voices = (interface_type(f"hri_msgs/msg/{name}") for name in ("LiveSpeech", "IdsList"))
    except ConfigError:
        return None
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_publisher(voices, "humans/voices/tracked", latched).publish(voices(ids=["user"]))
    return node.create_publisher(speech, "humans/voices/user/speech", 10)


def main(args: list[str] | None = None) -> int:
    return spin(Listener, args)
