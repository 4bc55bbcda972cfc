"""A recorded conversation, made without ROS: what a recorder writes about a question and its answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from moshivis_ros.audio import files
from moshivis_ros.audio.pcm import encode
from moshivis_ros.recording.bag import BagWriter, Kind

ROOT = Path(__file__).parents[1]
FRAME = 80_000_000  # nanoseconds
START = 1_700_000_000_000_000_000


class Recording:
    """Writes messages by their fields."""

    def __init__(self, folder: Path) -> None:
        self.bag = BagWriter(folder, 1e9, 1e9)
        self._store = get_typestore(Stores.ROS2_HUMBLE)
        for file in sorted((ROOT / "msg").glob("*.msg")):
            self._store.register(get_types_from_msg(file.read_text(), f"moshivis_ros/msg/{file.stem}"))

    def write(self, role: str, kind: str, time: int, stamp: int | None = None, **fields: Any) -> None:
        if stamp is not None:
            fields["header"] = self.make("std_msgs/msg/Header", stamp=self.time(stamp), frame_id="")
        definition, _ = self._store.generate_msgdef(kind)
        data = bytes(self._store.serialize_cdr(self.make(kind, **fields), kind))
        self.bag.write(role, f"/{role}", Kind(kind, definition), time, data)

    def make(self, kind: str, **fields: Any) -> Any:
        return self._store.types[kind](**fields)

    def time(self, nanoseconds: int) -> Any:
        sec, nanosec = divmod(nanoseconds, 1_000_000_000)
        return self.make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)


def question(folder: Path, seconds: float = 6.0) -> Path:
    """The robot is shown a green ball, asked for its colour 0.8 s later, and says " It is red." at 3.2 s."""
    recording = Recording(folder)
    sound = encode(np.concatenate([np.zeros(19200, np.float32), files.read(ROOT / "media/question.wav")]))
    picture = np.frombuffer((ROOT / "media/scene_b.jpg").read_bytes(), np.uint8)
    text = "/talk:\n  ros__parameters: {model: builtin, refresh_policy: gating, refresh_change_distance: 0.11, seed: -1}\n"
    recording.write("parameters", "std_msgs/msg/String", START, data=text)
    for n in range(round(seconds / 0.08)):
        at = START + n * FRAME
        part = np.zeros(1920, np.int16)
        heard = sound[n * 1920 : (n + 1) * 1920]
        part[: heard.size] = heard
        audio = {"index": n, "sample_rate": 24000, "channels": 1, "flush": False}
        recording.write("audio_in", "moshivis_ros/msg/Audio", at, at, data=part, **audio)
        voice = np.full(1920, 8000 if 40 <= n < 50 else 0, np.int16)
        recording.write("audio_out", "moshivis_ros/msg/Audio", at, at, data=voice, **audio)
        looked = {"frame": n, "value": 0.1, "normalised": 0.9 if 40 <= n < 50 else 0.0}
        recording.write("gate", "moshivis_ros/msg/Gate", at, at, per_layer=np.zeros(0, np.float32), **looked)
        if n % 3 == 0:
            recording.write(
                "image/compressed", "sensor_msgs/msg/CompressedImage", at, at, format="jpeg", data=picture
            )
        if n % 12 == 1:
            recording.write(
                "image_cache", "moshivis_ros/msg/ImageCacheStatus", at, START, decision="refresh" if n == 1 else "keep",
                reason="first picture" if n == 1 else "unchanged", distance=0.0, age=n * 0.08, encode_ms=8.0,
                refreshes=1, has_image=True,
            )  # fmt: skip
    for final, begin, end, words in ((False, 3.2, 3.28, " It is"), (False, 3.36, 3.44, " <red>."), (True, 3.2, 3.44, "It is <red>.")):
        said = {"utterance": 0, "text": words, "final": final, "gate": 0.9, "start": begin, "end": end}
        said |= {"speaker": "robot", "confidence": 1.0}
        at = START + round(begin * 1e9)
        recording.write("transcript", "moshivis_ros/msg/Transcript", START + 10**10, at, **said)
    for words, final in (("what color", False), ("what colour is the ball", True)):
        said = {"utterance": 0, "text": words, "final": final, "gate": 0.0, "start": 100.8, "end": 102.3}  # of another clock
        said |= {"speaker": "user", "confidence": 0.5}
        stamp = START + 2_300_000_000
        recording.write("user_transcript", "moshivis_ros/msg/Transcript", START + 10**10, stamp, **said)
    recording.bag.close()
    return folder
