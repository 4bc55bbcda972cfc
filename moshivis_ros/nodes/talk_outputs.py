"""What the talk node publishes about each frame: voice, transcript, gate, image cache."""

from __future__ import annotations

from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile

from moshivis_ros.engine.events import Sight, Spoken
from moshivis_ros.msg import Gate, ImageCacheStatus, Transcript
from moshivis_ros.nodes.interface import QOS
from moshivis_ros.nodes.messages import AudioWriter, to_time
from moshivis_ros.transcript import Piece, Utterance, utterance_of

SILENT = bytes(3840)  # a frame of it
FRAME = 80_000_000  # nanoseconds


class Outputs:
    """`publish` belongs to the thread of the engine's events; `end` is called there, or when no event can come any more."""

    def __init__(self, node: LifecycleNode, audio_out_type: str) -> None:
        self.muted = False
        self._frame_id = ""
        self._writer = AudioWriter(audio_out_type)
        self._index = 0  # of the next audio_out message: consecutive as long as the node lives
        self._stamp = 0  # of the newest frame
        self._audible = False  # what waits to be played may be heard
        self._said: list[Piece] = []  # of the utterance now being said
        self._shown: tuple[Any, ...] = ()
        # Not 1: of a decision and what came of it, told in a row, a reader that is busy would get the last only.
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        publishers = {
            "audio_out": (self._writer.type, 10),
            "transcript": (Transcript, 50),
            "gate": (Gate, 10),
            "image_cache": (ImageCacheStatus, latched),
        }
        self._audio_out, self._transcript, self._gate, self._image_cache = (
            node.create_lifecycle_publisher(kind, topic, qos, qos_overriding_options=QOS)
            for topic, (kind, qos) in publishers.items()
        )
        self._node = node

    def close(self) -> None:
        for publisher in (self._audio_out, self._transcript, self._gate, self._image_cache):
            self._node.destroy_lifecycle_publisher(publisher)

    def publish(self, spoken: Spoken, frame_id: str) -> None:
        """`frame_id`: of the sound that is answered."""
        self._stamp, self._frame_id = spoken.stamp, frame_id
        if spoken.index == 0:
            self.end()
            self._shown = ()
        flush = self._audible and (self.muted or spoken.cut)
        self._speak(SILENT if self.muted else spoken.samples, flush)
        self._audible = not self.muted
        gate = Gate(
            frame=spoken.index,
            value=spoken.gate,
            normalised=spoken.gate_normalised,
            per_layer=spoken.gate_per_layer,
        )
        gate.header.stamp, gate.header.frame_id = to_time(spoken.stamp), self._frame_id
        self._gate.publish(gate)
        for text in spoken.text:
            self._tell(text)
        sight = spoken.sight
        shown = (sight.decision, sight.reason, sight.refreshes, sight.has_image)
        if shown != self._shown or spoken.index % 12 == 0:
            self._shown = shown
            self._image_cache.publish(_image_cache(sight))

    def end(self) -> None:
        """The conversation is over, or begins anew: what was said of an utterance is all of it, and what still waits to
        be played is not heard.
        """
        if self._said:
            self._tell(utterance_of(self._said))
        if self._audible:
            self._speak(SILENT, flush=True)
        self._audible = False

    def _speak(self, samples: bytes, flush: bool) -> None:
        message = self._writer.write(samples, self._index, self._stamp, frame_id=self._frame_id)
        if flush and hasattr(message, "flush"):
            message.flush = True
        self._audio_out.publish(message)
        self._index += 1
        self._stamp += FRAME

    def _tell(self, text: Piece | Utterance) -> None:
        message = Transcript(text=text.text, gate=text.gate, speaker="robot", confidence=1.0)
        message.header.stamp, message.header.frame_id = to_time(self._stamp), self._frame_id
        if isinstance(text, Piece):
            message.utterance, message.start, message.end = text.utterance, text.time, text.time + 0.08
            self._said.append(text)
        else:
            message.utterance, message.start, message.end = text.number, text.start, text.end
            message.final = True
            self._said = []
        self._transcript.publish(message)


def _image_cache(sight: Sight) -> ImageCacheStatus:
    message = ImageCacheStatus(
        decision=sight.decision,
        reason=sight.reason,
        distance=sight.distance,
        age=sight.age,
        encode_ms=sight.encode_ms,
        refreshes=sight.refreshes,
        has_image=sight.has_image,
    )
    if sight.has_image:
        message.header.stamp = to_time(sight.stamp)
        message.header.frame_id = sight.frame_id
    return message
