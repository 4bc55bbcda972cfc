"""Takes the robot's own voice out of what its microphone hears, and leaves whoever talks at the same time.

A linear filter learns the way from the loudspeaker to the microphone (device, room) and subtracts what it predicts.
What a suppressor would do after it, damp what is left, would also damp a user who interrupts the robot.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moshivis_ros.audio import SAMPLE_RATE, Float
from moshivis_ros.audio.framing import AudioInput

BLOCK = 240  # samples, 10 ms
TAIL = 0.25  # seconds after a sound has left the loudspeaker in which its echo is looked for
LEAD = 0.03  # seconds by which the times of the two devices may be wrong the other way
SLACK = 0.02  # seconds by which they may wander before what was learnt is given up for a new alignment
SETTLING = 0.2  # seconds in which stamps that disagree with the samples counted are believed
PATIENCE = 0.1  # seconds for which the microphone's sound is held back until it is known what was played
HISTORY = 4.0  # seconds of played sound that are kept

# Of the filter, chosen on rendered rooms: quick enough for a robot that drives, slow enough for two voices at once.
FORGETTING = 0.999  # of a block: how much of the way to the microphone is as it was
LOUDEST = 0.1  # power that an echo's first 10 ms may be expected to have in a room that was never heard
DECAY = 15.0  # 1/s, of that power after them
RELEARNING = 0.05  # the part of that power that is always expected anew, because a robot may be elsewhere by now
SMOOTHING = 0.5  # of a block, for the power of what is not echo


class EchoFilter:
    """Partitioned-block frequency-domain Kalman filter: Enzner and Vary, Signal Processing 86 (2006) 1140-1156;
    partitioned as in Kuech, Mabande and Enzner, ICASSP 2014.

    The step width of each frequency follows from how uncertain its path is and how loud everything is that is not
    echo, so that a voice over the robot's does not need to be detected.
    """

    def __init__(self, tail: float = TAIL) -> None:
        shape = (round(tail * SAMPLE_RATE / BLOCK), BLOCK + 1)
        self._played: NDArray[np.float64] = np.zeros(2 * BLOCK)
        self._spectra: NDArray[np.complex128] = np.zeros(shape, np.complex128)  # of the played blocks, newest first
        self._paths: NDArray[np.complex128] = np.zeros(shape, np.complex128)
        blocks = np.arange(shape[0])[:, None]
        self._expected = LOUDEST * np.exp(-DECAY * blocks * BLOCK / SAMPLE_RATE)  # power of the paths
        self._variances = np.broadcast_to(self._expected, shape).copy()  # of their errors
        self._noise: NDArray[np.float64] = np.full(BLOCK + 1, 1e-3)  # power of what is not echo

    def __call__(self, heard: Float, played: Float) -> Float:
        """float32 [240] of the microphone, and what was played at the time -> float32 [240] without its echo."""
        self._played = np.concatenate([self._played[BLOCK:], played])
        self._spectra = np.roll(self._spectra, 1, axis=0)
        self._spectra[0] = np.fft.rfft(self._played)
        echo = np.fft.irfft((self._spectra * self._paths).sum(0))[BLOCK:]
        rest = heard - echo
        error = np.fft.rfft(np.concatenate([np.zeros(BLOCK), rest]))
        self._noise = SMOOTHING * self._noise + (1 - SMOOTHING) * np.abs(error) ** 2
        power = np.abs(self._spectra) ** 2
        # Half of each transform is padding: hence the two factors of 0.5.
        gain = self._variances / (0.5 * (power * self._variances).sum(0) + self._noise + 1e-6)
        update = np.fft.irfft(gain * self._spectra.conj() * error, axis=-1)
        update[:, BLOCK:] = 0  # a block's path is no longer than a block
        self._paths += np.fft.rfft(update, axis=-1)
        keep = FORGETTING**2
        self._variances *= keep * (1 - 0.5 * gain * power)
        self._variances += (1 - keep) * (np.abs(self._paths) ** 2 + RELEARNING * self._expected)
        return rest.astype(np.float32)


class EchoCanceller:
    """Two streams of audio messages in, the microphone's without the robot's voice out.

    Messages tell by their stamps which sound was in the air at the same time. From message to message samples are
    counted, because a stamp is only as good as a driver's clock. Not thread-safe.
    """

    def __init__(self, tail: float = TAIL) -> None:
        self._filter = EchoFilter(tail)
        self._microphone = _Timeline()
        self._loudspeaker = _Timeline()
        self._recent: Float = np.zeros(round(HISTORY * SAMPLE_RATE), np.float32)  # played; its end is the newest
        self._waiting: deque[tuple[int, Float]] = deque()  # position on the microphone's timeline, block
        self._shift: int | None = None  # from positions of the microphone to those of the loudspeaker
        self._last_played = -np.inf

    def play(self, data: Any, **fields: Any) -> list[tuple[int, Float]]:
        """A message of what left the loudspeaker, as AudioInput.push() takes it; returns what `hear` does."""
        for _, block in self._loudspeaker.push(data, **fields):
            self._recent = np.concatenate([self._recent[BLOCK:], block])
            self._last_played = time.monotonic()
        return self._cleaned()

    def hear(self, data: Any, **fields: Any) -> list[tuple[int, Float]]:
        """A message of the microphone, as AudioInput.push() takes it -> [(stamp in nanoseconds, float32 [240] at
        24 kHz)], what is ready of this and of earlier ones. Raises its AudioError.
        """
        self._waiting.extend(self._microphone.push(data, **fields))
        return self._cleaned()

    @property
    def lost(self) -> int:
        """Messages of the microphone that never came."""
        return self._microphone.input.counts.lost

    def _cleaned(self) -> list[tuple[int, Float]]:
        out = []
        while self._waiting:
            position, block = self._waiting[0]
            played = self._played_at(position)
            if played is None:
                if len(self._waiting) * BLOCK <= PATIENCE * SAMPLE_RATE:
                    break
                played = np.zeros(BLOCK, np.float32)
            self._waiting.popleft()
            out.append((self._microphone.stamp(position), self._filter(block, played)))
        return out

    def _played_at(self, position: int) -> Float | None:
        """What was played with the microphone's block there; None: not known yet."""
        silence = np.zeros(BLOCK, np.float32)
        if time.monotonic() - self._last_played > 1.0:
            return silence  # there is no loudspeaker
        apart = self._microphone.origin - self._loudspeaker.origin
        shift = round((apart / 1e9 + LEAD) * SAMPLE_RATE)
        if self._shift is None or abs(shift - self._shift) > SLACK * SAMPLE_RATE:
            self._shift = shift
        end = position + self._shift + BLOCK - self._loudspeaker.position  # counted from the newest
        if end > 0:
            return None
        start = self._recent.size + end - BLOCK
        return self._recent[start : start + BLOCK] if start >= 0 else silence


class _Timeline:
    """A stream of messages as blocks at counted positions, and the time of position 0 as far as stamps tell it."""

    def __init__(self) -> None:
        self.input = AudioInput(BLOCK)
        self.origin = 0  # nanoseconds
        self.position = 0  # of the next block

    def push(self, data: Any, **fields: Any) -> list[tuple[int, Float]]:
        blocks = []
        for stamp, block in self.input.push(data, **fields):
            error = stamp - self.stamp(self.position)
            # A hole or another clock is followed at once, what a driver says from message to message slowly.
            near = self.position and abs(error) < 1e9 * PATIENCE
            self.origin += round(error * BLOCK / SAMPLE_RATE / SETTLING) if near else error
            blocks.append((self.position, block))
            self.position += BLOCK
        return blocks

    def stamp(self, position: int) -> int:
        """Nanoseconds."""
        return self.origin + position * 1_000_000_000 // SAMPLE_RATE
