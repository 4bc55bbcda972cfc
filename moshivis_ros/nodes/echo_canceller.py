"""audio_raw -> audio_in without the robot's own voice, which it knows from audio_played. Where no speaker node plays,
sound passes as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from moshivis_ros.audio.echo import TAIL, EchoCanceller
from moshivis_ros.audio.pcm import encode
from moshivis_ros.errors import AudioError
from moshivis_ros.nodes import diagnostics
from moshivis_ros.nodes.health import LOST_AFTER, Source, status
from moshivis_ros.nodes.interface import QOS, Interface, Parameter, declare
from moshivis_ros.nodes.messages import AUDIO, AudioReader, AudioWriter, sound_parameters
from moshivis_ros.nodes.spin import spin
from moshivis_ros.nodes.subscription import MatchedSubscription

PARAMETERS = [
    Parameter("tail", TAIL, "seconds for which an echo is looked for; longer in large, bare rooms", (0.05, 1.0)),
    *sound_parameters("audio_raw"),
    *sound_parameters("audio_in", written=True),
]
INTERFACES = [
    Interface("audio_raw", "subscribes", AUDIO, "what the microphone hears: any rate and channels"),
    Interface("audio_played", "subscribes", AUDIO, "what left the loudspeaker at that time"),
    Interface("audio_in", "publishes", AUDIO, "what is left of it, 24 kHz mono"),
    diagnostics.INTERFACE,
]


class EchoCancellerNode(Node):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__("echo_canceller", **kwargs)
        declare(self, PARAMETERS)
        self._canceller = EchoCanceller(self.get_parameter("tail").value)
        self._lost = self._refused = 0
        self._index = 0
        self._frame_id = ""
        self._sound, self._echo = Source("sound"), Source("echo")
        self._writer = AudioWriter(self.get_parameter("audio_in_type").value)
        self._publisher = self.create_publisher(self._writer.type, "audio_in", 10, qos_overriding_options=QOS)
        self._raw, self._played = AudioReader.of(self, "audio_raw"), AudioReader(AUDIO)
        self._heard = MatchedSubscription(self, self._raw.type, "audio_raw", self._on_raw, 50)
        MatchedSubscription(self, self._played.type, "audio_played", self._on_played, 50)
        diagnostics.Diagnostics(self, self._report)

    def close(self) -> None:
        pass

    def _on_raw(self, message: Any) -> None:
        self._sound.came()
        self._frame_id = self._raw.frame_id(message)
        self._pass(self._canceller.hear, self._raw, message)
        if self._canceller.lost > self._lost:
            self.get_logger().warning(f"{self._canceller.lost - self._lost} messages of audio_raw were lost")
            self._lost = self._canceller.lost

    def _on_played(self, message: Any) -> None:
        self._echo.came()
        self._pass(self._canceller.play, self._played, message)

    def _pass(self, take: Callable[..., list[tuple[int, Any]]], reader: AudioReader, message: Any) -> None:
        data, fields = reader.read(message, self.get_clock().now().nanoseconds)
        try:
            blocks = take(data, **fields)
        except AudioError as error:
            self._refused += 1
            self.get_logger().warning(f"sound was refused: {error}", throttle_duration_sec=5.0)
            return
        if blocks:
            samples = encode(np.concatenate([block for _, block in blocks]))
            self._publisher.publish(
                self._writer.write(samples.tobytes(), self._index, blocks[0][0], frame_id=self._frame_id)
            )
            self._index += 1

    def _report(self) -> Sequence[DiagnosticStatus]:
        problem = self._sound.problem({self._heard.topic: self._heard.publishers}, needed=True)
        playing = self._echo.last is not None and self._echo.age < LOST_AFTER
        state = "cancelling" if playing else "nothing comes on audio_played: sound passes as it is"
        values = {
            "messages": self._index,
            "messages lost": self._lost,
            "messages refused": self._refused,
        }
        level = DiagnosticStatus.WARN if problem else DiagnosticStatus.OK
        return [status("sound", level, problem or state, values)]


def main(args: list[str] | None = None) -> int:
    return spin(EchoCancellerNode, args)
