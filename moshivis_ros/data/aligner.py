"""When each word of a known text is said: Whisper's attention to the sound, by faster-whisper, which the listener has.

(torchaudio's forced_align would be the other well-kept one: it fixes the version of torch, which a robot's must not be.)
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from moshivis_ros.audio.resample import resample
from moshivis_ros.errors import AudioError, CheckpointError, MissingDependencyError
from moshivis_ros.training.voices import SAMPLE_RATE, Sound, Word

RATE = 16_000  # hertz: Whisper's
LONGEST = 29.0  # seconds: it hears 30 at once
LATE = 0.11  # seconds by which its attention follows the sound: tiny.en, nine sentences in three voices whose times are known
AUDIBLE = 0.02  # of the loudest sample
LEAST = 0.04  # seconds that a word lasts at least
Aligner = Callable[[str, Sound], tuple[Word, ...]]


class WhisperAligner:
    """model: a size ("tiny.en", "base.en", ...), a folder in CTranslate2's format, or a Hugging Face repo. English.

    Raises MissingDependencyError without faster-whisper, CheckpointError for a model that cannot be used.
    """

    def __init__(self, model: str, device: str = "auto") -> None:
        try:
            from ctranslate2 import StorageView
            from faster_whisper import WhisperModel
            from faster_whisper.tokenizer import Tokenizer
        except ImportError as error:
            raise MissingDependencyError(
                f"aligning words needs faster-whisper ({error}): pip install 'moshivis_ros[listener]'"
            ) from error
        try:
            self._whisper = WhisperModel(model, device=device)
        except (ValueError, OSError, RuntimeError) as error:
            raise CheckpointError(
                f"the model {model!r} for aligning cannot be loaded ({' '.join(str(error).split())[:300]}): give a size such as "
                "tiny.en, a folder, or a Hugging Face repo"
            ) from error
        self._view = StorageView.from_array
        self._tokenizer: Any = Tokenizer(
            self._whisper.hf_tokenizer, self._whisper.model.is_multilingual, task="transcribe", language="en"
        )
        self._one_at_a_time = threading.Lock()

    def __call__(self, text: str, pcm: Sound) -> tuple[Word, ...]:
        """pcm: float32 at 24 kHz. Times of every word of `text`, one after the other. Raises AudioError."""
        seconds, loudest = len(pcm) / SAMPLE_RATE, np.abs(pcm).max(initial=0.0)
        if seconds > LONGEST:
            raise AudioError(
                f"{seconds:.0f} s of sound: words are aligned in at most {LONGEST:.0f} s; say shorter lines"
            )
        if not loudest > 0:
            raise AudioError(f"nothing is heard where {text!r} is said: its words have no times")
        sound = resample(pcm, SAMPLE_RATE, RATE)
        with self._one_at_a_time:
            features: Any = self._whisper.feature_extractor(sound)
            frames = features.shape[-1]
            features = np.pad(features[:, :3000], ((0, 0), (0, max(0, 3000 - frames)))).astype(np.float32)
            encoded = self._whisper.model.encode(self._view(features[None]), to_cpu=True)
            pieces = self._tokenizer.encode(" " + " ".join(text.split()))
            (found,) = self._whisper.find_alignment(
                self._tokenizer, [pieces], encoded, min(frames, round(seconds * 100))
            )
        heard = np.flatnonzero(np.abs(pcm) > AUDIBLE * loudest) / SAMPLE_RATE
        parts = [(f["word"], float(f["start"]) - LATE, float(f["end"]) - LATE) for f in found]
        return words_of(text, parts, float(heard[0]), float(heard[-1]))


def words_of(text: str, found: list[tuple[str, float, float]], first: float, last: float) -> tuple[Word, ...]:
    """The words of `text` as they stand there, from parts of them with times (as " said", ",") in their order. first,
    last: when something is heard, in seconds."""
    times: list[tuple[float, float]] = []  # of every character that is not a space
    for part, start, end in found:
        letters = part.strip()
        step = (end - start) / max(1, len(letters))
        times += [(start + k * step, start + (k + 1) * step) for k in range(len(letters))]
    words: list[Word] = []
    at, before = 0, first
    for word in text.split():
        own = times[at : at + len(word.rstrip(".,?!;:\"'"))] or times[at : at + len(word)]
        at += len(word)
        start = max(before, min(own[0][0], last)) if own else before
        end = max(start + LEAST, min(own[-1][1], last)) if own else start + LEAST
        words.append(Word(word, start, end))
        before = end
    return tuple(words)
