"""A conversation -> a bag: an MCAP file in the layout of rosbag2, with sound, small pictures, words and decisions.

The last hour, or gigabyte, is kept: when something odd has happened, what led to it is in the bag. `moshivis report
FOLDER` makes a page of it, and `ros2 bag`, Foxglove and the library rosbags read it. It is written while it goes on;
a recorder that is killed loses a second or two, and `moshivis report` makes an ordinary bag of what it leaves.
Sound of other types of message is written as moshivis_ros/msg/Audio.
"""

from __future__ import annotations

import re
import time
from array import array
from collections.abc import Iterable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import get_package_share_directory
from rcl_interfaces.msg import ParameterEvent
from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

from moshivis_ros.audio.mix import Arrivals
from moshivis_ros.audio.pcm import decode, encode
from moshivis_ros.errors import AudioError, ImageError, OutputError
from moshivis_ros.msg import Audio, ImageCacheStatus
from moshivis_ros.nodes.interface import Interface, Parameter, declare, values
from moshivis_ros.nodes.messages import (
    AUDIO,
    AudioReader,
    interface_type,
    sound_parameters,
    to_audio,
    to_nanoseconds,
    to_time,
)
from moshivis_ros.nodes.pictures import INTERFACES as CAMERA
from moshivis_ros.nodes.pictures import Kept, Pictures
from moshivis_ros.nodes.spin import spin
from moshivis_ros.nodes.subscription import MatchedSubscription
from moshivis_ros.recording.bag import BagWriter, Kind

THUMBNAIL = 320  # pixels of width
PARAMETERS = [
    Parameter("folder", "recording_{time}", "the bag: a new folder; {time} is when the recording begins"),
    Parameter("max_size", 1000.0, "MB; more: the oldest eighth is deleted", (1.0, 1e6)),
    Parameter("max_minutes", 60.0, "the same for the time", (0.1, 1e5)),
    Parameter(
        "pictures",
        "thumbnails",
        f"thumbnails ({THUMBNAIL} pixels wide), full, or none",
        choices=("thumbnails", "full", "none"),
    ),
    Parameter("picture_rate", 5.0, "pictures a second, beside those that the model saw", (0.0, 60.0)),
    *sound_parameters("audio_in"),
    *sound_parameters("audio_out"),
]
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
COPIED = [  # as they come
    (Interface("transcript", "subscribes", "moshivis_ros/msg/Transcript", "what the robot says"), 100),
    (Interface("user_transcript", "subscribes", "moshivis_ros/msg/Transcript", "what the user says"), 100),
    (
        Interface("speaking", "subscribes", "moshivis_ros/msg/Speaking", "who speaks"),
        10,
    ),
    (Interface("gate", "subscribes", "moshivis_ros/msg/Gate", "how much it looks at the picture"), 100),
    (
        Interface(
            "image_cache", "subscribes", "moshivis_ros/msg/ImageCacheStatus", "which picture it sees, and why"
        ),
        LATCHED,
    ),
    (Interface("/diagnostics", "subscribes", "diagnostic_msgs/msg/DiagnosticArray", "of all nodes"), 100),
]
INTERFACES = [
    Interface("audio_in", "subscribes", AUDIO, "the user"),
    Interface("audio_out", "subscribes", AUDIO, "the robot"),
    *(row for row, _ in COPIED),
    *CAMERA,
    Interface("/parameter_events", "subscribes", "rcl_interfaces/msg/ParameterEvent", "what is set in talk"),
]
REMEMBERED = 60_000_000_000  # nanoseconds for which a picture is known to be written
TALK = "talk"  # the node whose parameters are written down


class Recorder(Node):
    def __init__(self, **kwargs: Any) -> None:
        # The last line of the log comes when the context, and with it the log topic, is gone already.
        super().__init__("recorder", enable_rosout=False, **kwargs)
        declare(self, PARAMETERS)
        given = values(self, PARAMETERS)
        folder = given["folder"].replace("{time}", time.strftime("%Y-%m-%d_%H-%M-%S"))
        self._bag = BagWriter(Path(folder), given["max_size"] * 1e6, given["max_minutes"] * 60)
        self._messages = 0
        self._failed = False
        self._foreign = {"audio_in": Arrivals(), "audio_out": Arrivals()}  # of messages of other types
        self._set_in_talk: dict[str, Any] = {}
        self._talk = f"{self.get_namespace().rstrip('/')}/{TALK}"
        self._written: set[int] = set()  # stamps of pictures in the bag
        self._wanted = self._next_picture = 0  # the stamp of what the model sees; when another may be written
        self._period = round(1e9 / given["picture_rate"]) if given["picture_rate"] else None
        try:
            self._subscribe(given["pictures"])
        except BaseException:  # Ctrl-C too: a node that is ended while it is made leaves nothing
            self._bag.discard()
            raise

    def close(self) -> None:
        """Raises OutputError where not all could be written."""
        if not self._messages:
            self._bag.discard()
            self.get_logger().warning("nothing was recorded: no message came")
            return
        if self._failed:
            raise OutputError(f"{self._bag.folder}: not all of the conversation could be written; see above")
        self._bag.close()
        self.get_logger().info(
            f"wrote {self._bag.folder} ({self._messages} messages); see it: moshivis report {self._bag.folder}"
        )

    def _subscribe(self, pictures: str) -> None:
        self._pictures: Pictures | None = None
        for topic in ("audio_in", "audio_out"):
            reader = AudioReader.of(self, topic)
            MatchedSubscription(self, reader.type, topic, partial(self._hear, reader, topic), 100)
        for row, qos in COPIED:
            kind = interface_type(row.type)
            take = partial(self._copy, row.name.lstrip("/"), self.resolve_topic_name(row.name), row.type)
            self.create_subscription(kind, row.name, take, qos, raw=True)
        if pictures != "none":
            width = THUMBNAIL if pictures == "thumbnails" else 0
            self._pictures = Pictures(self, width, self._on_picture, MutuallyExclusiveCallbackGroup())
        self.create_subscription(ParameterEvent, "/parameter_events", self._on_parameter_event, 100)
        self._list: Any = self.create_client(ListParameters, f"{TALK}/list_parameters")
        self._get: Any = self.create_client(GetParameters, f"{TALK}/get_parameters")
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._asking = self.create_timer(1.0, self._ask_for_parameters, clock=steady)

    def _write(self, role: str, topic: str, kind: str, data: bytes, lasting: Any = None) -> None:
        if self._failed:
            return
        now = self.get_clock().now().nanoseconds
        try:
            self._bag.write(role, topic, Kind(kind, definition(kind)), now, data, lasting)
            self._messages += 1
        except OutputError as error:
            self._failed = True
            self.get_logger().error(f"the recording ends here: {error}")

    def _copy(self, role: str, topic: str, kind: str, data: bytes) -> None:
        self._write(role, topic, kind, data, role if role == "image_cache" else None)
        if role == "image_cache":
            status = deserialize_message(data, ImageCacheStatus)
            self._wanted = to_nanoseconds(status.header.stamp) if status.has_image else 0
            if self._pictures is not None and (kept := self._pictures.of(self._wanted)) is not None:
                self._write_picture(kept)

    def _hear(self, reader: AudioReader, topic: str, message: Any) -> None:
        if not isinstance(message, Audio):
            now = self.get_clock().now().nanoseconds
            data, fields = reader.read(message, now)
            try:
                samples, _ = decode(data, fields["channels"], fields["sample_format"])
            except AudioError as error:
                self.get_logger().warning(f"not recorded: {error}", throttle_duration_sec=5.0)
                return
            arrivals, rate = self._foreign[topic], int(fields["sample_rate"])
            number, stamp = arrivals.take(now, samples.size / rate)
            message = to_audio(
                encode(samples).tobytes(),
                number if fields["index"] is None else fields["index"],
                stamp if fields["stamp"] == now else fields["stamp"],
                rate,
            )
        self._write(topic, self.resolve_topic_name(topic), AUDIO, serialize_message(message))

    def _on_picture(self, kept: Kept) -> None:
        now = self.get_clock().now().nanoseconds
        due = self._period is not None and (
            now >= self._next_picture or now < self._next_picture - 2 * self._period
        )
        if due:
            self._next_picture = now + (self._period or 0)
        if due or kept.stamp == self._wanted:
            self._write_picture(kept)

    def _write_picture(self, kept: Kept) -> None:
        if kept.stamp in self._written:
            return
        self._written = {stamp for stamp in self._written if kept.stamp - stamp < REMEMBERED} | {kept.stamp}
        try:
            message = CompressedImage(format="jpeg", data=array("B", kept.jpeg))
        except ImageError as error:
            self.get_logger().warning(f"a picture is left out: {error}", throttle_duration_sec=60.0)
            return
        message.header.stamp, message.header.frame_id = to_time(kept.stamp), kept.frame_id
        topic = self.resolve_topic_name("image/compressed")
        self._write("image/compressed", topic, "sensor_msgs/msg/CompressedImage", serialize_message(message))

    def _ask_for_parameters(self) -> None:
        """Those of talk, once: later changes come on /parameter_events."""
        if self._list.service_is_ready():
            self._asking.cancel()
            self._list.call_async(ListParameters.Request()).add_done_callback(self._on_listed)

    def _on_listed(self, future: Any) -> None:
        names = list(future.result().result.names)
        self._get.call_async(GetParameters.Request(names=names)).add_done_callback(
            partial(self._on_parameters, names)
        )

    def _on_parameters(self, names: list[str], future: Any) -> None:
        self._set_parameters(zip(names, future.result().values))

    def _on_parameter_event(self, event: ParameterEvent) -> None:
        if event.node == self._talk:
            changed = (*event.new_parameters, *event.changed_parameters)
            self._set_parameters((parameter.name, parameter.value) for parameter in changed)

    def _set_parameters(self, news: Iterable[tuple[str, Any]]) -> None:
        """All of them once more, as `ros2 param dump` writes them: that can be a params_file, and any reader reads it."""
        self._set_in_talk.update({name: parameter_value_to_python(value) for name, value in news})
        text = yaml.safe_dump({self._talk: {"ros__parameters": self._set_in_talk}})
        self._write(
            "parameters",
            f"{self._talk}/parameters",
            "std_msgs/msg/String",
            serialize_message(String(data=text)),
            TALK,
        )


@lru_cache
def definition(kind: str) -> str:
    """The text of a message's .msg file, and of those of the messages in it, as MCAP wants it."""
    texts: dict[str, str] = {}
    _collect(kind, texts)
    (first, *others) = texts.items()
    return "\n".join([first[1], *("=" * 80 + f"\nMSG: {name}\n{text}" for name, text in others)])


def _collect(kind: str, texts: dict[str, str]) -> None:
    package, _, name = kind.split("/")
    if f"{package}/{name}" in texts:
        return
    texts[f"{package}/{name}"] = text = (
        Path(get_package_share_directory(package)) / "msg" / f"{name}.msg"
    ).read_text()
    for used in re.findall(r"^([A-Z]\w*|\w+/\w+)(?:\[.*?\])? +\w+", text, re.MULTILINE):
        inner, _, short = used.rpartition("/")
        _collect(f"{inner or package}/msg/{short}", texts)


def main(args: list[str] | None = None) -> int:
    return spin(Recorder, args)
