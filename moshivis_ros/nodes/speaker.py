"""audio_out -> a sound card's loudspeaker; what really left it, and when -> audio_played (for echo
cancellation).
"""

from __future__ import annotations

from typing import Any

from moshivis_ros.audio.devices import Speaker
from moshivis_ros.audio.pcm import decode
from moshivis_ros.errors import AudioError
from moshivis_ros.nodes import device, diagnostics
from moshivis_ros.nodes.interface import Interface
from moshivis_ros.nodes.messages import AUDIO, AudioReader, sound_parameters
from moshivis_ros.nodes.spin import spin
from moshivis_ros.nodes.subscription import MatchedSubscription

PARAMETERS = [*device.PARAMETERS, *sound_parameters("audio_out")]
INTERFACES = [
    Interface("audio_out", "subscribes", AUDIO, "to be played: any rate and channels"),
    Interface("audio_played", "publishes", AUDIO, "what was played, silence included"),
    diagnostics.INTERFACE,
]


class SpeakerNode(device.DeviceNode):
    counters = {
        **device.DeviceNode.counters,
        "underruns": "the sound to be played came too late",
        "skipped": "samples were skipped, because more came than can be played",
    }

    def __init__(self, **kwargs: Any) -> None:
        self._speaker: Speaker | None = None
        self._gaps = 0  # of this speaker
        super().__init__("speaker", "output", "audio_played", PARAMETERS, **kwargs)
        self._reader = AudioReader.of(self, "audio_out")
        MatchedSubscription(self, self._reader.type, "audio_out", self._on_audio, 10)

    def open(self) -> Speaker:
        self._speaker = Speaker(
            self.get_parameter("device").value,
            sample_rate=self.get_parameter("sample_rate").value or None,
        )
        self._gaps = 0
        return self._speaker

    def count(self, device: Any) -> dict[str, int]:
        return {**super().count(device), "underruns": self._gaps}

    def _on_audio(self, message: Any) -> None:
        if self._speaker is None:
            return  # there is no device yet; the log and /diagnostics say so
        data, fields = self._reader.read(message, 0)
        try:
            samples, _ = decode(data, fields["channels"], fields["sample_format"])
            self._speaker.write(samples, fields["sample_rate"], flush=getattr(message, "flush", False))
        except AudioError as error:
            self.get_logger().warning(f"not played: {error}", throttle_duration_sec=5.0)
        self._gaps = self._speaker.underruns  # the one at the end of all sound is none


def main(args: list[str] | None = None) -> int:
    return spin(SpeakerNode, args)
