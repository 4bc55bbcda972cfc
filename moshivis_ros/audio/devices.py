"""Microphone and loudspeaker on PortAudio (sounddevice).

PortAudio's callback runs in its own thread and only moves bytes between its buffer and a bounded queue; whoever reads
too slowly loses the oldest sound, counted. Times are PortAudio's own, of when the sound was in the air, as wall-clock
nanoseconds.
"""

from __future__ import annotations

import importlib
import queue
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from moshivis_ros.audio import SAMPLE_RATE, Float, Int16
from moshivis_ros.audio.pcm import encode
from moshivis_ros.audio.resample import Resampler
from moshivis_ros.errors import AudioError, MissingDependencyError

Kind = Literal["input", "output"]
BLOCKS_PER_SECOND = 50
QUEUE_SECONDS = 2.0  # how long a reader may sleep before sound is lost
STALL_SECONDS = (
    5.0  # without sound for so long, a device is gone whatever its driver says; slow ones start in 2
)
SPEAKER_SECONDS = 0.5  # the most sound a speaker holds back: more would be a slow answer
SPARE_SECONDS = 0.2  # what may wait before silence is left out, so that an answer that came in a burst is the last late one
SILENT_PEAK = 0.003  # of full scale
FADE_SECONDS = 0.01  # of what is cut off


@dataclass(frozen=True)
class Chunk:
    index: int  # consecutive from 0: a gap is a loss
    stamp: int  # time of the first sample in the air, nanoseconds since 1970
    samples: Int16  # interleaved


def list_devices(kind: Kind) -> list[str]:
    """One line for each device that can record ("input") or play ("output"): index, name, channels, rate."""
    return [
        f"{device['index']:3d}  {device['name']}  "
        f"({device[f'max_{kind}_channels']} channels, {device['default_samplerate']:.0f} Hz)"
        for device in _devices(kind)
    ]


def find_device(device: str | int | None, kind: Kind) -> int:
    """Index of a device given by a part of its name, by its index, or None or "" for the system's default.

    A name survives a reboot and a replugged USB cable, an index does not. Raises AudioError, with the list of what
    there is, for a device that is not there or a name that fits several.
    """
    devices = _devices(kind)
    wanted = "the default device" if device in (None, "") else f"{device!r}"
    if device in (None, ""):
        default = _portaudio().default.device[0 if kind == "input" else 1]
        found = [d for d in devices if d["index"] == default]
    elif str(device).isdecimal():
        found = [d for d in devices if d["index"] == int(str(device))]
    else:
        found = [d for d in devices if d["name"] == device]
        found = found or [d for d in devices if str(device).lower() in d["name"].lower()]
    if len(found) == 1:
        return int(found[0]["index"])
    role = "microphone" if kind == "input" else "loudspeaker"
    problem = f"no {role} is {wanted}" if not found else f"{len(found)} {role}s fit {wanted}"
    there_is = list_devices(kind) or ["  (there is none)"]
    raise AudioError("\n".join([f"{problem}; give a part of one name, or an index, of:", *there_is]))


class _Stream(ABC):
    """What a microphone and a speaker share: one PortAudio stream and the queue of what it heard or played."""

    _kind: Kind
    _streams: ClassVar[set[_Stream]] = set()  # all that are open

    def __init__(self, device: str | int | None, sample_rate: int | None, channels: int) -> None:
        portaudio = _portaudio()
        self._chunks: queue.Queue[Chunk] = queue.Queue(int(QUEUE_SECONDS * BLOCKS_PER_SECOND))
        self._index = 0
        self._alive = time.monotonic()
        self.channels = channels
        self.xruns = 0  # times the sound card was not served in time
        self.dropped = 0  # chunks nobody read in time
        try:
            info = portaudio.query_devices(find_device(device, self._kind))
            self.name = str(info["name"])
            self.sample_rate = int(sample_rate or info["default_samplerate"])
            stream = portaudio.RawInputStream if self._kind == "input" else portaudio.RawOutputStream
            self._stream = stream(
                samplerate=self.sample_rate,
                blocksize=self.sample_rate // BLOCKS_PER_SECOND,
                device=info["index"],
                channels=channels,
                dtype="int16",
                callback=self._callback,
            )
            self._streams.add(self)
            self._stream.start()
        except (AudioError, portaudio.PortAudioError) as error:
            self._streams.discard(self)
            if not self._streams:
                rescan()  # PortAudio looks for devices only once: the next try finds what was plugged in meanwhile
            if isinstance(error, AudioError):
                raise
            raise AudioError(
                f"cannot open {self.name!r} at {self.sample_rate} Hz with {channels} channels: {error}; "
                "is another program using it, or does it need another rate?"
            ) from error

    def read(self, timeout: float = 1.0) -> Chunk | None:
        """The next chunk, or None after `timeout` seconds. Raises AudioError once the device is gone: open it anew."""
        try:
            return self._chunks.get(timeout=timeout)
        except queue.Empty:
            if self._stream.active and time.monotonic() - self._alive < STALL_SECONDS:
                return None
            raise AudioError(f"{self.name!r} stopped; was it unplugged?") from None

    def close(self) -> None:
        if self in self._streams:
            self._streams.discard(self)
            self._stream.close(ignore_errors=True)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _callback(self, data: Any, frames: int, when: Any, status: Any) -> None:
        """What PortAudio calls with each block."""

    def _put(self, raw: bytes, seconds_ago: float) -> None:
        if not abs(seconds_ago) < QUEUE_SECONDS:
            seconds_ago = 0.0  # some drivers have no clock and say 0
        self._alive = time.monotonic()
        stamp = time.time_ns() - int(seconds_ago * 1e9)
        if self._chunks.full():
            self.dropped += 1
            self._chunks.get_nowait()
        self._chunks.put_nowait(Chunk(self._index, stamp, np.frombuffer(raw, np.int16)))
        self._index += 1


class Microphone(_Stream):
    """Records from construction to close(); read() gives what was heard, int16 of `sample_rate` and `channels`.

    sample_rate None: the device's own. Raises AudioError where the device cannot be opened.
    """

    _kind = "input"

    def __init__(
        self,
        device: str | int | None = None,
        *,
        sample_rate: int | None = None,
        channels: int = 1,
    ) -> None:
        super().__init__(device, sample_rate, channels)

    def _callback(self, data: Any, frames: int, when: Any, status: Any) -> None:
        self.xruns += bool(status.input_overflow)
        self._put(bytes(data), when.currentTime - when.inputBufferAdcTime)


class Speaker(_Stream):
    """Plays what write() gives, silence where that is late; read() gives what really left it (mono int16 of
    `sample_rate`, silence included) and when, for echo cancellation.

    sample_rate None: the device's own. Raises AudioError where the device cannot be opened.
    """

    _kind = "output"

    def __init__(self, device: str | int | None = None, *, sample_rate: int | None = None) -> None:
        self._lock = threading.Lock()
        self._waiting = bytearray()
        self._playing = False
        self._resampler: Resampler | None = None
        self._rate = 0  # of what write() got last
        self.underruns = 0  # times the sound ran out
        self.skipped = 0  # samples thrown away because more than SPEAKER_SECONDS waited
        self.left_out = 0  # samples of silence that were not played, to catch up
        super().__init__(device, sample_rate, channels=1)

    def write(self, samples: Float, sample_rate: int = SAMPLE_RATE, *, flush: bool = False) -> None:
        """Plays mono float32 [n] after what is already waiting, or, with `flush`, in its place. Returns at once."""
        if self._resampler is None or sample_rate != self._rate:
            self._resampler = Resampler(sample_rate, self.sample_rate)
            self._rate = sample_rate
        raw = encode(self._resampler(samples)).tobytes()
        limit = 2 * int(SPEAKER_SECONDS * self.sample_rate)
        silent = float(np.abs(samples).max(initial=0.0)) < SILENT_PEAK
        with self._lock:
            if flush:
                self._fade_out()
            if silent and len(self._waiting) > 2 * SPARE_SECONDS * self.sample_rate:
                self.left_out += len(raw) // 2
                return
            self._waiting += raw
            excess = max(len(self._waiting) - limit, 0)
            del self._waiting[:excess]
        self.skipped += excess // 2

    def _fade_out(self) -> None:
        size = 2 * int(FADE_SECONDS * self.sample_rate)
        rest = np.frombuffer(bytes(self._waiting[:size]), np.int16)
        self._waiting[:] = (rest * np.linspace(1, 0, rest.size)).astype(np.int16).tobytes()

    def _callback(self, data: Any, frames: int, when: Any, status: Any) -> None:
        with self._lock:
            raw = bytes(self._waiting[: len(data)])
            del self._waiting[: len(data)]
        self.xruns += bool(status.output_underflow)
        self.underruns += self._playing and len(raw) < len(data)
        self._playing = len(raw) == len(data)
        raw = raw.ljust(len(data), b"\0")
        data[:] = raw
        self._put(raw, when.currentTime - when.outputBufferDacTime)


def rescan() -> None:
    """Looks for devices anew. Ends every open stream of this process."""
    portaudio = _portaudio()
    portaudio._terminate()
    portaudio._initialize()


def _devices(kind: Kind) -> list[Any]:
    return [device for device in _portaudio().query_devices() if device[f"max_{kind}_channels"] > 0]


def _portaudio() -> Any:
    try:
        return importlib.import_module("sounddevice")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "a microphone or loudspeaker needs sounddevice: pip install sounddevice"
        ) from error
    except OSError as error:
        raise MissingDependencyError(
            "sounddevice needs the PortAudio library: apt install libportaudio2"
        ) from error
