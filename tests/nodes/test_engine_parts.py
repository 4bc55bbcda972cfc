"""What the engine is made of, without a model: the sound queue, the picture slot, messages of any type."""

from __future__ import annotations

import os
import time
from array import array
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from robot import FRAME
from std_msgs.msg import Float32MultiArray, Int16MultiArray, UInt8MultiArray

from moshivis_ros.audio.framing import AudioInput
from moshivis_ros.engine.audio_queue import AudioQueue
from moshivis_ros.engine.picture_slot import PictureSlot
from moshivis_ros.errors import AudioError, ConfigError
from moshivis_ros.nodes.messages import AudioReader, interface_type, to_audio, to_nanoseconds, to_time

NOW = 1_700_000_000_123_456_789


def sound(level: int) -> bytes:
    return np.full(1920, level, np.int16).tobytes()


def put(queue: AudioQueue, n: int, level: int, **fields: Any) -> None:
    """Frame n, which comes when its last sample is over."""
    queue.put(sound(level), now=NOW + (n + 1) * FRAME, stamp=NOW + n * FRAME, **fields)


def test_sound_comes_out_in_order_with_its_stamps() -> None:
    queue = AudioQueue(max_backlog=6, simulated=True)
    queue.start(NOW)
    for n in range(3):
        put(queue, n, level=100 * n, index=n)
    for n in range(3):
        stamp, samples = queue.get()
        assert stamp == NOW + n * FRAME and samples.shape == (1920,) and samples.dtype == np.float32
        assert (samples == np.float32(100 * n / 32768)).all()


def test_the_oldest_sound_is_dropped_and_counted() -> None:
    queue = AudioQueue(max_backlog=2, simulated=True)
    queue.start(NOW)
    for n in range(6):
        put(queue, n, level=100, index=n)
    assert [queue.get()[0] for _ in range(2)] == [NOW + 3 * FRAME, NOW + 4 * FRAME]
    assert queue.counts["frames dropped (too slow)"] == 3


def test_silence_takes_the_place_of_missing_sound_and_its_stamps_go_on() -> None:
    queue = AudioQueue(max_backlog=6)
    queue.start(NOW)
    begin = time.monotonic()
    stamps = []
    for _ in range(3):
        stamp, samples = queue.get()
        stamps.append(stamp)
        assert not samples.any()
    assert stamps == [NOW, NOW + FRAME, NOW + 2 * FRAME]
    assert time.monotonic() - begin > 0.31  # 160 ms, then every 80 ms: never ahead of the clock
    put(queue, 10, level=1)
    stamp, samples = queue.get()
    assert stamp == NOW + 10 * FRAME and samples.all()
    assert queue.counts["frames of silence (no audio)"] == 3


def test_a_start_forgets_what_waits_and_bad_sound_raises() -> None:
    queue = AudioQueue(max_backlog=6)
    put(queue, 0, level=1)
    queue.start(NOW + FRAME)
    assert not queue.get()[1].any()
    with pytest.raises(AudioError):
        queue.put(b"odd", now=NOW, stamp=NOW)
    assert queue.counts["audio messages refused"] == 1


def test_what_was_said_before_a_start_is_not_lost() -> None:
    """The microphone went on while nobody listened: neither counted, nor made up for by silence, nor half kept."""
    queue = AudioQueue(max_backlog=6, simulated=True)
    queue.put(sound(1)[:2000], now=NOW, stamp=NOW - FRAME, index=0)
    queue.start(NOW + 30 * FRAME)
    put(queue, 40, level=2, index=40)
    queue.tick(NOW + 41 * FRAME)
    while not (taken := queue.get())[1].any():
        pass
    assert taken[0] == NOW + 40 * FRAME and (taken[1] == np.float32(2 / 32768)).all()
    assert queue.counts["audio messages lost"] == 0
    put(queue, 42, level=3, index=42)
    assert queue.counts["audio messages lost"] == 1


def test_what_waits_when_a_simulated_clock_jumps_is_dropped_and_counted() -> None:
    queue = AudioQueue(max_backlog=6, simulated=True)
    queue.start(NOW)
    put(queue, 0, level=1)
    put(queue, 1, level=1)
    queue.jump(NOW - 1000 * FRAME)
    queue.tick(NOW - 997 * FRAME)
    stamp, samples = queue.get()
    assert stamp == NOW - 1000 * FRAME and not samples.any()
    assert queue.counts["frames dropped (clock jumped)"] == 2


def test_a_look_at_a_fast_clock_that_comes_late_loses_no_sound() -> None:
    queue = AudioQueue(max_backlog=100, simulated=True)
    queue.start(NOW)
    put(queue, 0, level=1)
    put(queue, 1, level=2)
    queue.tick(NOW + 60 * FRAME)
    assert [round(queue.get()[1][0] * 32768) for _ in range(2)] == [1, 2]
    assert queue.counts["frames dropped (clock jumped)"] == 0


def test_the_newest_picture_wins() -> None:
    slot = PictureSlot()
    assert slot.take() is None
    for n in range(3):
        slot.put({"stamp": n}, memoryview(bytes([n]) * 1000))
    assert slot.newest() == slot.take() == ({"stamp": 2}, bytearray([2]) * 1000)
    assert slot.take() is None
    slot.put({"stamp": 3}, memoryview(b""))  # an empty picture is one, too: it will be refused by name
    assert slot.take() == ({"stamp": 3}, bytearray())
    slot.put({"stamp": 4}, memoryview(bytes(1000)))
    with pytest.raises(TypeError):  # as if the process died in the middle
        slot.put({"stamp": 5}, SimpleNamespace(nbytes=1000))  # type: ignore[arg-type]
    assert slot.take() is None, "no mixture of two"
    slot.close()


def test_pictures_cross_processes_whole() -> None:
    """Sizes and contents change all the time; the reader must never see a mixture, or an older picture again."""
    slot = PictureSlot()
    pid = os.fork()
    if not pid:
        seen, last = PictureSlot(slot.descriptor), -1
        while last < 299:
            entry = seen.take()
            if entry is not None:
                (fields, data), last_seen = entry, last
                last = fields["n"]
                if last <= last_seen or data != bytearray([last % 251]) * fields["size"]:
                    os._exit(1)
        os._exit(0)
    for n in range(300):
        size = 1_000_000 if n % 3 else 1000 * n
        slot.put({"n": n, "size": size}, memoryview(bytes([n % 251]) * size))
    assert os.waitpid(pid, 0)[1] == 0
    slot.close()


def test_stamps_survive_both_ways() -> None:
    assert to_nanoseconds(to_time(NOW)) == NOW


def test_our_own_messages_are_read_as_they_are() -> None:
    reader = AudioReader("moshivis_ros/msg/Audio", 16000, 1)
    samples = np.arange(6, dtype=np.int16).tobytes()
    data, fields = reader.read(to_audio(samples, 7, NOW, sample_rate=48000, channels=2), now=1)
    assert data == samples
    assert fields == {"sample_rate": 48000, "channels": 2, "sample_format": "int16", "index": 7, "stamp": NOW}


@pytest.mark.parametrize(
    ("message", "sample_format", "data"),
    [
        (Int16MultiArray(data=array("h", [1, -1])), "int16", b"\1\0\xff\xff"),
        (Float32MultiArray(data=array("f", [1.0])), "float32", b"\0\0\x80\x3f"),
        (UInt8MultiArray(data=array("B", b"\1\2")), "int16", b"\1\2"),  # bytes of 16 bit PCM
    ],
)
def test_other_messages_take_rate_and_stamp_from_the_parameters(
    message: object, sample_format: str, data: bytes
) -> None:
    reader = AudioReader(f"std_msgs/msg/{type(message).__name__}", 16000, 2)
    expected = {
        "sample_rate": 16000,
        "channels": 2,
        "sample_format": sample_format,
        "index": None,
        "stamp": NOW,
    }
    assert reader.read(message, NOW) == (data, expected)


class _Type:
    """A message type as rosidl generates it."""

    fields: dict[str, str]

    def __init__(self, **values: object) -> None:
        self.__dict__.update(values)

    @classmethod
    def get_fields_and_field_types(cls) -> dict[str, str]:
        return cls.fields


def test_several_arrays_deep_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shape of audio_common_msgs/AudioStamped: whichever array is filled is the sound."""
    from moshivis_ros.nodes import messages

    class AudioData(_Type):
        fields = {
            "float32_data": "sequence<float>",
            "int24_data": "sequence<int32>",
            "int16_data": "sequence<int16>",
        }

    class AudioInfo(_Type):
        fields = {"format": "uint16", "channels": "uint16", "rate": "uint16", "chunk": "uint16"}

    class Sound(_Type):
        fields = {"audio_data": "x_msgs/AudioData", "info": "x_msgs/AudioInfo"}

    class AudioStamped(_Type):
        fields = {"header": "std_msgs/Header", "audio": "x_msgs/Sound"}

    types = {f"x_msgs/msg/{kind.__name__}": kind for kind in (AudioData, AudioInfo, Sound, AudioStamped)}
    monkeypatch.setattr(messages, "interface_type", types.__getitem__)
    reader = AudioReader("x_msgs/msg/AudioStamped", 1, 1)
    header = to_audio(b"", 0, NOW).header
    empty = {"float32_data": array("f"), "int24_data": array("i"), "int16_data": array("h")}
    for filled, name, sample_format in (
        (array("h", [5]), "int16_data", "int16"),
        (array("f", [5]), "float32_data", "float32"),
    ):
        data = AudioData(**{**empty, name: filled})
        message = AudioStamped(
            header=header, audio=Sound(audio_data=data, info=AudioInfo(channels=1, rate=44100))
        )
        expected = {
            "sample_rate": 44100,
            "channels": 1,
            "sample_format": sample_format,
            "index": None,
            "stamp": NOW,
        }
        assert reader.read(message, 1) == (filled.tobytes(), expected)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Audio", "package/msg/Name"),
        ("std_msgs/Header", "package/msg/Name"),
        ("no_such_msgs/msg/Audio", "no_such_msgs"),
        ("std_msgs/msg/NoSuch", "std_msgs/msg/NoSuch"),
    ],
)
def test_types_that_are_not_there(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        interface_type(name)


def test_a_type_without_samples_is_refused() -> None:
    with pytest.raises(ConfigError, match="no array of samples"):
        AudioReader("std_msgs/msg/String", 16000, 1)


def test_compressed_bytes_are_named_and_so_is_what_follows() -> None:
    """The middle of a compressed stream looks like any bytes; after two seconds without any it may be another one."""
    reader = AudioReader("std_msgs/msg/UInt8MultiArray", 16000, 1)

    def heard(data: bytes, seconds: float) -> str:
        message = UInt8MultiArray(data=array("B", data))
        return str(reader.read(message, NOW + round(seconds * 1e9))[1]["sample_format"])

    page = b"OggS" + bytes(100)
    samples = bytes(range(200))
    assert [heard(samples, 0), heard(page, 1), heard(samples, 2), heard(samples, 3.9)] == ["int16"] + ["Ogg data"] * 3
    assert heard(samples, 6) == "int16"
    with pytest.raises(AudioError, match="this is Ogg data, not samples: let its publisher send wave samples"):
        AudioInput().push(page, sample_format=heard(page, 7))


def test_samples_of_two_bytes_are_never_taken_for_a_stream() -> None:
    reader = AudioReader("std_msgs/msg/Int16MultiArray", 16000, 1)
    message = Int16MultiArray(data=array("h", b"OggS" + bytes(100)))
    assert reader.read(message, NOW)[1]["sample_format"] == "int16"
