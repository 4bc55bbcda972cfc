"""A recording as a small synthesizer would have said it: taken apart by the vocoder WORLD (Morise et al. 2016) and put together
with less in it. A voice from statistics is smooth, one of diphones is flat, both buzz; people are neither."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter1d

from moshivis_ros.errors import MissingDependencyError
from moshivis_ros.training.voices import SAMPLE_RATE, Speech

PITCH = (0.65, 1.6)  # of the speaker's own
FORMANTS = (0.88, 1.14)
ORDERS = (20, 25, 30, 40, 60)  # coefficients that are left of a spectral envelope
SMOOTHED = (1, 1, 3, 5, 7)  # frames of 5 ms over which it is averaged
BUZZ = (0.1, 1.0)  # of the breath in voiced sounds that is left


def vocoded(rng: random.Random, speech: Speech) -> Speech:
    """``speech`` with the same times, in another pitch and on a flatter melody, from a plainer spectrum."""
    try:
        import pyworld
    except ImportError as error:
        raise MissingDependencyError(f"no vocoder ({error}): pip install moshivis_ros[voices]") from error
    pcm = speech.pcm.astype(np.float64)
    pitch, times = pyworld.dio(pcm, SAMPLE_RATE)
    pitch = pyworld.stonemask(pcm, pitch, times, SAMPLE_RATE)
    envelope = pyworld.cheaptrick(pcm, pitch, times, SAMPLE_RATE)
    breath = pyworld.d4c(pcm, pitch, times, SAMPLE_RATE)
    order = rng.choice(ORDERS)
    coded = pyworld.code_spectral_envelope(_warped(envelope, rng.uniform(*FORMANTS)), SAMPLE_RATE, order)
    coded = np.ascontiguousarray(uniform_filter1d(coded, rng.choice(SMOOTHED), axis=0))
    envelope = pyworld.decode_spectral_envelope(coded, SAMPLE_RATE, 2 * (envelope.shape[1] - 1))
    voiced = pitch > 0
    breath[voiced] *= rng.uniform(*BUZZ)
    if voiced.any():
        middle = math.exp(float(np.log(pitch[voiced]).mean()))
        factor = math.exp(rng.uniform(math.log(PITCH[0]), math.log(PITCH[1])))
        pitch[voiced] = factor * middle * (pitch[voiced] / middle) ** rng.uniform(0, 1)
    said = pyworld.synthesize(pitch, envelope, breath, SAMPLE_RATE)[: len(pcm)].astype(np.float32)
    return replace(speech, pcm=np.pad(said, (0, len(pcm) - len(said))))


def _warped(envelope: Any, factor: float) -> Any:
    """Spectral envelopes [T, bins] with their peaks at ``factor`` times the frequency."""
    bins = np.arange(envelope.shape[1])
    low = np.minimum(bins / factor, bins[-1])
    below = np.minimum(low.astype(int), bins[-1] - 1)
    share = low - below
    return np.ascontiguousarray(envelope[:, below] * (1 - share) + envelope[:, below + 1] * share)
