"""The camera's last pictures by their stamps: which one is in the model's cache is told by its stamp only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from moshivis_ros.errors import ImageError
from moshivis_ros.nodes.interface import Interface
from moshivis_ros.nodes.messages import to_nanoseconds
from moshivis_ros.nodes.subscription import MatchedSubscription
from moshivis_ros.vision.encoded import decode_compressed
from moshivis_ros.vision.encodings import Picture, decode

INTERFACES = [
    Interface(
        "image", "subscribes", "sensor_msgs/msg/Image", "the camera, where image/compressed does not come"
    ),
    Interface("image/compressed", "subscribes", "sensor_msgs/msg/CompressedImage", "the camera"),
]
KEPT = 150  # pictures: 5 s of a camera of 30 Hz, in which one that was taken is encoded
QUALITY = 80  # of JPEG


@dataclass(frozen=True)
class Kept:
    """A picture as it is kept: made small already, or as the camera compressed it."""

    stamp: int
    frame_id: str
    picture: Picture | None
    compressed: bytes
    format: str
    width: int

    @cached_property
    def pixels(self) -> Picture:
        """Raises ImageError for what the camera compressed in an unknown way."""
        if self.picture is not None:
            return self.picture
        return _small(decode_compressed(self.compressed, self.format), self.width)

    @cached_property
    def jpeg(self) -> bytes:
        """Raises the same."""
        if self.picture is None and not self.width and "jpeg" in self.format.lower():
            return self.compressed
        _, encoded = cv2.imencode(
            ".jpg", cv2.cvtColor(self.pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
        )
        return encoded.tobytes()


class Pictures:
    """Keeps what comes on image/compressed, and on image while nothing comes there; tells `came` of each.

    `width`: pixels to which larger ones are reduced; 0: as they are. `group`: of the callbacks.
    """

    def __init__(
        self, node: Node, width: int, came: Callable[[Kept], None], group: MutuallyExclusiveCallbackGroup
    ) -> None:
        self._node, self._width, self._came, self._group = node, width, came, group
        self._kept: OrderedDict[int, Kept] = OrderedDict()
        self._compressed = MatchedSubscription(
            node, CompressedImage, "image/compressed", self._on_compressed, 1, callback_group=group
        )
        self._raw: MatchedSubscription | None = self._open_raw()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(1.0, self._on_second, callback_group=group, clock=steady)

    def of(self, stamp: int) -> Kept | None:
        """The picture of this stamp (nanoseconds), while it is kept."""
        return self._kept.get(stamp)

    def _open_raw(self) -> MatchedSubscription:
        return MatchedSubscription(self._node, Image, "image", self._on_image, 1, callback_group=self._group)

    def _on_second(self) -> None:
        if self._raw is None and not self._compressed.publishers:
            self._raw = self._open_raw()

    def _on_compressed(self, message: CompressedImage) -> None:
        if self._raw is not None:  # large messages that nobody needs twice
            self._raw.close()
            self._raw = None
        self._keep(message, None, bytes(message.data), message.format)

    def _on_image(self, message: Image) -> None:
        try:
            picture = decode(
                memoryview(message.data),
                encoding=message.encoding,
                height=message.height,
                width=message.width,
                step=message.step,
                is_bigendian=bool(message.is_bigendian),
            )
        except ImageError as error:
            self._node.get_logger().warning(f"a picture is left out: {error}", throttle_duration_sec=60.0)
            return
        self._keep(message, _small(picture, self._width), b"", "")

    def _keep(self, message: Any, picture: Picture | None, compressed: bytes, kind: str) -> None:
        stamp = to_nanoseconds(message.header.stamp)
        kept = Kept(stamp, message.header.frame_id, picture, compressed, kind, self._width)
        self._kept[stamp] = kept
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        self._came(kept)


def _small(picture: Picture, width: int) -> Picture:
    height = round(picture.shape[0] * width / picture.shape[1])
    if not width or picture.shape[1] <= width:
        return picture.copy()  # not the message's memory
    return cv2.resize(picture, (width, max(1, height)), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]
