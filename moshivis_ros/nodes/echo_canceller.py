"""audio_raw -> audio_in without the robot's own voice, which it knows from audio_played. Where no speaker node plays,
sound passes as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.node import Node

from moshivis_ros.audio.echo import TAIL, EchoCanceller
from moshivis_ros.audio.pcm import encode
from moshivis_ros.errors import AudioError
from moshivis_ros.msg import Audio
from moshivis_ros.nodes.interface import Interface, Parameter, declare
from moshivis_ros.nodes.messages import AudioReader, to_audio
from moshivis_ros.nodes.spin import spin

TYPE = "moshivis_ros/msg/Audio"
PARAMETERS = [
    Parameter("tail", TAIL, "seconds for which an echo is looked for; longer in large, bare rooms", (0.05, 1.0)),
]
INTERFACES = [
    Interface("audio_raw", "subscribes", TYPE, "what the microphone hears: any rate and channels"),
    Interface("audio_played", "subscribes", TYPE, "what left the loudspeaker at that time"),
    Interface("audio_in", "publishes", TYPE, "what is left of it, 24 kHz mono"),
]


class EchoCancellerNode(Node):
    def __init__(self) -> None:
        super().__init__("echo_canceller")
        declare(self, PARAMETERS)
        self._canceller = EchoCanceller(self.get_parameter("tail").value)
        self._lost = 0
        self._reader = AudioReader(TYPE, 0, 0)
        self._index = 0
        self._frame_id = ""
        self._publisher = self.create_publisher(Audio, "audio_in", 10)
        self.create_subscription(Audio, "audio_raw", self._on_raw, 50)
        self.create_subscription(Audio, "audio_played", self._on_played, 50)

    def close(self) -> None:
        pass

    def _on_raw(self, message: Audio) -> None:
        self._frame_id = message.header.frame_id
        self._pass(self._canceller.hear, message)
        if self._canceller.lost > self._lost:
            self.get_logger().warning(f"{self._canceller.lost - self._lost} messages of audio_raw were lost")
            self._lost = self._canceller.lost

    def _on_played(self, message: Audio) -> None:
        self._pass(self._canceller.play, message)

    def _pass(self, take: Callable[..., list[tuple[int, Any]]], message: Audio) -> None:
        data, fields = self._reader.read(message, self.get_clock().now().nanoseconds)
        try:
            blocks = take(data, **fields)
        except AudioError as error:
            self.get_logger().warning(f"sound was refused: {error}", throttle_duration_sec=5.0)
            return
        if blocks:
            samples = encode(np.concatenate([block for _, block in blocks]))
            answer = to_audio(samples.tobytes(), self._index, blocks[0][0])
            answer.header.frame_id = self._frame_id
            self._publisher.publish(answer)
            self._index += 1


def main(args: list[str] | None = None) -> int:
    return spin(EchoCancellerNode, args)
