"""What the talk node hears and sees, from activate to deactivate: messages in, to the engine."""

from __future__ import annotations

from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from moshivis_ros.engine.engine import Engine
from moshivis_ros.nodes.health import LARGE_IMAGES, Source
from moshivis_ros.nodes.messages import AudioReader, to_nanoseconds
from moshivis_ros.nodes.subscription import MatchedSubscription

AUDIO_DEPTH = 400  # messages that may wait: 2 s of 5 ms, while this computer is busy
TICK_SECONDS = 0.02  # of simulated time


class Inputs:
    """Sound and pictures have a thread each (callback groups `hearing` and `seeing`): a slow picture holds up no sound."""

    def __init__(
        self, node: Node, engine: Engine, reader: AudioReader,
        hearing: MutuallyExclusiveCallbackGroup, seeing: MutuallyExclusiveCallbackGroup, simulated: bool,
    ) -> None:  # fmt: skip
        self.frame_id = ""  # of the newest sound
        self._node, self._engine, self._reader = node, engine, reader
        self._sound, self.camera = Source("sound"), Source("pictures", LARGE_IMAGES)
        tick = node.create_timer(TICK_SECONDS, self._on_tick, callback_group=hearing) if simulated else None
        self._ticks = tick
        self._audio_in = MatchedSubscription(
            node, reader.type, "audio_in", self._on_audio, AUDIO_DEPTH, callback_group=hearing
        )
        transport, reliability = (
            node.get_parameter(f"image_{name}").value for name in ("transport", "reliability")
        )
        self._cameras = [
            MatchedSubscription(node, kind, topic, callback, 1, reliability, seeing)
            for kind, topic, callback in (
                (Image, "image", self._on_image),
                (CompressedImage, "image/compressed", self._on_compressed),
            )
            if transport in ("both", "raw" if kind is Image else "compressed")
        ]

    def close(self) -> None:
        for subscription in (*self._cameras, self._audio_in):
            subscription.close()
        if self._ticks is not None:
            self._node.destroy_timer(self._ticks)

    @property
    def image_topics(self) -> str:
        return " or ".join(camera.topic for camera in self._cameras)

    def problems(self) -> tuple[str | None, str | None]:
        """What is wrong with the sound, and with the pictures, in words."""
        audio_in = self._audio_in
        sound = self._sound.problem({audio_in.topic: audio_in.publishers}, needed=True)
        if audio_in.publishers > 1:
            sound = f"{audio_in.publishers} publishers on {audio_in.topic}: their sound is mixed up"
        pictures = {camera.topic: camera.publishers for camera in self._cameras}
        return sound, self.camera.problem(pictures, needed=False)

    def _on_audio(self, message: Any) -> None:
        self._sound.came()
        now = self._node.get_clock().now().nanoseconds
        data, fields = self._reader.read(message, now)
        self.frame_id = self._reader.frame_id(message)
        self._engine.hear(data, now=now, **fields)

    def _on_tick(self) -> None:
        self._engine.tick(self._node.get_clock().now().nanoseconds)

    def _on_image(self, message: Image) -> None:
        self._show(
            message,
            encoding=message.encoding,
            height=message.height,
            width=message.width,
            step=message.step,
            is_bigendian=bool(message.is_bigendian),
        )

    def _on_compressed(self, message: CompressedImage) -> None:
        self._show(message, format=message.format)

    def _show(self, message: Image | CompressedImage, **fields: Any) -> None:
        self.camera.came()
        stamp = to_nanoseconds(message.header.stamp) or self._node.get_clock().now().nanoseconds
        self._engine.show(memoryview(message.data), stamp=stamp, frame_id=message.header.frame_id, **fields)
