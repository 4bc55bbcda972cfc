"""Text to speech with the time of every word. espeak-ng here; anything with a `say` of the same shape elsewhere."""

from __future__ import annotations

import ctypes
import ctypes.util
import re
from dataclasses import dataclass
from math import gcd
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from moshivis_ros.errors import MissingDependencyError

SAMPLE_RATE = 24000

Sound = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Word:
    """A word and when it is said, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Speech:
    """What a voice said. pcm: float32 at 24 kHz, -1..1. phonemes: (symbol, start) in order."""

    pcm: Sound
    words: tuple[Word, ...]
    phonemes: tuple[tuple[str, float], ...] = ()

    @property
    def seconds(self) -> float:
        return len(self.pcm) / SAMPLE_RATE


class Voice(Protocol):
    """Anybody who can read a sentence aloud and say when each word came."""

    def say(self, text: str) -> Speech: ...


@dataclass(frozen=True)
class EspeakVoice:
    """One voice of espeak-ng. name: as in `espeak-ng -v`, with a variant; rate: words a minute; pitch: 0..99."""

    name: str = "en+f2"
    rate: int = 160
    pitch: int = 50

    def say(self, text: str) -> Speech:
        """Speak ``text``. Every word of it gets its time, also those that espeak runs together."""
        pcm, words, symbols = _espeak().synthesize(text, self)
        return Speech(pcm, mended(text, words, len(pcm) / SAMPLE_RATE), symbols)


def phonemes(text: str, voice: EspeakVoice) -> list[str]:
    """IPA of every clause of ``text``; ^ joins the letters of one sound."""
    return _espeak().phonemes(text, voice)


def word_places(text: str, voice: EspeakVoice) -> list[int]:
    """Where in ``text`` the words begin that `phonemes` sets apart: "on the" is one."""
    return [place for place, _ in _espeak().synthesize(text, voice)[1] if place >= 0]


def at_24_khz(pcm: npt.NDArray[np.floating[Any]], rate: int) -> Sound:
    """Mono sound of any rate (hertz) at 24 kHz."""
    common = gcd(SAMPLE_RATE, rate)
    return np.asarray(resample_poly(pcm, SAMPLE_RATE // common, rate // common), np.float32)


def mended(text: str, events: list[tuple[int, float]], end: float) -> tuple[Word, ...]:
    """Times for all words of ``text`` from the events (place in the text, seconds) of some of them.

    espeak says "on the" and "I am" in one event: the words in between share the time by their letters.
    """
    words = [(match.group(), match.start()) for match in re.finditer(r"\S+", text)]
    times: dict[int, float] = {}
    for place, seconds in events:
        index = max((i for i, (_, start) in enumerate(words) if start <= place), default=0)
        times.setdefault(index, seconds)
    times.setdefault(0, 0.0)
    known = sorted(times)
    starts: list[float] = []
    for index, following in zip(known, [*known[1:], len(words)]):
        stop = times.get(following, end)
        letters = [len(word) for word, _ in words[index:following]]
        for k in range(len(letters)):
            starts.append(times[index] + (stop - times[index]) * sum(letters[:k]) / sum(letters))
    return tuple(Word(word, start, stop) for (word, _), start, stop in zip(words, starts, [*starts[1:], end]))


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


# Synchronous: espeak's other ways hand every sentence to a thread of its own and sleep three quarters of the time.
_SYNCHRONOUS, _PHONEME_EVENTS = 2, 1
_END, _WORD, _PHONEME = 0, 1, 7
_RATE, _PITCH = 1, 3
_UTF8 = 1
_IPA = 0x82 | ord("^") << 8  # with ^ as the tie
_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class _Espeak:
    """The library, which has one state for the whole process."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
        try:
            self._library = ctypes.CDLL(name)
        except OSError as error:
            raise MissingDependencyError(
                f"speech synthesis needs espeak-ng ({error}): apt install espeak-ng"
            ) from error
        self._rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS)
        if self._rate <= 0:
            raise MissingDependencyError("espeak-ng has no voices: apt install espeak-ng-data")
        self._callback = _Callback(self._receive)  # espeak keeps the pointer: it must stay alive
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._voice: EspeakVoice | None = None

    def synthesize(
        self, text: str, voice: EspeakVoice
    ) -> tuple[Sound, list[tuple[int, float]], tuple[tuple[str, float], ...]]:
        self._choose(voice)
        self._chunks: list[npt.NDArray[np.int16]] = []
        self._words: list[tuple[int, float]] = []
        self._phonemes: list[tuple[str, float]] = []
        data = text.encode()
        self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None)
        pcm = np.concatenate(self._chunks).astype(np.float32) / 32768
        return at_24_khz(pcm, self._rate), self._words, tuple(self._phonemes)

    def phonemes(self, text: str, voice: EspeakVoice) -> list[str]:
        self._choose(voice)
        raw = ctypes.create_string_buffer(text.encode())
        rest, clauses = ctypes.c_void_p(ctypes.addressof(raw)), []
        while rest.value:
            clauses.append(self._library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _IPA).decode())
        return clauses

    def _choose(self, voice: EspeakVoice) -> None:
        if voice == self._voice:
            return
        if self._library.espeak_SetVoiceByName(voice.name.encode()):
            raise MissingDependencyError(f"espeak-ng has no voice {voice.name!r}")
        self._library.espeak_SetParameter(_RATE, voice.rate, 0)
        self._library.espeak_SetParameter(_PITCH, voice.pitch, 0)
        self._voice = voice

    def _receive(
        self, wav: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[_Event]
    ) -> int:
        if count > 0:
            self._chunks.append(np.ctypeslib.as_array(wav, (count,)).copy())
        k = 0
        while events[k].type != _END:
            event = events[k]
            if event.type == _WORD:
                self._words.append((event.text_position - 1, event.audio_position / 1000))
            elif event.type == _PHONEME:
                self._phonemes.append((event.id.string.decode(errors="replace"), event.audio_position / 1000))
            k += 1
        return 0


_library: _Espeak | None = None


def _espeak() -> _Espeak:
    global _library
    if _library is None:
        _library = _Espeak()
    return _library
