"""What the microphone and the speaker node share: a sound device that may come and go, and what it heard or
played.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from rclpy.node import Node

from moshivis_ros.audio.devices import Chunk, Kind, Microphone, Speaker, list_devices
from moshivis_ros.errors import AudioError
from moshivis_ros.msg import Audio
from moshivis_ros.nodes.interface import Parameter, declare
from moshivis_ros.nodes.messages import to_audio

RETRY_SECONDS = 2.0

PARAMETERS = [
    Parameter("device", "", "a part of the device's name, or its index; empty: the system's default"),
    Parameter("sample_rate", 0, "Hz; 0: the device's own", (0, 384000)),
    Parameter("frame_id", "", "of the messages"),
]


class DeviceNode(Node, ABC):
    """Publishes on `topic` what a device gives, and opens the device again when it is lost.

    Raises MissingDependencyError where there is no PortAudio.
    """

    def __init__(self, name: str, kind: Kind, topic: str, parameters: list[Parameter]) -> None:
        super().__init__(name)
        declare(self, parameters)
        self.get_logger().info("\n".join(["sound devices:", *list_devices(kind)]))
        self._publisher = self.create_publisher(Audio, topic, 10)
        self._index = 0
        self._frame_id = self.get_parameter("frame_id").value
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="device")
        self._thread.start()

    @abstractmethod
    def open(self) -> Microphone | Speaker:
        """The device as the parameters want it. Raises AudioError."""

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        problem = ""
        while not self._closing.is_set():
            try:
                with self.open() as device:
                    self.get_logger().info(f"using {device.name!r} at {device.sample_rate} Hz")
                    problem = ""
                    self._follow(device)
            except AudioError as error:
                if str(error) != problem:  # not the same again every two seconds
                    problem = str(error)
                    self.get_logger().error(f"{problem}\nTrying again every {RETRY_SECONDS:.0f} s.")
                self._closing.wait(RETRY_SECONDS)

    def _follow(self, device: Microphone | Speaker) -> None:
        first = self._index
        while not self._closing.is_set():
            chunk: Chunk | None = device.read(timeout=0.5)
            if chunk is not None:
                self._index = first + chunk.index  # the device's own gaps are gaps here
                samples = chunk.samples.tobytes()
                message = to_audio(samples, self._index, chunk.stamp, device.sample_rate, device.channels)
                message.header.frame_id = self._frame_id
                self._index += 1
                if self.context.ok():
                    self._publisher.publish(message)
