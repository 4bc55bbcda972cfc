"""A recording -> audio_in at the speed it was spoken, for a robot without a microphone. Begins when
somebody listens.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node

from moshivis_ros.audio import SAMPLE_RATE, Float
from moshivis_ros.audio.files import Recording
from moshivis_ros.audio.framing import Framer, silence
from moshivis_ros.audio.pcm import encode
from moshivis_ros.nodes.interface import QOS, Interface, Parameter, declare, values
from moshivis_ros.nodes.jumps import Jumps
from moshivis_ros.nodes.messages import AUDIO, AudioWriter, sound_parameters
from moshivis_ros.nodes.spin import Done, spin

PARAMETERS = [
    Parameter("path", "", "the recording: WAV, FLAC, OGG or MP3"),
    Parameter("chunk", 0.02, "seconds of sound in a message", (0.005, 2.0)),
    Parameter("tail", 0.0, "seconds of silence after the recording", (0.0, 3600.0)),
    Parameter("listeners", 1, "begins when it has so many", (1, 100)),
    Parameter("loop", False, "begin again at the end; otherwise the node ends"),
    Parameter("frame_id", "", "of the messages"),
    *sound_parameters("audio_in", written=True),
]
INTERFACES = [Interface("audio_in", "publishes", AUDIO, "the recording, 24 kHz mono")]
ACKNOWLEDGE_SECONDS = 5.0  # the last messages must not go with the node


class AudioFile(Node):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__("audio_file", **kwargs)
        declare(self, PARAMETERS)
        self._settings = values(self, PARAMETERS)
        recording = Recording(self._settings["path"])
        size = round(self._settings["chunk"] * SAMPLE_RATE)
        self._chunks = self._cut(recording, size)
        self._nanoseconds = size * 1_000_000_000 // SAMPLE_RATE
        self._start: int | None = None
        self._jumps = Jumps(self)
        self._index = 0
        self._writer = AudioWriter(self._settings["audio_in_type"])
        self._publisher = self.create_publisher(self._writer.type, "audio_in", 100, qos_overriding_options=QOS)
        self.create_timer(self._settings["chunk"], self._on_timer)
        about = f"about {recording.seconds:.1f} s, " if recording.seconds else ""
        self.get_logger().info(f"{recording.path}: {about}waiting for a listener")

    def close(self) -> None:
        pass

    def _on_timer(self) -> None:
        now = self.get_clock().now().nanoseconds
        jump = self._jumps(now)
        if self._start is not None:
            self._start += jump  # the recording goes on where it was
        if self._start is None:
            if self._publisher.get_subscription_count() < self._settings["listeners"]:
                return
            self._start = now
        # A chunk is complete, as from a microphone, when its last sample is over.
        while self._start + (self._index + 1) * self._nanoseconds <= now:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._publisher.wait_for_all_acked(Duration(seconds=ACKNOWLEDGE_SECONDS))
                raise Done
            stamp, samples = self._start + self._index * self._nanoseconds, encode(chunk).tobytes()
            self._publisher.publish(
                self._writer.write(samples, self._index, stamp, frame_id=self._settings["frame_id"])
            )
            self._index += 1

    def _cut(self, recording: Recording, size: int) -> Iterator[Float]:
        """What is published, in pieces of `size` samples, of which the last may be shorter."""
        framer = Framer(size)  # from one turn into the next: no chunk but the last is shorter
        while True:
            for block in chain(recording, silence(self._settings["tail"])):
                yield from framer.push(block)
            for note in recording.notes:
                self.get_logger().warning(note)
            if not self._settings["loop"]:
                break
            recording = Recording(self._settings["path"])
        rest = framer.pending
        yield from (frame[:rest] for frame in framer.flush())


def main(args: list[str] | None = None) -> int:
    return spin(AudioFile, args)
