"""What the microphone and the speaker node share: a sound device that may come and go, and what it heard or
played.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from moshivis_ros.audio.devices import Chunk, Kind, Microphone, Speaker, list_devices
from moshivis_ros.errors import AudioError
from moshivis_ros.nodes.diagnostics import Diagnostics
from moshivis_ros.nodes.health import status
from moshivis_ros.nodes.interface import QOS, Parameter, declare
from moshivis_ros.nodes.messages import AUDIO, AudioWriter

RETRY_SECONDS = 2.0
SILENT_SECONDS = 1.0  # after which an open device that gives nothing is reported

PARAMETERS = [
    Parameter("device", "", "a part of the device's name, or its index; empty: the system's default"),
    Parameter("sample_rate", 0, "Hz; 0: the device's own", (0, 384000)),
    Parameter("frame_id", "", "of the messages"),
]


class DeviceNode(Node, ABC):
    """Publishes on `topic` what a device gives, and opens the device again when it is lost.

    Raises MissingDependencyError where there is no PortAudio.
    """

    counters: ClassVar[dict[str, str]] = {  # of the device -> what it means when one has grown
        "xruns": "the sound card was not served in time",
        "dropped": "chunks of sound were lost, because this node was too slow",
    }

    def __init__(self, name: str, kind: Kind, topic: str, parameters: list[Parameter], **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        declare(self, parameters)
        self.get_logger().info("\n".join(["sound devices:", *list_devices(kind)]))
        self._writer = AudioWriter(self.audio_type())
        self._publisher = self.create_publisher(self._writer.type, topic, 10, qos_overriding_options=QOS)
        self._index = 0
        self._frame_id = self.get_parameter("frame_id").value
        self._device: Microphone | Speaker | None = None
        self._problem = ""  # why there is no device
        self._came = time.monotonic()  # the newest chunk
        self._counts = dict.fromkeys(self.counters, 0)  # since the start of the node
        self._reported = self._counts
        Diagnostics(self, self._report)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="device")
        self._thread.start()

    @abstractmethod
    def open(self) -> Microphone | Speaker:
        """The device as the parameters want it. Raises AudioError."""

    def audio_type(self) -> str:
        """Of the messages that are published."""
        return AUDIO

    def count(self, device: Any) -> dict[str, int]:
        """What has gone wrong with this device, by the names of `counters`."""
        return {name: getattr(device, name) for name in self.counters}

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                with self.open() as self._device:
                    self.get_logger().info(f"using {self._device.name!r} at {self._device.sample_rate} Hz")
                    self._problem = ""
                    self._follow(self._device)
            except AudioError as error:
                if str(error) != self._problem:  # not the same again every two seconds
                    self._problem = str(error)
                    self.get_logger().error(f"{error}\nTrying again every {RETRY_SECONDS:.0f} s.")
                self._device = None
                self._closing.wait(RETRY_SECONDS)

    def _follow(self, device: Microphone | Speaker) -> None:
        first, before = self._index, self._counts
        self._came = time.monotonic()
        while not self._closing.is_set():
            chunk: Chunk | None = device.read(timeout=0.5)
            self._counts = {name: before[name] + count for name, count in self.count(device).items()}
            if chunk is not None:
                self._came = time.monotonic()
                self._index = first + chunk.index  # the device's own gaps are gaps here
                message = self._writer.write(
                    chunk.samples.tobytes(), self._index, chunk.stamp, device.sample_rate, device.channels,
                    self._frame_id,
                )  # fmt: skip
                self._index += 1
                if self.context.ok():
                    self._publisher.publish(message)

    def _report(self) -> list[DiagnosticStatus]:
        device, counts = self._device, self._counts
        silent = time.monotonic() - self._came
        more = {name: count - self._reported[name] for name, count in counts.items()}
        self._reported = counts
        grown = [f"{self.counters[name]} ({name}: {n}, {counts[name]} in all)" for name, n in more.items() if n > 0]
        values: dict[str, float | int | str] = {**counts, "messages": self._index}
        name = self.get_parameter("device").value or "default"
        if device is not None:
            name = device.name
            values |= {"device": name, "rate (Hz)": device.sample_rate, "channels": device.channels}
        level, message = DiagnosticStatus.OK, "running"
        if self._problem:
            level, message = DiagnosticStatus.ERROR, " ".join(self._problem.split())
        elif device is None or silent > SILENT_SECONDS:
            level, message = DiagnosticStatus.WARN, f"{name!r} has given no sound for {silent:.0f} s"
        elif grown:
            level, message = DiagnosticStatus.WARN, "; ".join(grown)
        return [status("device", level, message, values, hardware_id=name)]
