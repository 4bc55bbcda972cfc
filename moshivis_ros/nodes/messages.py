"""Between ROS messages and the plain values of the engine."""

from __future__ import annotations

import importlib
from array import array
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

from builtin_interfaces.msg import Time

from moshivis_ros.audio import SAMPLE_RATE
from moshivis_ros.audio.compressed import compressed
from moshivis_ros.errors import ConfigError
from moshivis_ros.msg import Audio

# Arrays that may hold sound, as a message declares them -> sample formats of audio.pcm.
_ARRAYS = {
    "sequence<int16>": "int16",
    "sequence<int32>": "int32",
    "sequence<float>": "float32",
    "sequence<int8>": "int8",
    "sequence<uint8>": "uint8",
}
_BYTES = ("sequence<int8>", "sequence<uint8>")
PAUSE = 2_000_000_000  # nanoseconds after which a stream of bytes may be another one
_RATES = ("sample_rate", "rate")


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


def message_type(name: str) -> Any:
    """The class of a message such as "std_msgs/msg/Int16MultiArray". Raises ConfigError if it is not
    installed.
    """
    parts = name.split("/")
    if len(parts) != 3 or parts[1] != "msg":
        raise ConfigError(f"{name!r} is not a message type; write it as package/msg/Name")
    try:
        return getattr(importlib.import_module(f"{parts[0]}.msg"), parts[2])
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"there is no message type {name}: install or build the package {parts[0]!r}"
        ) from error


class AudioReader:
    """Reads sound out of messages of any type that holds an array of samples, found by looking at its fields.

    Used where a message has them: a header, an `index`, a rate (`sample_rate`, `rate`) and `channels`, at any
    depth. The first array that is not empty is taken. A message whose only array is uint8[] holds bytes of 16
    bit PCM. `sample_rate` and `channels` are for types without such fields. Raises ConfigError for a type
    without samples.

    Bytes that are a file or a compressed stream get its name as their format, which AudioInput refuses; so do those
    that follow, because the middle of a stream looks like any bytes, until none have come for 2 seconds.
    """

    def __init__(self, type_name: str, sample_rate: int, channels: int) -> None:
        self.type = message_type(type_name)
        fields = dict(_fields(self.type))
        arrays = {
            path: _ARRAYS[kind] for path, kind in fields.items() if kind in _ARRAYS and "int24" not in path
        }
        if not arrays:
            raise ConfigError(
                f"{type_name} has no array of samples (int16[], float32[], uint8[], ...); its fields are "
                f"{', '.join(fields)}"
            )
        self._bytes = any(fields[path] in _BYTES for path in arrays)
        self._stream = ""  # the name of the compressed stream that these messages are
        self._last = 0  # nanoseconds: when bytes came last
        if list(arrays.values()) == ["uint8"]:
            arrays = dict.fromkeys(arrays, "int16")
        self._arrays = [(attrgetter(path), sample_format) for path, sample_format in arrays.items()]
        self._header = self._getter(fields, "header")
        self._index = self._getter(fields, "index")
        self._rate = self._getter(fields, *_RATES) or (lambda _: sample_rate)
        self._channels = self._getter(fields, "channels") or (lambda _: channels)

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
        paths = [path for path in fields if path.rsplit(".", 1)[-1] in names]
        return attrgetter(paths[0]) if paths else None


def _fields(kind: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(path, type) of every field; messages inside messages are entered, except headers."""
    for name, field in kind.get_fields_and_field_types().items():
        yield prefix + name, field
        if field.count("/") == 1 and "<" not in field and "[" not in field and field != "std_msgs/Header":
            yield from _fields(message_type(field.replace("/", "/msg/")), f"{prefix}{name}.")
