"""Everything that a conversation shows of itself, as plain events for the dashboard and `moshivis watch`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from moshivis_ros.audio import Float
from moshivis_ros.audio.framing import AudioInput
from moshivis_ros.errors import AudioError
from moshivis_ros.msg import Gate, ImageCacheStatus, Speaking, Transcript
from moshivis_ros.nodes.interface import Interface
from moshivis_ros.nodes.messages import AUDIO, AudioReader, sound_parameters, to_nanoseconds
from moshivis_ros.nodes.subscription import MatchedSubscription

PARAMETERS = [*sound_parameters("audio_in"), *sound_parameters("audio_out")]
INTERFACES = [
    Interface("audio_in", "subscribes", AUDIO, "the user's level"),
    Interface("audio_out", "subscribes", AUDIO, "the robot's level"),
    Interface("transcript", "subscribes", "moshivis_ros/msg/Transcript", "what the robot says"),
    Interface("user_transcript", "subscribes", "moshivis_ros/msg/Transcript", "what the user says"),
    Interface("gate", "subscribes", "moshivis_ros/msg/Gate", "how much it looks at the picture"),
    Interface(
        "image_cache", "subscribes", "moshivis_ros/msg/ImageCacheStatus", "which picture it sees, and why"
    ),
    Interface(
        "speaking", "subscribes", "moshivis_ros/msg/Speaking", "who speaks"
    ),
    Interface("/diagnostics", "subscribes", "diagnostic_msgs/msg/DiagnosticArray", "of this robot's nodes"),
]
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Observer:
    """Calls `tell` with events, dicts with a `kind`: level (side, rms, stamp of the sound in ns), said (speaker, text, gate, final, utterance), gate
    (value), sight (the fields of ImageCacheStatus; stamp in ns, 0 without a picture), speaking (robot, user, muted, asleep),
    diagnostics (name, level, words, values). `voice`: called with frames of the robot's voice, float32 [1920] at 24 kHz,
    and with None where what was given before is not to be heard any more.
    """

    def __init__(
        self, node: Node, tell: Callable[[dict[str, Any]], None], voice: Callable[[Float | None], None]
    ) -> None:
        self._node, self._tell, self._voice = node, tell, voice
        self._inputs = {"audio_in": AudioInput(), "audio_out": AudioInput()}
        for topic in self._inputs:
            reader = AudioReader.of(node, topic)
            MatchedSubscription(node, reader.type, topic, partial(self._on_audio, topic, reader), 100)
        for topic, speaker in (("transcript", "robot"), ("user_transcript", "user")):
            node.create_subscription(Transcript, topic, partial(self._on_transcript, speaker), 100)
        node.create_subscription(Gate, "gate", self._on_gate, 20)
        node.create_subscription(ImageCacheStatus, "image_cache", self._on_image_cache, LATCHED)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 20)
        node.create_subscription(Speaking, "speaking", self._on_speaking, 10)

    def _on_audio(self, topic: str, reader: AudioReader, message: Any) -> None:
        robot = topic == "audio_out"
        if robot and getattr(message, "flush", False):
            self._voice(None)
        data, fields = reader.read(message, self._node.get_clock().now().nanoseconds)
        try:
            frames = self._inputs[topic].push(data, **fields)
        except AudioError as error:
            self._node.get_logger().warning(f"not heard: {error}", throttle_duration_sec=5.0)
            return
        for stamp, frame in frames:
            rms = round(float(np.sqrt(np.mean(frame**2))), 5)
            self._tell({"kind": "level", "side": "robot" if robot else "user", "rms": rms, "stamp": stamp})
            if robot:
                self._voice(frame)

    def _on_transcript(self, speaker: str, message: Transcript) -> None:
        self._tell({
            "kind": "said", "speaker": speaker, "text": message.text, "gate": round(float(message.gate), 3),
            "final": bool(message.final), "utterance": int(message.utterance),
        })  # fmt: skip

    def _on_gate(self, message: Gate) -> None:
        self._tell({"kind": "gate", "value": round(float(message.normalised), 3)})

    def _on_image_cache(self, message: ImageCacheStatus) -> None:
        self._tell({
            "kind": "sight", "decision": message.decision, "reason": message.reason,
            "distance": round(float(message.distance), 4), "age": round(float(message.age), 2),
            "encode_ms": round(float(message.encode_ms), 1), "refreshes": int(message.refreshes),
            "stamp": to_nanoseconds(message.header.stamp) if message.has_image else 0,
        })  # fmt: skip

    def _on_speaking(self, message: Speaking) -> None:
        states = {name: bool(getattr(message, name)) for name in ("robot", "user", "muted", "asleep")}
        self._tell({"kind": "speaking", **states})

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        ours = f"{self._node.get_namespace().rstrip('/')}/"
        for status in message.status:
            node, _, part = status.name.partition(": ")
            if node.startswith(ours) and "/" not in node.removeprefix(ours):
                self._tell({
                    "kind": "diagnostics", "name": f"{node.removeprefix(ours)} {part}",
                    "level": int.from_bytes(status.level, "little"), "words": status.message,
                    "values": {pair.key: pair.value for pair in status.values},
                })  # fmt: skip
