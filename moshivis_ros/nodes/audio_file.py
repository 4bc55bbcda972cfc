"""A recording -> audio_in at the speed it was spoken, for a robot without a microphone. Begins when
somebody listens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node

from moshivis_ros.audio import SAMPLE_RATE
from moshivis_ros.audio.files import read
from moshivis_ros.audio.pcm import encode
from moshivis_ros.nodes.interface import QOS, Interface, Parameter, declare, values
from moshivis_ros.nodes.messages import AUDIO, AudioWriter, sound_parameters
from moshivis_ros.nodes.spin import Done, spin

PARAMETERS = [
    Parameter("path", "", "the recording: WAV, FLAC, OGG or MP3"),
    Parameter("chunk", 0.02, "seconds of sound in a message", (0.005, 1.0)),
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
        silence = np.zeros(round(self._settings["tail"] * SAMPLE_RATE), np.float32)
        samples = encode(np.concatenate([read(self._settings["path"]), silence]))
        size = round(self._settings["chunk"] * SAMPLE_RATE)
        self._chunks = [samples[n : n + size].tobytes() for n in range(0, samples.size, size)]
        self._nanoseconds = size * 1_000_000_000 // SAMPLE_RATE
        self._start: int | None = None
        self._index = 0
        self._writer = AudioWriter(self._settings["audio_in_type"])
        self._publisher = self.create_publisher(self._writer.type, "audio_in", 100, qos_overriding_options=QOS)
        self.create_timer(self._settings["chunk"], self._on_timer)
        seconds = samples.size / SAMPLE_RATE
        self.get_logger().info(f"{self._settings['path']}: {seconds:.1f} s, waiting for a listener")

    def close(self) -> None:
        pass

    def _on_timer(self) -> None:
        now = self.get_clock().now().nanoseconds
        if self._start is None:
            if self._publisher.get_subscription_count() < self._settings["listeners"]:
                return
            self._start = now
        # A chunk is complete, as from a microphone, when its last sample is over.
        while self._start + (self._index + 1) * self._nanoseconds <= now:
            if self._index >= len(self._chunks) and not self._settings["loop"]:
                self._publisher.wait_for_all_acked(Duration(seconds=ACKNOWLEDGE_SECONDS))
                raise Done
            chunk = self._chunks[self._index % len(self._chunks)]
            stamp = self._start + self._index * self._nanoseconds
            self._publisher.publish(
                self._writer.write(chunk, self._index, stamp, frame_id=self._settings["frame_id"])
            )
            self._index += 1


def main(args: list[str] | None = None) -> int:
    return spin(AudioFile, args)
