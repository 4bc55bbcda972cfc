"""Recordings on disk."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from moshivis_ros.audio import SAMPLE_RATE, Float
from moshivis_ros.audio.pcm import decode
from moshivis_ros.audio.resample import resample
from moshivis_ros.errors import AudioError, MissingDependencyError


def read(path: str | Path, sample_rate: int = SAMPLE_RATE) -> Float:
    """A recording of any rate and channel count (WAV, FLAC, OGG, MP3, ...) -> mono float32 [n] at `sample_rate`.

    Raises AudioError where the file is missing, empty or not a recording.
    """
    soundfile = _soundfile()
    if not Path(path).is_file():
        raise AudioError(f"{path}: no such recording")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a .raw file needs its format said
        raise AudioError(
            f"{path}: not a recording that can be read ({error}); give a WAV, FLAC or OGG file"
        ) from error
    if not samples.size:
        raise AudioError(f"{path}: the recording is empty")
    mono, _ = decode(samples, samples.shape[1], "float32")
    return resample(mono, rate, sample_rate)


def write(path: str | Path, samples: Float, sample_rate: int = SAMPLE_RATE) -> None:
    """float32 [n] or [n, channels] -> a 16-bit file of the kind its name says (.wav, .flac).

    Raises AudioError where it cannot be written.
    """
    soundfile = _soundfile()
    try:
        soundfile.write(path, np.clip(samples, -1, 1), sample_rate, subtype="PCM_16")
    except (soundfile.SoundFileError, ValueError, TypeError) as error:
        raise AudioError(
            f"{path}: cannot write the recording ({error}); is there such a folder, with room?"
        ) from error


def _soundfile() -> Any:
    try:
        return importlib.import_module("soundfile")
    except (ModuleNotFoundError, OSError) as error:
        raise MissingDependencyError(
            "reading and writing recordings needs soundfile: pip install soundfile"
        ) from error
