"""What a bag tells of a conversation: its sound as one recording, its words, what was seen, decided and measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from moshivis_ros.audio import Float
from moshivis_ros.audio.framing import AudioInput
from moshivis_ros.audio.mix import Mix
from moshivis_ros.errors import AudioError
from moshivis_ros.recording.bag import Entry, read_bag

ROBOT, USER = 0, 1  # sides of the sound
SIDES = {"audio_out": ROBOT, "audio_in": USER}
SPEAKERS = {"transcript": "robot", "user_transcript": "user"}
PICTURES = "image/compressed"


@dataclass(frozen=True)
class Said:
    """A piece as it came, or (`whole`) an utterance. Seconds of the recording; gate 0..1."""

    speaker: str
    start: float
    end: float
    text: str
    gate: float
    whole: bool


@dataclass(frozen=True)
class Seen:
    """A message about the image cache, `time` seconds into the recording; `picture`: the stamp of what is in it."""

    time: float
    decision: str
    reason: str
    distance: float
    age: float
    encode_ms: float
    refreshes: int
    picture: int | None


@dataclass
class Recorded:
    """Times are seconds since the first sound of the robot (of a recording without any: since its first message)."""

    seconds: float = 0.0
    said: list[Said] = field(default_factory=list)
    gates: list[tuple[float, float]] = field(default_factory=list)  # normalised, every 80 ms
    levels: list[tuple[int, float, float]] = field(default_factory=list)  # side, time, RMS of a frame 0..1
    seen: list[Seen] = field(default_factory=list)
    pictures: dict[int, bytes] = field(default_factory=dict)  # JPEG or PNG, by stamp
    health: list[tuple[float, str, int, str, dict[str, str]]] = field(default_factory=list)  # /diagnostics
    parameters: dict[str, Any] = field(default_factory=dict)  # of the node talk
    notes: list[str] = field(default_factory=list)  # what could not be understood, in words
    has_sound: bool = False
    time_of: Callable[[int], float] = float  # nanoseconds of the recording's clock -> its seconds

    @property
    def refreshes(self) -> list[Seen]:
        """Each new picture in the cache, when it was told, and the reason for which it had been taken."""
        told, why, news = None, "", []
        for seen in self.seen:
            if seen.decision == "refresh":
                why = seen.reason
            if seen.picture is not None and seen.picture != told:
                news.append(replace(seen, reason=why or seen.reason))
                why = ""
                told = seen.picture
        return news

    def pieces_of(self, whole: Said) -> list[tuple[float, str, float]]:
        """(time, text, gate) of what an utterance was said in, or of all of it where that is not recorded, and of the user's,
        whose parts are guesses that the next replaces.
        """
        pieces = [
            (said.start, said.text, said.gate)
            for said in self.said
            if not said.whole and said.speaker == whole.speaker == "robot" and whole.start - 1e-3 <= said.start < whole.end
        ]
        return pieces or [(whole.start, whole.text, whole.gate)]

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """As transcript.Transcript.to_json() writes it, of the robot; what the user said beside it, where it is known."""
        robot = [said for said in self.said if said.speaker == "robot"]
        user = [said for said in self.said if said.speaker == "user" and said.whole]
        return {
            "pieces": [{"time": s.start, "text": s.text, "gate": s.gate} for s in robot if not s.whole],
            "utterances": _utterances([s for s in robot if s.whole]),
            "refreshes": [{"time": seen.time, "reason": seen.reason} for seen in self.refreshes],
            **({"user": _utterances(user)} if user else {}),
        }


def _utterances(said: list[Said]) -> list[dict[str, Any]]:
    return [{"start": s.start, "end": s.end, "text": s.text, "gate": s.gate} for s in said]


def follow(path: str | Path, recorded: Recorded) -> Iterator[Float]:
    """Read a bag into `recorded`, and yield its sound on the way: float32 [n, 2], left the robot, right the user; about a
    second each. Raises RecordingError.
    """
    reader = _Reader(recorded)
    for entry in read_bag(path):
        yield from reader.take(entry)
    yield from reader.end()


def load(path: str | Path) -> Recorded:
    """All but the sound. Raises RecordingError."""
    recorded = Recorded()
    for _ in follow(path, recorded):
        pass
    return recorded


class _Reader:
    """Times are known when the sound has begun: until the end they are kept in nanoseconds beside what they belong to."""

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded
        self._mix = Mix(sides=2)
        self._inputs = AudioInput(), AudioInput()
        self._first: int | None = None  # when the first message was written down
        self._newest = 0  # stamp of what is told
        self._activation = 0  # the robot's utterances count their seconds from there
        self._waiting: list[Callable[[], None]] = []

    def take(self, entry: Entry) -> Iterator[Float]:
        self._first = entry.time if self._first is None else self._first
        role = entry.role
        if role in SIDES:
            yield from self._hear(SIDES[role], entry.message)
        elif role in SPEAKERS:
            self._say(role, entry.message)
        elif role == "gate":
            looked = entry.message
            self._at(_stamp(looked), self._recorded.gates, lambda t: (t, float(looked.normalised)))
        elif role == "image_cache":
            self._see(entry.message, entry.time)
        elif entry.topic.endswith(PICTURES) or role == PICTURES:
            picture = entry.message
            self._recorded.pictures[_stamp(picture)] = bytes(picture.data)
        elif role == "diagnostics":
            self._diagnose(entry.message)
        elif role == "parameters":
            (self._recorded.parameters,) = (
                node["ros__parameters"] for node in yaml.safe_load(entry.message.data).values()
            )

    def end(self) -> Iterator[Float]:
        yield from self._mix.rest()
        ends = [end for side in (ROBOT, USER) if (end := self._mix.end(side)) is not None]
        recorded = self._recorded
        recorded.has_sound = self._mix.begun
        if self._mix.late:
            recorded.notes.append(f"{self._mix.late / 24000:.1f} s of sound came too late and are left out")
        recorded.time_of = self._seconds
        for note in self._waiting:
            note()
        recorded.seconds = max([self._seconds(end) for end in ends] + [s.time for s in recorded.seen] + [0.0])

    def _seconds(self, stamp: int) -> float:
        seconds = self._mix.seconds(stamp) if self._mix.begun else (stamp - (self._first or 0)) / 1e9
        return round(seconds, 3)

    def _at(self, stamp: int, column: list[Any], row: Callable[[float], Any]) -> None:
        self._waiting.append(lambda: column.append(row(self._seconds(stamp))))

    def _hear(self, side: int, message: Any) -> Iterator[Float]:
        stamp = _stamp(message)
        try:
            frames = self._inputs[side].push(
                message.data.astype("<i2").tobytes(), sample_rate=message.sample_rate,
                channels=message.channels, index=message.index, stamp=stamp,
            )  # fmt: skip
        except AudioError as error:
            if (note := f"not sound: {error}") not in self._recorded.notes:
                self._recorded.notes.append(note)
            return
        for at, frame in frames:
            level = float(np.sqrt(np.mean(frame**2)))
            self._at(at, self._recorded.levels, lambda t, level=level: (side, t, level))  # type: ignore[misc]
            yield from self._mix.add(side, at, frame)

    def _say(self, role: str, message: Any) -> None:
        stamp = _stamp(message)
        if SPEAKERS[role] == "user":  # whose stamp is the end of the speech
            start, end = stamp - round((message.end - message.start) * 1e9), stamp
        elif message.final:
            start, end = (self._activation + round(seconds * 1e9) for seconds in (message.start, message.end))
        else:
            self._activation = stamp - round(message.start * 1e9)
            start, end = stamp, stamp + round((message.end - message.start) * 1e9)

        def row(time: float) -> Said:
            until = self._seconds(end)
            return Said(
                SPEAKERS[role], time, until, message.text, round(float(message.gate), 4), bool(message.final)
            )

        self._at(start, self._recorded.said, row)

    def _see(self, message: Any, written: int) -> None:
        """It is told after the frame whose sound came last."""
        time = self._mix.end(ROBOT)
        picture = _stamp(message) if message.has_image else None
        self._at(written if time is None else time, self._recorded.seen, lambda t: Seen(
            t, message.decision, message.reason, float(message.distance), float(message.age),
            float(message.encode_ms), int(message.refreshes), picture,
        ))  # fmt: skip

    def _diagnose(self, message: Any) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            level = (
                int.from_bytes(status.level, "little")
                if isinstance(status.level, bytes)
                else int(status.level)
            )
            row = (status.name, level, status.message, values)
            self._at(_stamp(message), self._recorded.health, lambda t, row=row: (t, *row))  # type: ignore[misc]


def _stamp(message: Any) -> int:
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)
