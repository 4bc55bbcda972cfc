"""Sample rate conversion with a small constant delay.

A streaming polyphase FIR. General-purpose streaming resamplers hold back up to 39 ms in bursts; here every chunk
gives at once the output that belongs to it, 24 periods of the lower rate late (1 ms when that is 24 kHz).
"""

from __future__ import annotations

from math import gcd

import numpy as np

from moshivis_ros.audio import Float
from moshivis_ros.errors import AudioError

HALF_WIDTH = 24  # periods of the lower rate on each side of an output sample
KAISER_BETA = 8.7  # stop band below -85 dB
TRANSITION = 0.117  # its width, as a part of the lower rate, for that beta and width
RATES = (1000, 384000)


class Resampler:
    """Mono float32 at `source` Hz -> `target` Hz. After n samples in, exactly ceil(n * target / source) are out,
    however the input was cut. `delay` is in seconds; equal rates pass through unchanged, without delay.

    Flat to 0.38 of the lower rate (9.2 kHz at 24 kHz), aliases and images below -80 dB.
    Raises AudioError for a rate outside 1 kHz to 384 kHz.
    """

    def __init__(self, source: int, target: int) -> None:
        for rate in (source, target):
            if not RATES[0] <= rate <= RATES[1]:
                raise AudioError(f"a sample rate of {rate} Hz; use {RATES[0]} to {RATES[1]} Hz")
        divisor = gcd(source, target)
        self._up, self._down = target // divisor, source // divisor
        lower = min(source, target)
        self.delay = 0.0 if source == target else HALF_WIDTH / lower
        # The prototype filter runs at source * up Hz, where one period of the lower rate is max(up, down) samples.
        period = max(self._up, self._down)
        time = np.arange(-HALF_WIDTH * period, HALF_WIDTH * period + 1) / period
        # The stop band begins at the lower Nyquist frequency, or aliases get in: the cutoff lies half a band below.
        cutoff = 1 - TRANSITION  # of that frequency
        taps = cutoff * np.sinc(cutoff * time) * np.kaiser(time.size, KAISER_BETA) * self._up / period
        width = -(-taps.size // self._up)
        taps = np.pad(taps, (0, width * self._up - taps.size))
        # Row p: the taps met by an output p/up of a sample after its newest input sample, oldest input first.
        self._bank = np.ascontiguousarray(taps.reshape(width, self._up).T[:, ::-1], np.float32)
        self._history = np.zeros(width - 1, np.float32)
        self._next = 0  # position of the next output after the end of the history, in 1/up samples

    def __call__(self, samples: Float) -> Float:
        """float32 [n] -> float32 [about n * target / source]."""
        if self._up == self._down:
            return samples
        line = np.concatenate([self._history, samples])
        position = np.arange(self._next, samples.size * self._up, self._down)
        index, phase = np.divmod(position, self._up)
        windows = np.lib.stride_tricks.sliding_window_view(line, self._bank.shape[1])
        out: Float = np.einsum("nt,nt->n", windows[index], self._bank[phase])
        self._history[:] = line[line.size - self._history.size :]
        self._next += position.size * self._down - samples.size * self._up
        return out


def resample(samples: Float, source: int, target: int) -> Float:
    """A whole recording, float32 [n] -> float32 [round(n * target / source)], without delay."""
    convert = Resampler(source, target)
    tail = np.zeros(int(np.ceil(convert.delay * source)) + 1, np.float32)
    skip = round(convert.delay * target)
    return convert(np.concatenate([samples, tail]))[skip : skip + round(samples.size * target / source)]
