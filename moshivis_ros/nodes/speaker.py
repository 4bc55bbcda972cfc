"""audio_out -> a sound card's loudspeaker; what really left it, and when -> audio_played (for echo
cancellation).
"""

from __future__ import annotations

from moshivis_ros.audio.devices import Speaker
from moshivis_ros.audio.pcm import decode
from moshivis_ros.errors import AudioError
from moshivis_ros.msg import Audio
from moshivis_ros.nodes import device
from moshivis_ros.nodes.interface import Interface
from moshivis_ros.nodes.spin import spin

PARAMETERS = device.PARAMETERS
INTERFACES = [
    Interface("audio_out", "subscribes", "moshivis_ros/msg/Audio", "to be played: any rate and channels"),
    Interface("audio_played", "publishes", "moshivis_ros/msg/Audio", "what was played, silence included"),
]


class SpeakerNode(device.DeviceNode):
    def __init__(self) -> None:
        self._speaker: Speaker | None = None
        super().__init__("speaker", "output", "audio_played", PARAMETERS)
        self.create_subscription(Audio, "audio_out", self._on_audio, 10)

    def open(self) -> Speaker:
        self._speaker = Speaker(
            self.get_parameter("device").value,
            sample_rate=self.get_parameter("sample_rate").value or None,
        )
        return self._speaker

    def _on_audio(self, message: Audio) -> None:
        if self._speaker is None:
            return  # there is no device yet; the log says so
        try:
            samples, _ = decode(message.data, message.channels)
            self._speaker.write(samples, message.sample_rate)
        except AudioError as error:
            self.get_logger().warning(f"not played: {error}", throttle_duration_sec=5.0)


def main(args: list[str] | None = None) -> int:
    return spin(SpeakerNode, args)
