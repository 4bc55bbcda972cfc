"""Sample rate conversion with a small constant delay, between any two rates and at bounded cost.

A streaming FIR. General-purpose streaming resamplers hold back up to 39 ms in bursts; here every chunk gives at once
the output that belongs to it, 24 periods of the lower rate late (1 ms when that is 24 kHz).

Rates in a small ratio, as 44.1 to 24 kHz, are one filter. Others, as drivers measure them, are filtered to about twice
the lower rate, in a small ratio to the source, and interpolated from there: sound that is so much oversampled needs 12
taps for that, the same for all rates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moshivis_ros.audio import Float
from moshivis_ros.errors import AudioError

HALF_WIDTH = 24  # periods of the lower rate on each side of an output sample
KAISER_BETA = 8.7  # stop band below -85 dB
TRANSITION = 2.81  # width of the transition band for that beta, times HALF_WIDTH, as a part of the lower rate
RATES = (1000, 384000)
DENOMINATOR = 1000  # rates are taken to the nearest such fraction: within 1e-9 of what was said
FINEST = 100_000  # parts of an output sample in which its place is known, at least, after a change of rate
LARGEST = 640  # terms of the ratio of two rates that is one filter
MIDDLE = Fraction(19, 10)  # lowest rate from which is interpolated, over the lower rate
NEAR = 6  # samples on each side of an interpolated one
PIECE = (
    800_000  # multiplications at once: larger products BLAS shares among threads, which wait for a busy core
)
OUTPUTS = 2048  # interpolated at once, which a CPU's cache holds
PHASES = 256  # of the interpolator's taps; linear between them, which is off by less than -90 dB
NOTHING = np.zeros(0, np.float32)


class Resampler:
    """Mono float32 at `source` Hz -> `target` Hz. After n samples in, exactly ceil(n * target / source) are out,
    however the input was cut. `delay` is in seconds; equal rates pass through unchanged, without delay.

    Flat to 0.37 of the lower rate (8.9 kHz at 24 kHz), aliases and images below -80 dB. `after`: the resampler that this
    stream had until now, at another rate: the sound goes on without a gap.
    Raises AudioError for a rate outside 1 kHz to 384 kHz.
    """

    def __init__(self, source: float, target: float, after: Resampler | None = None) -> None:
        have, want = fraction(source), fraction(target)
        lower = min(have, want)
        self._up, self._down = (want / have).as_integer_ratio()
        self._lead = 0  # of the next output over the end of the input, in 1/up of an input sample
        self._recent: Float = np.zeros(int(2.5 * HALF_WIDTH * have / lower), np.float32)  # may still be needed
        self.delay = float(HALF_WIDTH / lower)
        self._filter: _Filter | None = None
        self._interpolator: _Interpolator | None = None
        if max(self._up, self._down) > LARGEST or after is not None:
            up, down = (2, 1) if have < MIDDLE * lower else (1, int(have / (MIDDLE * lower)))
            near = float(NEAR * lower * down / (have * up))
            self._filter = _Filter(up, down, float(have / lower), HALF_WIDTH - near)
            self._interpolator = _Interpolator()
        elif have != want:
            self._filter = _Filter(self._up, self._down, float(have / lower), HALF_WIDTH)
        else:
            self.delay = 0.0
        if after is not None:
            self._go_on(after)

    def __call__(self, samples: Float) -> Float:
        """float32 [n] -> float32 [about n * target / source]."""
        if self._filter is None:
            self._recent = _last(self._recent, samples)
            return samples
        # Counted in 1/unit of a sample of the filter's output, from where that ended before these samples.
        unit = self._up * self._filter.down
        first = self._lead * self._filter.up - self._filter.lead * self._up
        self._recent = _last(self._recent, samples)
        count = max(0, -((self._lead - samples.size * self._up) // self._down))
        self._lead += count * self._down - samples.size * self._up
        out = self._filter(samples)
        if self._interpolator is None:
            return out
        return self._interpolator(out, first + self._down * self._filter.up * np.arange(count), unit)

    def _go_on(self, after: Resampler) -> None:
        """Take what `after` heard last as heard, and its place between two output samples."""
        finer = max(1, FINEST // self._down)
        self._up, self._down = self._up * finer, self._down * finer
        self(_last(self._recent, after._recent))
        self._lead = min(round(after._lead * self._down / after._down), self._down - 1)


class _Filter:
    """Every up-th of an input sample -> every down-th of those: low pass and change of rate by a ratio up/down.

    Block by block, as one product of matrices. A block that is not full yet is worked out again with the next samples.
    """

    def __init__(self, up: int, down: int, rate: float, half_width: float) -> None:
        self.up, self.down = up, down
        self._matrix, self._width = _matrix(up, down, rate, half_width)
        self._line: Float = np.zeros(self._width - 1, np.float32)
        self._done = 0  # outputs of the block that has begun
        self.lead = 0  # of the next output over the end of the input, in 1/up of an input sample

    def __call__(self, samples: Float) -> Float:
        size, per_block = self._matrix.shape
        step = size - self._width + 1  # input samples of a block
        line = np.concatenate([self._line, samples])
        begun = line.size - self._width + 1
        total = -(-begun * self.up // self.down)
        blocks = -(-begun // step)
        padded = np.pad(line, (0, blocks * step - begun))
        windows = np.lib.stride_tricks.sliding_window_view(padded, size)[::step]
        rows = max(1, PIECE // self._matrix.size)
        pieces = [
            np.ascontiguousarray(windows[row : row + rows]) @ self._matrix for row in range(0, blocks, rows)
        ]
        out: Float = np.concatenate([*pieces, NOTHING], axis=None)[self._done : total]
        whole = begun // step
        self._line = line[whole * step :]
        self._done = total - whole * per_block
        self.lead = total * self.down - begun * self.up
        return out


@lru_cache(maxsize=8)
def _matrix(up: int, down: int, rate: float, half_width: float) -> tuple[Float, int]:
    """(float32 [inputs, outputs] of a block, its number of inputs that come before the block, and one).

    `rate`: of the input, over the lower rate; `half_width` in periods of the lower rate.
    """
    period = rate * up  # of the lower rate, in samples of the prototype
    centre = half_width * period
    time = (np.arange(int(2 * centre) + 1) - centre) / period
    # The stop band begins at the lower Nyquist frequency, or aliases get in: the cutoff lies half a band below.
    cutoff = 1 - TRANSITION / half_width  # of that frequency
    taps = cutoff * np.sinc(cutoff * time) * _kaiser(time / half_width) * up / period
    width = -(-taps.size // up)
    # Row p: the taps met by an output p/up of a sample after its newest input sample, oldest input first.
    bank = np.pad(taps, (0, width * up - taps.size)).reshape(width, up).T[:, ::-1]
    repeats = -(-width // (2 * down))  # two thirds of the products are by taps then, a third by zeros
    matrix = np.zeros((width - 1 + repeats * down, repeats * up), np.float32)
    for output in range(repeats * up):
        newest, phase = divmod(output * down, up)
        matrix[newest : newest + width, output] = bank[phase]
    return matrix, width


class _Interpolator:
    """Values between the samples of sound that has nothing above a quarter of its rate."""

    def __init__(self) -> None:
        self._taps, self._slopes = _near()
        self._history: Float = np.zeros(2 * NEAR, np.float32)

    def __call__(self, samples: Float, positions: NDArray[np.int64], unit: int) -> Float:
        """`positions`: int [n], in 1/unit of a sample, from the first of `samples` -> float32 [n], NEAR samples late."""
        line = np.concatenate([self._history, samples])
        self._history = line[line.size - 2 * NEAR :]
        windows = np.lib.stride_tricks.sliding_window_view(line, 2 * NEAR)
        out = np.empty(positions.size, np.float32)
        for first in range(0, positions.size, OUTPUTS):
            index, part = np.divmod(positions[first : first + OUTPUTS], unit)
            phase = part * (PHASES / unit)
            row = phase.astype(np.intp)
            taps = self._taps[row] + (phase - row).astype(np.float32)[:, None] * self._slopes[row]
            np.einsum("nt,nt->n", windows[index + 1], taps, out=out[first : first + OUTPUTS])
        return out


@lru_cache(maxsize=1)
def _near() -> tuple[Float, Float]:
    """The interpolator's taps at PHASES places after the newest sample, oldest sample first, and the way to the next."""
    time = np.arange(PHASES + 1)[:, None] / PHASES + np.arange(2 * NEAR)[::-1] - NEAR
    taps = np.sinc(time) * _kaiser(time / NEAR)
    return taps[:-1].astype(np.float32), np.diff(taps, axis=0).astype(np.float32)


def _kaiser(time: NDArray[Any]) -> NDArray[Any]:
    """The window at times from -1 to 1; 0 outside."""
    inside = np.clip(1 - time**2, 0, None)
    return np.where(np.abs(time) <= 1, np.i0(KAISER_BETA * np.sqrt(inside)) / np.i0(KAISER_BETA), 0)


def _last(before: Float, samples: Float) -> Float:
    """The last samples of both, as many as `before` has."""
    return np.concatenate([before, samples[-before.size :]])[-before.size :]


def fraction(rate: float) -> Fraction:
    """A sample rate in Hz as a ratio of small numbers. Raises AudioError outside 1 kHz to 384 kHz."""
    if not RATES[0] <= rate <= RATES[1]:
        raise AudioError(f"a sample rate of {rate} Hz; use {RATES[0]} to {RATES[1]} Hz")
    return Fraction(float(rate)).limit_denominator(DENOMINATOR)


def resample(samples: Float, source: float, target: float) -> Float:
    """A whole recording, float32 [n] -> float32 [round(n * target / source)], without delay."""
    return np.concatenate(list(resample_blocks([samples], source, target)))


def resample_blocks(blocks: Iterable[Float], source: float, target: float) -> Iterator[Float]:
    """A recording in blocks -> what resample() makes of the whole, in as many blocks and one."""
    convert = Resampler(source, target)
    ratio = fraction(target) / fraction(source)
    skip = round(convert.delay * target)
    heard = given = 0
    for block in blocks:
        heard += block.size
        out = convert(block)
        given += max(0, out.size - skip)
        yield out[skip:]
        skip = max(0, skip - out.size)
    tail = convert(np.zeros(int(np.ceil(convert.delay * source)) + 1, np.float32))
    yield tail[skip : skip + round(heard * ratio) - given]
