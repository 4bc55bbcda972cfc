"""A conversation -> conversation.wav (left the robot, right the user) and transcript.json, written when the
node ends.

Both have one time: seconds since the first sound of the robot. Kept in memory until then, 6 MB a minute.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from moshivis_ros.audio import SAMPLE_RATE, Float
from moshivis_ros.audio.files import write
from moshivis_ros.audio.framing import AudioInput
from moshivis_ros.errors import AudioError
from moshivis_ros.msg import ImageCacheStatus, Transcript
from moshivis_ros.nodes.interface import Interface, Parameter, declare
from moshivis_ros.nodes.messages import AUDIO, AudioReader, sound_parameters, to_nanoseconds
from moshivis_ros.nodes.spin import spin
from moshivis_ros.nodes.subscription import MatchedSubscription

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
JITTER = 0.04  # seconds by which the stamps of continuous sound may be off


class Track:
    """Stamped sound of one side, put where its stamps say."""

    def __init__(self) -> None:
        self._input = AudioInput()
        self._frames: list[tuple[int, Float]] = []

    def add(self, data: bytes, **fields: Any) -> None:
        """A message as AudioInput.push() takes it. Raises its AudioError."""
        self._frames += self._input.push(data, **fields)

    @property
    def start(self) -> int | None:
        """Stamp of the first sample, nanoseconds."""
        return self._frames[0][0] if self._frames else None

    @property
    def end(self) -> int:
        """Stamp after the last sample, nanoseconds; 0 without any."""
        return self._frames[-1][0] + 80_000_000 if self._frames else 0

    def render(self, origin: int, end: int) -> Float:
        """float32 [n]: the sound between the two stamps, silence where there was none."""
        samples = np.zeros((end - origin) * SAMPLE_RATE // 1_000_000_000, np.float32)
        expected: int | None = None
        for stamp, frame in self._frames:
            start = (stamp - origin) * SAMPLE_RATE // 1_000_000_000
            if expected is not None and abs(start - expected) < JITTER * SAMPLE_RATE:
                start = expected
            expected = start + frame.size
            skip = max(-start, 0)
            room = samples[start + skip : max(expected, 0)]  # nothing of a frame before the origin
            room[:] = frame[skip : skip + room.size]
        return samples


class Recorder(Node):
    def __init__(self, **kwargs: Any) -> None:
        # The last line of the log comes when the context, and with it the log topic, is gone already.
        super().__init__("recorder", enable_rosout=False, **kwargs)
        declare(self, PARAMETERS)
        self._folder = Path(self.get_parameter("folder").value).expanduser()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._robot, self._user = Track(), Track()
        self._pieces: list[dict[str, Any]] = []
        self._utterances: list[dict[str, Any]] = []
        self._refreshes: list[dict[str, Any]] = []
        self._activation = 0  # nanoseconds; the transcript counts its seconds from there
        self._refreshed = 0
        for topic, track in (("audio_in", self._user), ("audio_out", self._robot)):
            reader = AudioReader.of(self, topic)
            MatchedSubscription(self, reader.type, topic, partial(self._hear, reader, track), 100)
        self.create_subscription(Transcript, "transcript", self._on_transcript, 100)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(ImageCacheStatus, "image_cache", self._on_image_cache, latched)

    def close(self) -> None:
        origin = self._robot.start
        if origin is None:
            self.get_logger().warning("nothing was recorded: the robot did not speak on audio_out")
            return
        end = max(self._robot.end, self._user.end)
        both = np.stack([self._robot.render(origin, end), self._user.render(origin, end)], axis=1)
        write(self._folder / "conversation.wav", both)
        times = ("time", "start", "end")
        transcript = {
            name: [
                {
                    key: round((value - origin) / 1e9, 3) if key in times else value
                    for key, value in entry.items()
                }
                for entry in entries
            ]
            for name, entries in (
                ("pieces", self._pieces),
                ("utterances", self._utterances),
                ("refreshes", self._refreshes),
            )
        }
        (self._folder / "transcript.json").write_text(json.dumps(transcript, indent=2, ensure_ascii=False))
        self.get_logger().info(
            f"wrote {self._folder}/conversation.wav ({len(both) / SAMPLE_RATE:.1f} s), transcript.json"
        )

    def _hear(self, reader: AudioReader, track: Track, message: Any) -> None:
        data, fields = reader.read(message, self.get_clock().now().nanoseconds)
        try:
            track.add(data, **fields)
        except AudioError as error:
            self.get_logger().warning(f"not recorded: {error}", throttle_duration_sec=5.0)

    def _on_transcript(self, message: Transcript) -> None:
        stamp = to_nanoseconds(message.header.stamp)
        said = {"text": message.text, "gate": message.gate}
        if message.final:
            start, end = (self._activation + round(seconds * 1e9) for seconds in (message.start, message.end))
            self._utterances.append({"start": start, "end": end, **said})
        else:
            self._activation = stamp - round(message.start * 1e9)
            self._pieces.append({"time": stamp, **said})

    def _on_image_cache(self, message: ImageCacheStatus) -> None:
        if message.refreshes > self._refreshed and self._robot.start is not None:
            self._refreshes.append({"time": self._robot.end, "reason": message.reason})
        self._refreshed = message.refreshes


def main(args: list[str] | None = None) -> int:
    return spin(Recorder, args)
