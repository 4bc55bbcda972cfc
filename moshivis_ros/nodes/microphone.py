"""A sound card's microphone -> audio_in, 20 ms a message, stamped with the time the sound was in the air."""

from __future__ import annotations

from typing import Any

from moshivis_ros.audio.devices import Microphone
from moshivis_ros.nodes import device, diagnostics
from moshivis_ros.nodes.interface import Interface, Parameter
from moshivis_ros.nodes.messages import AUDIO, sound_parameters
from moshivis_ros.nodes.spin import spin

PARAMETERS = [
    *device.PARAMETERS,
    Parameter("channels", 1, "to record, interleaved", (1, 64)),
    *sound_parameters("audio_in", written=True),
]
INTERFACES = [Interface("audio_in", "publishes", AUDIO, "what the microphone hears"), diagnostics.INTERFACE]


class MicrophoneNode(device.DeviceNode):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__("microphone", "input", "audio_in", PARAMETERS, **kwargs)

    def audio_type(self) -> str:
        return str(self.get_parameter("audio_in_type").value)

    def open(self) -> Microphone:
        return Microphone(
            self.get_parameter("device").value,
            sample_rate=self.get_parameter("sample_rate").value or None,
            channels=self.get_parameter("channels").value,
        )


def main(args: list[str] | None = None) -> int:
    return spin(MicrophoneNode, args)
