"""Voices by their names on the command line, all with the `say` of training.voices.Voice.

espeak            one of espeak-ng's; as a user's, another of eleven in each dialogue, at another rate and pitch
miniature         the miniature itself, with a pause between the things that it names; it has few words
espeak:NAME       one of espeak-ng's (`espeak-ng --voices`)
piper:FILE        a voice of Piper (FILE.onnx and FILE.onnx.json); FILE#3 its third speaker, FILE of many another each time
command:LINE      any program: {text} and {out} (a WAV file to write) in it are filled in; without {text} it reads the text,
                  without {out} it writes the WAV file to its output
"""

from __future__ import annotations

import random
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from moshivis_ros.audio.files import read
from moshivis_ros.data.aligner import Aligner
from moshivis_ros.errors import AudioError, ConfigError, MissingDependencyError
from moshivis_ros.training import acoustics, speakers
from moshivis_ros.training.own_voice import OwnVoice
from moshivis_ros.training.voices import (
    SAMPLE_RATE,
    EspeakVoice,
    Sound,
    Speech,
    Voice,
    Word,
    at_24_khz,
    mended,
)

ESPEAK = EspeakVoice("gmw/en+f2", rate=170)  # the robot's
TIMEOUT = 120.0  # seconds for a program to say a line
LEAST = 0.1  # seconds of sound that a line has at least


def voice(name: str, user: bool) -> Callable[[random.Random], Voice]:
    """What draws a voice for a dialogue. user: not the robot. Raises ConfigError for a name that says nothing."""
    kind, _, what = name.partition(":")
    if kind == "espeak":
        if what:
            return lambda rng: EspeakVoice(what)
        return speakers.user if user else (lambda rng: ESPEAK)
    if name == "miniature":
        own = speakers.InParts(OwnVoice())
        return lambda rng: own
    if kind == "piper" and what:
        file, _, number = what.partition("#")
        if number and not number.isdecimal():
            raise ConfigError(f"{name}: the number of a speaker is wanted after #")
        known = _piper(file)
        speaker = int(number) if number else None if user else 0
        return lambda rng: PiperVoice(file, rng.randrange(known) if speaker is None else speaker)
    if kind == "command" and what:
        try:
            words = tuple(shlex.split(what))
        except ValueError as error:
            raise ConfigError(f"{name}: not a command line ({error})") from error
        return lambda rng: CommandVoice(words)
    raise ConfigError(f"{name}: no voice; give espeak, espeak:NAME, miniature, piper:FILE or command:LINE")


@dataclass(frozen=True)
class CommandVoice:
    """A program that speaks. The times of words are guessed by their letters: align them."""

    words: tuple[str, ...]

    def say(self, text: str) -> Speech:
        """Raises AudioError where it fails, is silent or takes longer than TIMEOUT."""
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            line = [word.replace("{out}", file.name).replace("{text}", text) for word in self.words]
            spoken = "{text}" not in " ".join(self.words)
            try:
                done = subprocess.run(
                    line, input=text.encode() if spoken else b"", capture_output=True, timeout=TIMEOUT
                )
            except (OSError, ValueError, subprocess.TimeoutExpired) as error:
                raise AudioError(f"the voice `{' '.join(self.words)}` does not speak: {error}") from error
            if done.returncode:
                said = done.stderr.decode(errors="replace").strip().splitlines()
                raise AudioError(
                    f"the voice `{' '.join(self.words)}` ended with {done.returncode}: {said[-1] if said else 'nothing said'}"
                )
            if "{out}" not in " ".join(self.words):
                Path(file.name).write_bytes(done.stdout)
            return _speech(text, read(file.name, SAMPLE_RATE), f"the voice `{' '.join(self.words)}`")


@dataclass(frozen=True)
class PiperVoice:
    """A voice of Piper. The times of words are guessed by their letters, sentence by sentence: align them."""

    file: str
    speaker: int = 0

    def say(self, text: str) -> Speech:
        from piper import SynthesisConfig

        loaded = _piper_of(self.file)
        many = loaded.config.num_speakers > 1
        chunks = loaded.synthesize(text, SynthesisConfig(speaker_id=self.speaker if many else None))
        sounds = [at_24_khz(chunk.audio_float_array, chunk.sample_rate) for chunk in chunks]
        pcm = np.concatenate(sounds) if sounds else np.zeros(0, np.float32)
        speech = _speech(text, pcm, f"the voice {self.file}")
        sentences = re.findall(r"\S.*?[.?!]+(?=\s|$)|\S.*$", text)
        if len(sentences) != len(sounds):
            return speech
        words: list[Word] = []
        for sentence, sound in zip(sentences, sounds):
            begin = words[-1].end if words else 0.0
            words += (
                replace(w, start=w.start + begin, end=w.end + begin)
                for w in mended(sentence, [], len(sound) / SAMPLE_RATE)
            )
        return replace(speech, words=tuple(words))


@dataclass(frozen=True)
class Aligned:
    """A voice whose words get their times by listening to it."""

    voice: Voice
    aligner: Aligner

    def say(self, text: str) -> Speech:
        speech = self.voice.say(text)
        return replace(speech, words=self.aligner(text, speech.pcm))


@dataclass(frozen=True)
class Somewhere:
    """The same person through the same microphone in the same room, whatever is said. seed: which."""

    voice: Voice
    seed: int

    def say(self, text: str) -> Speech:
        return acoustics.heard(random.Random(self.seed), self.voice.say(text), speakers.NOISE_LEVELS[-1])


def _speech(text: str, pcm: Sound, who: str) -> Speech:
    if len(pcm) < LEAST * SAMPLE_RATE or not np.abs(pcm).max() > 0:
        raise AudioError(f"{who} gives no sound for {text!r}; try it by hand")
    return Speech(np.asarray(pcm, np.float32), mended(text, [], len(pcm) / SAMPLE_RATE))


def _piper(file: str) -> int:
    """How many speakers it has."""
    return max(1, int(_piper_of(file).config.num_speakers))


@cache
def _piper_of(file: str) -> Any:
    path = Path(file).expanduser()
    missing = [str(part) for part in (path, Path(f"{path}.json")) if not part.is_file()]
    if missing:
        raise ConfigError(f"there is no {' and no '.join(missing)}: python -m piper.download_voices gets one")
    try:
        import piper
    except ImportError as error:
        raise MissingDependencyError(f"Piper is not installed ({error}): pip install piper-tts") from error
    return piper.PiperVoice.load(path)
