"""How something is said: the pitch of a voice, its range, and how fast the words come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

WINDOW, HOP = 0.05, 0.01  # seconds
LOWEST, HIGHEST = 60.0, 450.0  # hertz
VOICED = 0.6  # of the autocorrelation at no lag
LOUD = 0.05  # of the loudest window (root mean square): below is a pause


@dataclass(frozen=True)
class Prosody:
    """pitch: median, hertz; range: from the 10th to the 90th percentile, semitones (both 0 where nothing is voiced).
    rate: words a second of speech, pauses left out."""

    pitch: float
    range: float
    rate: float


def prosody(sound: npt.NDArray[np.float32], words: int, rate: int = 24000) -> Prosody:
    """sound: float32 mono; words: how many are said in it."""
    pitches, speaking = track(sound, rate)
    voiced = pitches[pitches > 0]
    speed = words / speaking if speaking else 0.0
    if not voiced.size:
        return Prosody(0.0, 0.0, speed)
    low, high = np.quantile(voiced, (0.1, 0.9))
    return Prosody(float(np.median(voiced)), float(12 * np.log2(high / low)), speed)


def track(sound: npt.NDArray[np.float32], rate: int) -> tuple[npt.NDArray[np.float64], float]:
    """Pitch in hertz every HOP seconds (0: none), and for how many seconds something is said. By the autocorrelation of
    each window, as Praat has it: divided by that of the window function."""
    size, hop = round(WINDOW * rate), round(HOP * rate)
    if len(sound) < size:
        return np.zeros(0), 0.0
    frames = np.lib.stride_tricks.sliding_window_view(np.asarray(sound, np.float64), size)[::hop]
    levels = np.sqrt(np.mean(frames**2, 1))
    loud = levels > LOUD * levels.max() if levels.max() > 0 else np.zeros(len(levels), bool)
    shape = np.hanning(size)
    own = _correlation(shape[None])[0]
    shortest, longest = int(rate / HIGHEST), int(rate / LOWEST)
    lags = np.arange(shortest, longest)
    pitches = np.zeros(len(frames))
    if loud.any():
        some = frames[loud] - frames[loud].mean(1, keepdims=True)
        relative = _correlation(some * shape)[:, lags] / own[lags]
        relative -= 0.02 * np.log2(
            lags / shortest
        )  # of equal peaks the shorter period: the voice, not its octave below
        best = relative.argmax(1)
        there = relative[np.arange(len(best)), best] > VOICED
        pitches[loud] = np.where(there, rate / lags[best], 0.0)
    return pitches, float(loud.sum() * HOP)


def _correlation(frames: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Autocorrelation of each row, 1 at no lag."""
    spectrum = np.fft.rfft(frames, 2 * frames.shape[1])
    result = np.fft.irfft(np.abs(spectrum) ** 2)[:, : frames.shape[1]]
    return np.asarray(result / np.maximum(result[:, :1], 1e-12))
