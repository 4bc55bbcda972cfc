"""One recording as it is heard in many places: by other people, near and far, in rooms, through poor microphones."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
from scipy.signal import fftconvolve, resample_poly

from moshivis_ros.errors import MissingDependencyError
from moshivis_ros.training.speakers import LOUDER_LEVELS, louder
from moshivis_ros.training.voices import SAMPLE_RATE, Sound, Speech, Word

ROOMS = 48
PEAKS = (0.02, 0.9)  # of full scale: how loud a user is
CLEAR = 12.0  # the peak is at least so many times the noise: about 8 dB of signal to noise
FASTER = (0.84, 1.2)  # pitch, formants and speed together: longer and shorter people


def heard(rng: random.Random, speech: Speech, noise: float) -> Speech:
    """``speech`` by somebody like its speaker, somewhere, as loud as may be above ``noise`` (root mean square)."""
    if rng.random() < 0.8:
        speech = faster(speech, rng.uniform(*FASTER))
    pcm = speech.pcm
    if rng.random() < 0.35:
        pcm = in_room(pcm, rng.choice(rooms()))
    if rng.random() < 0.45:
        pcm = microphone(rng, pcm)
    peak = math.exp(rng.uniform(math.log(PEAKS[0]), math.log(PEAKS[1])))
    return louder(replace(speech, pcm=pcm), max(peak, min(PEAKS[1], CLEAR * noise)))


def level(rng: random.Random) -> int:
    """Which of LOUDER_LEVELS it is: oftener a quiet place."""
    return rng.choices(range(len(LOUDER_LEVELS)), (3, 3, 3, 2, 2, 1))[0]


def faster(speech: Speech, factor: float) -> Speech:
    """Played ``factor`` times as fast."""
    ratio = Fraction(factor).limit_denominator(40)
    pcm = resample_poly(speech.pcm, ratio.denominator, ratio.numerator).astype(np.float32)
    words = tuple(Word(w.text, w.start / float(ratio), w.end / float(ratio)) for w in speech.words)
    phonemes = tuple((symbol, at / float(ratio)) for symbol, at in speech.phonemes)
    return Speech(pcm, words, phonemes)


def in_room(pcm: Sound, room: Sound) -> Sound:
    """As long as before: the echo of the last word goes on into the silence only as far as that was recorded."""
    echo = fftconvolve(pcm, room)[: len(pcm)]
    return np.asarray(echo, np.float32)


@cache
def rooms() -> tuple[Sound, ...]:
    """Impulse responses from the direct sound on, RT60 0.15 to 0.6 s, 0.4 to 3 m away."""
    rng = random.Random("rooms")
    return tuple(room(rng, rng.uniform(0.15, 0.6)) for _ in range(ROOMS))


def room(rng: random.Random, rt60: float) -> Sound:
    """An impulse response of a box-shaped room."""
    try:
        import pyroomacoustics
    except ImportError as error:
        raise MissingDependencyError(
            f"rooms need pyroomacoustics ({error}): pip install moshivis_ros[voices]"
        ) from error
    size = [rng.uniform(3, 7), rng.uniform(3, 6), rng.uniform(2.4, 3.2)]
    absorption, order = pyroomacoustics.inverse_sabine(rt60, size)
    box = pyroomacoustics.ShoeBox(
        size, fs=SAMPLE_RATE, materials=pyroomacoustics.Material(absorption), max_order=min(order, 17)
    )
    ear = np.array([rng.uniform(0.5, size[0] - 0.5), rng.uniform(0.5, size[1] - 0.5), rng.uniform(0.8, 1.6)])
    while True:
        mouth = np.array([rng.uniform(0.3, size[0] - 0.3), rng.uniform(0.3, size[1] - 0.3), 1.5])
        if 0.4 < (distance := float(np.linalg.norm(mouth - ear))) < 3:
            break
    box.add_source(mouth)
    box.add_microphone(ear)
    box.compute_rir()
    response = np.asarray(box.rir[0][0], np.float32)
    arrives = round(distance / pyroomacoustics.constants.get("c") * SAMPLE_RATE) + 40  # half of its filter
    return response[max(0, arrives - 20) : arrives + round(rt60 * SAMPLE_RATE)]


def microphone(rng: random.Random, pcm: Sound) -> Sound:
    """Some frequencies weaker and others louder, by up to 9 dB; often neither the lowest nor the highest; maybe clipped."""
    spectrum = np.fft.rfft(pcm)
    hertz = np.fft.rfftfreq(len(pcm), 1 / SAMPLE_RATE)
    knots = np.geomspace(80, SAMPLE_RATE / 2, 6)
    decibels = np.interp(np.log(hertz + 1), np.log(knots), [rng.uniform(-9, 9) for _ in knots])
    spectrum *= 10 ** (decibels / 20)
    if rng.random() < 0.6:
        low, high = rng.uniform(50, 300), rng.choice((3400, 4000, 5500, 7000, 8000))
        spectrum *= 1 / (1 + (low / (hertz + 1)) ** 4) / (1 + (hertz / high) ** 8)
    out = np.fft.irfft(spectrum, len(pcm)).astype(np.float32)
    if rng.random() < 0.15:
        limit = rng.uniform(0.3, 0.8) * float(np.abs(out).max())
        out = out.clip(-limit, limit)
    return out
