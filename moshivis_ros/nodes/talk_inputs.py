"""What the talk node hears and sees, from activate to deactivate: messages in, to the engine."""

from __future__ import annotations

import threading
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import JumpThreshold, TimeJump  # type: ignore[attr-defined]
from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from moshivis_ros.engine.engine import Engine
from moshivis_ros.nodes.health import LARGE_IMAGES, Source
from moshivis_ros.nodes.messages import AudioReader, to_nanoseconds
from moshivis_ros.nodes.subscription import MatchedSubscription

AUDIO_DEPTH = 400  # messages that may wait: 2 s of 5 ms, while this computer is busy
TICK_SECONDS = 0.02  # of simulated time
# Between two messages of /clock, not between two looks at it: those of a busy computer, or in a fast simulation, are apart.
JUMP = JumpThreshold(
    min_forward=Duration(seconds=1), min_backward=Duration(nanoseconds=-10_000_000), on_clock_change=False
)


class Inputs:
    """Sound and pictures have a thread each (callback groups `hearing` and `seeing`): a slow picture holds up no sound."""

    def __init__(
        self, node: Node, engine: Engine, reader: AudioReader,
        hearing: MutuallyExclusiveCallbackGroup, seeing: MutuallyExclusiveCallbackGroup, simulated: bool,
    ) -> None:  # fmt: skip
        self.frame_id = ""  # of the newest sound
        self._node, self._engine, self._reader = node, engine, reader
        self._sound, self.camera = Source("sound"), Source("pictures", LARGE_IMAGES)
        self._telling = threading.Lock()  # held from a look at the clock until the engine knows: before a jump, or after
        self._jumps = self._ticks = None
        if simulated:
            self._jumps = node.get_clock().create_jump_callback(JUMP, post_callback=self._on_jump)
            self._ticks = node.create_timer(TICK_SECONDS, self._on_tick, callback_group=hearing)
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
        if self._jumps is not None and self._ticks is not None:
            self._jumps.unregister()
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
        self.frame_id = self._reader.frame_id(message)
        with self._telling:
            now = self._node.get_clock().now().nanoseconds
            data, fields = self._reader.read(message, now)
            self._engine.hear(data, now=now, **fields)

    def _on_tick(self) -> None:
        with self._telling:
            self._engine.tick(self._node.get_clock().now().nanoseconds)

    def _on_jump(self, jump: TimeJump) -> None:
        with self._telling:
            self._engine.jump(self._node.get_clock().now().nanoseconds)

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
