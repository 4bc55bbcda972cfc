"""A conversation -> conversation.wav (left the robot, right the user) and transcript.json.

Both have one time: seconds since the first sound of the robot. They are written while it goes on, as conversation.part.wav
and, a line of JSON for each entry, transcript.part.json, and have their names when the node ends: what was recorded before
stays until then. A node that is killed leaves the parts, without the last 10 seconds of sound.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from moshivis_ros.audio import SAMPLE_RATE, Float
from moshivis_ros.audio.files import Writer
from moshivis_ros.audio.framing import AudioInput
from moshivis_ros.audio.mix import Mix
from moshivis_ros.errors import AudioError, OutputError
from moshivis_ros.msg import ImageCacheStatus, Transcript
from moshivis_ros.nodes.interface import Interface, Parameter, declare
from moshivis_ros.nodes.messages import AUDIO, AudioReader, sound_parameters, to_nanoseconds
from moshivis_ros.nodes.spin import spin
from moshivis_ros.nodes.subscription import MatchedSubscription
from moshivis_ros.outputs import Outputs, TranscriptFile, make_folder

PARAMETERS = [
    Parameter("folder", "conversation", "where conversation.wav and transcript.json go"),
    *sound_parameters("audio_in"),
    *sound_parameters("audio_out"),
]
INTERFACES = [
    Interface("audio_in", "subscribes", AUDIO, "the user"),
    Interface("audio_out", "subscribes", AUDIO, "the robot"),
    Interface("transcript", "subscribes", "moshivis_ros/msg/Transcript", "what the robot said"),
    Interface("image_cache", "subscribes", "moshivis_ros/msg/ImageCacheStatus", "when it saw a new picture"),
]
ROBOT, USER = 0, 1  # sides of the recording


class Recorder(Node):
    def __init__(self, **kwargs: Any) -> None:
        # The last line of the log comes when the context, and with it the log topic, is gone already.
        super().__init__("recorder", enable_rosout=False, **kwargs)
        declare(self, PARAMETERS)
        self._folder = make_folder(self.get_parameter("folder").value)
        self._outputs = Outputs(
            lambda text: self.get_logger().error(text),
            sound=lambda: Writer(self._folder / "conversation.wav", channels=2),
            transcript=lambda: TranscriptFile(self._folder / "transcript.json"),
        )
        self._inputs = AudioInput(), AudioInput()
        self._mix = Mix(sides=2)
        self._seconds = 0.0  # written
        self._transcript: dict[str, list[dict[str, Any]]] = {"pieces": [], "utterances": [], "refreshes": []}
        self._untimed: list[tuple[str, dict[str, int], dict[str, Any]]] = []  # kind, nanoseconds, the rest
        self._activation = 0  # nanoseconds; the transcript counts its seconds from there
        self._refreshed = 0
        try:
            self._subscribe()
        except BaseException:  # Ctrl-C too: a node that is ended while it is made leaves nothing
            self._outputs.discard()
            raise

    def close(self) -> None:
        """Raises OutputError where not all could be written."""
        if not self._mix.begun:
            self._outputs.discard()
            self.get_logger().warning("nothing was recorded: the robot did not speak on audio_out")
            return
        for block in self._mix.rest():
            self._write(block)
        self._outputs.attempt("sound", lambda file: file.close())
        self._outputs.attempt("transcript", lambda file: file.close(self._transcript))
        if self._outputs.failed:
            raise OutputError(f"{self._folder}: not all of the conversation could be written; see above")
        self.get_logger().info(
            f"wrote {self._folder}/conversation.wav ({self._seconds:.1f} s), transcript.json"
        )

    def _subscribe(self) -> None:
        for topic, side in (("audio_in", USER), ("audio_out", ROBOT)):
            reader = AudioReader.of(self, topic)
            MatchedSubscription(self, reader.type, topic, partial(self._hear, reader, side), 100)
        self.create_subscription(Transcript, "transcript", self._on_transcript, 100)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(ImageCacheStatus, "image_cache", self._on_image_cache, latched)

    def _hear(self, reader: AudioReader, side: int, message: Any) -> None:
        data, fields = reader.read(message, self.get_clock().now().nanoseconds)
        try:
            frames = self._inputs[side].push(data, **fields)
        except AudioError as error:
            self.get_logger().warning(f"not recorded: {error}", throttle_duration_sec=5.0)
            return
        late = self._mix.late
        for stamp, frame in frames:
            for block in self._mix.add(side, stamp, frame):
                self._write(block)
        self._time()
        if self._mix.late > late:
            self.get_logger().warning(
                f"not recorded: {self._mix.late / SAMPLE_RATE:.1f} s of sound came too late",
                throttle_duration_sec=5.0,
            )

    def _write(self, block: Float) -> None:
        self._seconds += len(block) / SAMPLE_RATE
        self._outputs.attempt("sound", lambda file: file.write(block))

    def _on_transcript(self, message: Transcript) -> None:
        stamp = to_nanoseconds(message.header.stamp)
        said = {"text": message.text, "gate": message.gate}
        if message.final:
            start, end = (self._activation + round(seconds * 1e9) for seconds in (message.start, message.end))
            self._untimed.append(("utterances", {"start": start, "end": end}, said))
        else:
            self._activation = stamp - round(message.start * 1e9)
            self._untimed.append(("pieces", {"time": stamp}, said))
        self._time()

    def _on_image_cache(self, message: ImageCacheStatus) -> None:
        if message.refreshes > self._refreshed and (end := self._mix.end(ROBOT)) is not None:
            self._untimed.append(("refreshes", {"time": end}, {"reason": message.reason}))
            self._time()
        self._refreshed = message.refreshes

    def _time(self) -> None:
        """Write the entries that wait, in seconds of the recording, if that has begun."""
        if not self._mix.begun:
            return
        for kind, times, rest in self._untimed:
            entry = {key: round(self._mix.seconds(stamp), 3) for key, stamp in times.items()} | rest
            self._transcript[kind].append(entry)
            self._outputs.attempt("transcript", partial(TranscriptFile.add, kind=kind, entry=entry))
        self._untimed.clear()


def main(args: list[str] | None = None) -> int:
    return spin(Recorder, args)
