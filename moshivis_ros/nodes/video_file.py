"""A video, a photo, a folder of photos or a camera -> image or image/compressed, for a robot without a camera node. Begins
with its first listener.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

import cv2
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from moshivis_ros.nodes.interface import QOS, Interface, Parameter, declare, values
from moshivis_ros.nodes.jumps import Jumps
from moshivis_ros.nodes.spin import Done, spin
from moshivis_ros.vision.encodings import Picture
from moshivis_ros.vision.sources import pictures

PARAMETERS = [
    Parameter("path", "", "a video, a photo, a folder of photos for a slide show, or a camera such as /dev/video0"),
    Parameter(
        "rate", 10.0, "pictures per second; slides are repeated, videos lose or repeat frames", (0.1, 60.0)
    ),
    Parameter("slide_seconds", 5.0, "for which a photo is shown", (0.1, 3600.0)),
    Parameter(
        "format", "raw", "raw on image; jpeg or png on image/compressed", choices=("raw", "jpeg", "png")
    ),
    Parameter("listeners", 1, "begins when it has so many", (1, 100)),
    Parameter("loop", False, "begin again at the end; otherwise the node ends"),
    Parameter("frame_id", "camera", "of the messages"),
]
INTERFACES = [
    Interface("image", "publishes", "sensor_msgs/msg/Image", "rgb8, where format is raw"),
    Interface(
        "image/compressed", "publishes", "sensor_msgs/msg/CompressedImage", "where format is jpeg or png"
    ),
]


class VideoFile(Node):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__("video_file", **kwargs)
        declare(self, PARAMETERS)
        self._settings = values(self, PARAMETERS)
        self._jumps = Jumps(self)
        self._raw = self._settings["format"] == "raw"
        self._open()
        topic, kind = ("image", Image) if self._raw else ("image/compressed", CompressedImage)
        self._publisher = self.create_publisher(kind, topic, 1, qos_overriding_options=QOS)
        self.create_timer(1 / self._settings["rate"], self._on_timer)

    def close(self) -> None:
        pass

    def _open(self) -> None:
        """Raises ImageError, as `pictures` does."""
        path, self._hold = self._settings["path"], self._settings["slide_seconds"]
        self._pictures: Iterator[tuple[float, Picture]] = pictures(path, self._hold)
        self._next: tuple[float, Picture] | None = next(self._pictures)
        self._start: int | None = None  # nanoseconds, when somebody began to listen
        self._shown = 0.0  # when the present picture began
        self._advance(0.0)

    def _advance(self, elapsed: float) -> None:
        """Make a message of the picture of this time, seconds from the start."""
        picture = None
        while self._next is not None and self._next[0] <= elapsed:
            time, picture = self._next
            self._hold = (
                time - self._shown or self._hold
            )  # the last picture is shown as long as the one before
            self._shown = time
            self._next = next(self._pictures, None)
        if picture is not None:
            self._message = _image(picture) if self._raw else _compressed(picture, self._settings["format"])
            self._message.header.frame_id = self._settings["frame_id"]

    def _on_timer(self) -> None:
        now = self.get_clock().now()
        jump = self._jumps(now.nanoseconds)
        if self._start is None:
            if self._publisher.get_subscription_count() < self._settings["listeners"]:
                return
            self._start = now.nanoseconds
        else:
            self._start += jump  # it goes on where it was
        elapsed = (now.nanoseconds - self._start) / 1e9
        if self._next is None and elapsed >= self._shown + self._hold:
            if not self._settings["loop"]:
                raise Done
            self._open()
            self._start = now.nanoseconds
        else:
            self._advance(elapsed)
        self._message.header.stamp = now.to_msg()
        self._publisher.publish(self._message)


def _image(picture: Picture) -> Image:
    height, width, _ = picture.shape
    data = array("B")
    data.frombytes(picture.data)  # anything but an array.array is checked byte by byte
    return Image(height=height, width=width, encoding="rgb8", step=width * 3, data=data)


def _compressed(picture: Picture, kind: str) -> CompressedImage:
    _, encoded = cv2.imencode(f".{kind}", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return CompressedImage(format=kind, data=array("B", encoded.tobytes()))


def main(args: list[str] | None = None) -> int:
    return spin(VideoFile, args)
