"""Who speaks: the robot's one voice, the users' many, and a user that training never hears."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np

from moshivis_ros.audio import FRAME_SIZE
from moshivis_ros.training.dialogues import parts
from moshivis_ros.training.people import KokoroVoice
from moshivis_ros.training.voices import SAMPLE_RATE, EspeakVoice, Sound, Speech, Voice, Word

ROBOT = KokoroVoice((("af_heart", 0.5), ("bf_emma", 0.25), ("af_bella", 0.25)), speed=0.94)
USERS = tuple(f"en-us+{name}" for name in ("m1", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4"))
HELD_OUT_USER = "en-us+m2"
NOISE_LEVELS = (0.0, 0.0003, 0.001)  # root mean square, of a full scale of 1
LOUDER_LEVELS = (*NOISE_LEVELS, 0.003, 0.01, 0.03)  # of rooms in which people speak (acoustics)


@dataclass(frozen=True)
class InParts:
    """The robot's voice as the miniature has learned it: an answer is said part by part (see dialogues.parts), each from the
    middle of a frame on.
    """

    voice: Voice

    def say(self, text: str) -> Speech:
        sounds: list[Sound] = []
        times: list[tuple[float, float]] = []
        pieces = parts(text)
        if len(" ".join(pieces).split()) != len(text.split()):  # not an answer of the miniature
            pieces = [text]
        for part in pieces:
            said = louder(self.voice.say(part), 0.6)
            begin = sum(map(len, sounds)) + FRAME_SIZE + FRAME_SIZE // 2
            times += [(word.start + begin / SAMPLE_RATE, word.end + begin / SAMPLE_RATE) for word in said.words]
            frames = (FRAME_SIZE + FRAME_SIZE // 2 + len(said.pcm)) // FRAME_SIZE + 1
            sounds.append(np.zeros(frames * FRAME_SIZE, np.float32))
            sounds[-1][FRAME_SIZE + FRAME_SIZE // 2 :][: len(said.pcm)] = said.pcm
        words = tuple(Word(word, *span) for word, span in zip(text.split(), times, strict=True))
        return Speech(np.concatenate(sounds), words)


def user(rng: random.Random, held_out: bool = False) -> EspeakVoice:
    """A user's voice at a random rate and pitch."""
    name = HELD_OUT_USER if held_out else rng.choice(USERS)
    return EspeakVoice(name, rate=rng.randint(145, 180), pitch=rng.randint(40, 60))


def louder(speech: Speech, peak: float) -> Speech:
    """The same with its largest sample at ``peak``."""
    return replace(speech, pcm=speech.pcm * (peak / max(1e-6, float(np.abs(speech.pcm).max()))))


def noise(rng: random.Random, samples: int, level: float) -> Sound:
    """Room noise, duller than white."""
    white = np.random.default_rng(rng.getrandbits(32)).standard_normal(samples + 1).astype(np.float32)
    return (level * 0.7) * (white[1:] + white[:-1])
