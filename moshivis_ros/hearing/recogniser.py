"""Speech to text by Whisper, as faster-whisper has it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moshivis_ros.audio import Float
from moshivis_ros.errors import CheckpointError, MissingDependencyError
from moshivis_ros.hearing import MISSING, SAMPLE_RATE

# Whisper was made for windows of 30 s, and its encoder costs more than twice as much for them as for 20 s, in which it understands
# as well; in 8 s the tiny model begins to say things twice.
WINDOWS = (20, 30)  # seconds
ROOM = 2.0  # seconds of silence that a window must have after the speech
LONGEST = WINDOWS[-1] - ROOM
FRAMES_PER_SECOND = 100
PIECES_PER_SECOND = 8  # more is no speech: the network repeats itself
BEAMS = 5
# Whisper's own rule for noise: hardly speech, and no sure words.
NO_SPEECH, UNSURE = 0.6, -1.0
WORD = re.compile(r"\w")


@dataclass(frozen=True)
class Recognised:
    """`confidence`: the mean probability of the pieces of words, 0..1. `text` is empty where there were no words."""

    text: str
    confidence: float


class Recogniser:
    """`model`: a size ("tiny.en", "base", ...), a folder in CTranslate2's format, or a Hugging Face repo. English.

    Raises MissingDependencyError without faster-whisper, CheckpointError for a model that cannot be used.
    """

    def __init__(self, model: str, device: str = "cpu", threads: int = 1) -> None:
        try:
            from ctranslate2 import StorageView
            from faster_whisper import WhisperModel
            from faster_whisper.tokenizer import Tokenizer
        except ImportError as error:
            raise MissingDependencyError(MISSING) from error
        if Path(model).is_dir() and not (Path(model) / "model.bin").is_file():
            raise CheckpointError(f"{model} is no model of faster-whisper: it has no model.bin")
        kind = "int8" if device == "cpu" else "default"
        try:
            whisper = WhisperModel(model, device=device, compute_type=kind, cpu_threads=threads)
        except (ValueError, OSError, RuntimeError) as error:
            raise CheckpointError(
                f"the model {model!r} of the listener cannot be loaded ({' '.join(str(error).split())[:300]}): give a size such "
                "as tiny.en, a folder, or a Hugging Face repo"
            ) from error
        self._features, self._network, self._view = (
            whisper.feature_extractor,
            whisper.model,
            StorageView.from_array,
        )
        multilingual = self._network.is_multilingual
        self._tokenizer = Tokenizer(whisper.hf_tokenizer, multilingual, task="transcribe", language="en")
        self._prompt = [*self._tokenizer.sot_sequence, self._tokenizer.no_timestamps]

    def __call__(self, sound: Float) -> Recognised:
        """float32 [n] at 16 kHz; of more than LONGEST seconds, only the end is heard."""
        sound = sound[-int(LONGEST * SAMPLE_RATE) :]
        seconds = sound.size / SAMPLE_RATE
        window = next(window for window in WINDOWS if seconds + ROOM <= window) * FRAMES_PER_SECOND
        features: Any = self._features(sound)[:, :window]
        features = np.pad(features, ((0, 0), (0, window - features.shape[1]))).astype(np.float32)
        (result,) = self._network.generate(
            self._network.encode(self._view(features[None])),
            [self._prompt],
            beam_size=BEAMS,
            max_length=len(self._prompt) + math.ceil(PIECES_PER_SECOND * (seconds + 1)),
            return_scores=True,
            return_no_speech_prob=True,
        )
        text, score = self._tokenizer.decode(result.sequences_ids[0]).strip(), result.scores[0]
        if not WORD.search(text) or (result.no_speech_prob > NO_SPEECH and score < UNSURE):
            return Recognised("", 0.0)
        return Recognised(text, math.exp(min(score, 0.0)))
