"""Between ROS messages and the plain values of the engine."""

from __future__ import annotations

import importlib
from array import array
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.node import Node

from moshivis_ros.audio import SAMPLE_RATE, Int16
from moshivis_ros.audio.compressed import compressed
from moshivis_ros.errors import ConfigError
from moshivis_ros.msg import Audio
from moshivis_ros.nodes.interface import Parameter

AUDIO = "moshivis_ros/msg/Audio"

# Arrays that may hold sound, as a message declares them -> sample formats of audio.pcm.
_ARRAYS = {
    "sequence<int16>": "int16",
    "sequence<int32>": "int32",
    "sequence<float>": "float32",
    "sequence<int8>": "int8",
    "sequence<uint8>": "uint8",
}
# Sample formats as they are written, the best first -> type code of array.array, PortAudio's number for it.
_WRITTEN = {
    "int16": ("h", 8),
    "bytes": ("B", 8),
    "float32": ("f", 1),
    "int32": ("i", 2),
    "int8": ("b", 16),
    "uint8": ("B", 32),
}
_BYTES = ("sequence<int8>", "sequence<uint8>")
PAUSE = 2_000_000_000  # nanoseconds after which a stream of bytes may be another one
_RATES = ("sample_rate", "rate")


def sound_parameters(topic: str, *, written: bool = False) -> list[Parameter]:
    """What may be chosen about the messages of a topic of sound that a node reads, or writes."""
    kind = Parameter(
        f"{topic}_type",
        AUDIO,
        f"messages on {topic}: any type with an array of samples, such as audio_common_msgs/msg/AudioStamped",
    )
    if written:
        return [kind]
    return [
        kind,
        Parameter(f"{topic}_rate", 16000, "Hz, for a type of message that does not say its rate", (1000, 384000)),
        Parameter(f"{topic}_channels", 1, "for a type of message that does not say its channels", (1, 64)),
    ]


def to_nanoseconds(stamp: Time) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def to_time(nanoseconds: int) -> Time:
    sec, nanosec = divmod(nanoseconds, 1_000_000_000)
    return Time(sec=sec, nanosec=nanosec)


def to_audio(
    samples: bytes, index: int, stamp: int, sample_rate: int = SAMPLE_RATE, channels: int = 1
) -> Audio:
    """int16 samples, interleaved -> a message. `stamp`: nanoseconds, of the first sample."""
    message = Audio(index=index, sample_rate=sample_rate, channels=channels)
    message.header.stamp = to_time(stamp)
    message.data = array("h", samples)  # anything but an array.array is checked number by number: 20 ms
    return message


def interface_type(name: str, kind: str = "msg") -> Any:
    """The class of a message, service or action such as "std_msgs/msg/Int16MultiArray"; `kind`: msg, srv or action. Raises
    ConfigError if it is not installed.
    """
    parts = name.split("/")
    what = {"msg": "message", "srv": "service", "action": "action"}[kind]
    if len(parts) != 3 or parts[1] != kind:
        raise ConfigError(f"{name!r} is not a {what} type; write it as package/{kind}/Name")
    try:
        return getattr(importlib.import_module(f"{parts[0]}.{kind}"), parts[2])
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"there is no {what} type {name}: install or build the package {parts[0]!r}") from error


class AudioReader:
    """Reads sound out of messages of any type that holds an array of samples, found by looking at its fields.

    Used where a message has them: a header, an `index`, a rate (`sample_rate`, `rate`) and `channels`, at any
    depth. The first array that is not empty is taken. A message whose only array is uint8[] holds bytes of 16
    bit PCM. `sample_rate` and `channels` are for types without such fields. Raises ConfigError for a type
    without samples.

    Bytes that are a file or a compressed stream get its name as their format, which AudioInput refuses; so do those
    that follow, because the middle of a stream looks like any bytes, until none have come for 2 seconds.
    """

    def __init__(self, type_name: str, sample_rate: int = SAMPLE_RATE, channels: int = 1) -> None:
        self.type = interface_type(type_name)
        fields = dict(_fields(self.type))
        arrays = _arrays(fields, type_name)
        self._bytes = any(fields[path] in _BYTES for path in arrays)
        self._stream = ""  # the name of the compressed stream that these messages are
        self._last = 0  # nanoseconds: when bytes came last
        self._arrays = [
            (attrgetter(path), "int16" if sample_format == "bytes" else sample_format)
            for path, sample_format in arrays.items()
        ]
        self._header = self._getter(fields, "header")
        self._index = self._getter(fields, "index")
        self._rate = self._getter(fields, *_RATES) or (lambda _: sample_rate)
        self._channels = self._getter(fields, "channels") or (lambda _: channels)

    @classmethod
    def of(cls, node: Node, topic: str) -> AudioReader:
        """As the sound_parameters() of this topic say. Raises ConfigError."""
        return cls(*(node.get_parameter(f"{topic}_{what}").value for what in ("type", "rate", "channels")))

    def read(self, message: Any, now: int) -> tuple[bytes, dict[str, Any]]:
        """A message -> the arguments of AudioInput.push(). `now` (ns) is its stamp where it brings none."""
        filled = (entry for entry in self._arrays if len(entry[0](message)))
        samples, sample_format = next(filled, self._arrays[0])
        stamp = to_nanoseconds(self._header(message).stamp) if self._header else 0
        data = samples(message).tobytes()
        if self._bytes:
            sample_format = self._compressed(data, now) or sample_format
        return data, {
            "sample_rate": self._rate(message),
            "channels": self._channels(message),
            "sample_format": sample_format,
            "index": self._index(message) if self._index else None,
            "stamp": stamp or now,
        }

    def frame_id(self, message: Any) -> str:
        """Of its header; empty where it has none."""
        return str(self._header(message).frame_id) if self._header else ""

    def _compressed(self, data: bytes, now: int) -> str:
        if now - self._last > PAUSE:
            self._stream = ""
        self._last = now
        name, certain = compressed(data)
        if certain:
            self._stream = name
        return name or self._stream

    @staticmethod
    def _getter(fields: dict[str, str], *names: str) -> Any:
        path = _path(fields, *names)
        return attrgetter(path) if path else None


class AudioWriter:
    """Writes sound into messages of any type that AudioReader reads.

    Samples go into the best array there is: int16[], else float32[], int32[], int8[]; into bytes of 16 bit PCM
    where the only array is uint8[]. Filled where the type has them: a header, `index`, the rate, `channels`,
    `format` (PortAudio's number) and `chunk` (samples of a channel). Raises ConfigError for a type without samples.
    """

    def __init__(self, type_name: str) -> None:
        self.type = interface_type(type_name)
        fields = dict(_fields(self.type))
        arrays = _arrays(fields, type_name)
        self._array, self._format = min(arrays.items(), key=lambda item: list(_WRITTEN).index(item[1]))
        self._header = _path(fields, "header")
        known = {"sample_rate": _RATES} | {key: (key,) for key in ("index", "channels", "format", "chunk")}
        self._numbers = {key: path for key, names in known.items() if (path := _path(fields, *names))}

    def write(
        self,
        samples: bytes,
        index: int,
        stamp: int,
        sample_rate: int = SAMPLE_RATE,
        channels: int = 1,
        frame_id: str = "",
    ) -> Any:
        """int16 samples, interleaved -> a message. `stamp`: nanoseconds, of the first sample."""
        message = self.type()
        code, number = _WRITTEN[self._format]
        # Anything but an array.array is checked number by number: 20 ms.
        _set(message, self._array, array(code, _converted(samples, self._format)))
        values = {
            "index": index,
            "sample_rate": sample_rate,
            "channels": channels,
            "format": number,
            "chunk": len(samples) // 2 // channels,
        }
        for key, path in self._numbers.items():
            _set(message, path, values[key])
        if self._header:
            header = attrgetter(self._header)(message)
            header.stamp, header.frame_id = to_time(stamp), frame_id
        return message


def _converted(samples: bytes, sample_format: str) -> bytes:
    """int16 samples in another format."""
    whole: Int16 = np.frombuffer(samples, np.int16)
    if sample_format == "float32":
        return (whole / np.float32(32768)).tobytes()
    if sample_format == "int32":
        return (whole.astype(np.int32) << 16).tobytes()
    if sample_format in ("int8", "uint8"):
        return ((whole >> 8) + (128 if sample_format == "uint8" else 0)).astype(sample_format).tobytes()
    return samples


def _set(message: Any, path: str, value: Any) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        message = getattr(message, parent)
    setattr(message, name, value)


def _arrays(fields: dict[str, str], type_name: str) -> dict[str, str]:
    """Where samples may be -> their format; "bytes" of 16 bit PCM where there is only a uint8[]."""
    arrays = {path: _ARRAYS[kind] for path, kind in fields.items() if kind in _ARRAYS and "int24" not in path}
    if not arrays:
        raise ConfigError(
            f"{type_name} has no array of samples (int16[], float32[], uint8[], ...); its fields are "
            f"{', '.join(fields)}"
        )
    return dict.fromkeys(arrays, "bytes") if list(arrays.values()) == ["uint8"] else arrays


def _path(fields: dict[str, str], *names: str) -> str | None:
    """Where the header, or a whole number of one of these names is."""
    kinds = ("int", "uint", "std_msgs/Header")
    return next(
        (path for path, kind in fields.items() if path.split(".")[-1] in names and kind.startswith(kinds)), None
    )


def _fields(kind: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(path, type) of every field; messages inside messages are entered, except headers."""
    for name, field in kind.get_fields_and_field_types().items():
        yield prefix + name, field
        if field.count("/") == 1 and "<" not in field and "[" not in field and field != "std_msgs/Header":
            yield from _fields(interface_type(field.replace("/", "/msg/")), f"{prefix}{name}.")
