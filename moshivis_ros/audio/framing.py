"""From messages of any size, rate and channel count to the model's frames of 1920 samples at 24 kHz."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from moshivis_ros.audio import FRAME_SIZE, SAMPLE_RATE, Float
from moshivis_ros.audio.pcm import interleaved, mono
from moshivis_ros.audio.resample import Resampler
from moshivis_ros.errors import AudioError

# A longer silence is fed by whoever paces the stream: filling it here as well would only add delay.
MAX_FILL = 0.16  # seconds
# Of a message. Up to two seconds are ordinary; what is longer is late already, and must not keep others waiting.
LONGEST = 3.0  # seconds
MOST = 7_000_000  # numbers, all channels together
MAX_LATE = 16  # messages: a larger step back means that the publisher began again


class Framer:
    """Chunks of any length in, frames of `size` samples out; what does not fill a frame waits for the next chunk."""

    def __init__(self, size: int = FRAME_SIZE) -> None:
        self._frame = np.zeros(size, np.float32)
        self.pending = 0  # samples waiting

    def push(self, samples: Float) -> list[Float]:
        """float32 [n] -> frames, each its own float32 [size]."""
        frames: list[Float] = []
        start = 0
        while start < samples.size:
            count = min(self._frame.size - self.pending, samples.size - start)
            self._frame[self.pending : self.pending + count] = samples[start : start + count]
            self.pending += count
            start += count
            if self.pending == self._frame.size:
                frames.append(self._frame.copy())
                self.pending = 0
        return frames

    def flush(self) -> list[Float]:
        """The last, incomplete frame filled up with silence; empty where nothing waits."""
        missing = -self.pending % self._frame.size
        return self.push(np.zeros(missing, np.float32))


def silence(seconds: float) -> Iterator[Float]:
    """Blocks of float32 zeros, a second each."""
    size = round(seconds * SAMPLE_RATE)
    for start in range(0, size, SAMPLE_RATE):
        yield np.zeros(min(SAMPLE_RATE, size - start), np.float32)


@dataclass
class InputCounts:
    """What happened to the sound on its way in; only ever grows."""

    lost: int = 0  # messages that never came
    repeated: int = 0  # messages that came twice or too late
    refused: int = 0  # messages that could not be read
    replaced: int = 0  # NaN or infinite samples
    cut: int = 0  # messages of which only the end was taken


class AudioInput:
    """One stream of audio messages -> stamped frames of `size` samples, 24 kHz mono. See audio.pcm for what it does
    to bad sound.

    Not thread-safe: push() belongs to one thread.
    """

    def __init__(self, size: int = FRAME_SIZE) -> None:
        self._size = size
        self.counts = InputCounts()
        self.restart()

    def restart(self) -> None:
        """Begin anew with the next message: nothing before it is missed, and no part of a frame is kept."""
        self._framer = Framer(self._size)
        self._rate: float = 0  # unknown
        self._resampler: Resampler | None = None
        self._expected: int | None = None

    def push(
        self,
        data: Any,
        *,
        sample_rate: float = SAMPLE_RATE,
        channels: int = 1,
        sample_format: str = "int16",
        index: int | None = None,
        stamp: int = 0,
    ) -> list[tuple[int, Float]]:
        """Interleaved samples -> frames [(time of the first sample in nanoseconds, float32 [size])], often none.

        `index`: the number of the message, to notice losses and repetitions; None where the source has no numbers.
        `stamp`: the time of the first sample, nanoseconds. Of more than LONGEST only the end is taken. Raises
        AudioError for sound that cannot be used; the next message is welcome nevertheless.
        """
        lost = self._lost_before(index)
        if lost < 0:
            self.counts.repeated += 1
            return []
        self.counts.lost += lost
        try:
            heard = interleaved(data, channels, sample_format)
            if self._resampler is None or sample_rate != self._rate:
                self._resampler = Resampler(sample_rate, SAMPLE_RATE, after=self._resampler)
                self._rate = sample_rate
        except AudioError:
            self.counts.refused += 1
            raise
        excess = len(heard) - min(int(LONGEST * sample_rate), MOST // channels)
        if excess > 0:
            self.counts.cut += 1
            heard = heard[excess:]
            stamp += round(excess / sample_rate * 1e9)
        samples, replaced = mono(heard)
        self.counts.replaced += replaced
        fill = lost * samples.size
        if 0 < fill <= MAX_FILL * sample_rate:
            samples = np.concatenate([np.zeros(fill, np.float32), samples])
            stamp -= round(fill / sample_rate * 1e9)
        first = stamp - round((self._framer.pending / SAMPLE_RATE + self._resampler.delay) * 1e9)
        frames = self._framer.push(self._resampler(samples))
        return [
            (first + n * self._size * 1_000_000_000 // SAMPLE_RATE, frame) for n, frame in enumerate(frames)
        ]

    def _lost_before(self, index: int | None) -> int:
        """Messages missing between the last one and this; negative: this one was there already."""
        if index is None:
            return 0
        expected = index if self._expected is None else self._expected
        if expected - index > MAX_LATE or (index == 0 and expected > 1):
            expected = index  # a restarted publisher
        self._expected = max(expected, index + 1)
        return index - expected
