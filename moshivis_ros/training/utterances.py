"""Spoken sentences as codec tokens. Dialogues are put together from them, so that every sample can be a new one.

An utterance is spoken and encoded with silence around it, several times over: other voices, rates, noise, and other
offsets within a frame, for the same sentence is never the same tokens twice.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from moshivis_ros.model.codec import FRAME_SIZE, SAMPLE_RATE
from moshivis_ros.training import acoustics, speakers
from moshivis_ros.training.people import FliteVoice
from moshivis_ros.training.vocoder import vocoded
from moshivis_ros.training.voices import Sound, Speech

LEAD, TAIL = 8, 5  # frames of silence that are encoded before and after the words
KEPT_LEAD, KEPT_TAIL = 1, 2  # of which these are kept
SILENCE_SECONDS = 20
AT_ONCE = 1024
FLITE_USER = "rms"
PLAINER = 0.25  # of the recordings: as a vocoder makes them

Takes = Mapping[str, Sequence[Speech]]
"""Recordings (make_takes), by text."""


@dataclass(frozen=True)
class Utterance:
    """codes: int16 [K, T]. words: (word, frame in which it starts). end: frame in which the sound ends."""

    codes: npt.NDArray[np.int16]
    words: tuple[tuple[str, float], ...]
    end: float
    noise: int  # index into speakers.LOUDER_LEVELS


@dataclass(frozen=True)
class Library:
    """Renderings of the user's sentences, of the parts of the robot's, and of nobody at every level of noise [K, T]; and of
    the parts as the robot hears them back from its loudspeaker."""

    user: dict[str, list[Utterance]]
    robot: dict[str, list[Utterance]]
    silence: tuple[npt.NDArray[np.int16], ...]
    echo: dict[str, list[Utterance]] = field(default_factory=dict)


@dataclass(frozen=True)
class Recording:
    """Sound with silence around it; words and end as those of its Utterance, in frames."""

    pcm: Sound
    words: tuple[tuple[str, float], ...]
    end: float
    noise: int


def record(text: str, rng: random.Random, held_out: bool = False) -> Recording:
    """``text`` in one of espeak-ng's voices for users."""
    speech = speakers.louder(speakers.user(rng, held_out).say(text), rng.uniform(0.3, 0.8))
    return placed(speech, rng, rng.randrange(len(speakers.NOISE_LEVELS)))


def record_robot(text: str, rng: random.Random, robot: Takes) -> Recording:
    """``text`` as the robot says it, a little louder or quieter."""
    return placed(speakers.louder(rng.choice(robot[text]), rng.uniform(0.5, 0.7)), rng, 0)


def record_somebody(text: str, rng: random.Random, takes: Takes) -> Recording:
    """``text`` said by a person (one of ``takes``, if it has this text), by flite or by espeak-ng, somewhere."""
    draw = rng.random()
    speech: Speech
    if draw < 0.55 and text in takes:
        speech = rng.choice(takes[text])
    elif draw < 0.75:
        speech = FliteVoice(FLITE_USER, rng.uniform(0.85, 1.2)).say(text)
    elif draw < 0.83:
        return record(text, rng)
    else:
        speech = speakers.user(rng).say(text)
    if rng.random() < PLAINER:
        speech = vocoded(rng, speech)
    level = acoustics.level(rng)
    return placed(acoustics.heard(rng, speech, speakers.LOUDER_LEVELS[level]), rng, level)


def record_echo(text: str, rng: random.Random, robot: Takes) -> Recording:
    """What is left of ``text`` in the robot's voice, 14 to 30 dB lower, in a room."""
    speech = rng.choice(robot[text])
    back = replace(speech, pcm=acoustics.in_room(speech.pcm, rng.choice(acoustics.rooms())))
    back = speakers.louder(back, 0.6 * 10 ** (-rng.uniform(14, 30) / 20))
    return placed(back, rng, rng.randrange(len(speakers.NOISE_LEVELS)))


def placed(speech: Speech, rng: random.Random, level: int) -> Recording:
    """``speech`` with silence around it, in the noise of LOUDER_LEVELS[level], anywhere within a frame."""
    before = LEAD * FRAME_SIZE + rng.randrange(FRAME_SIZE)
    frames = -(-(before + len(speech.pcm)) // FRAME_SIZE) + TAIL
    pcm = speakers.noise(rng, frames * FRAME_SIZE, speakers.LOUDER_LEVELS[level])
    pcm[before : before + len(speech.pcm)] += speech.pcm
    shift = before / SAMPLE_RATE - (LEAD - KEPT_LEAD) * FRAME_SIZE / SAMPLE_RATE
    words = tuple((word.text, (word.start + shift) * SAMPLE_RATE / FRAME_SIZE) for word in speech.words)
    return Recording(pcm, words, (speech.seconds + shift) * SAMPLE_RATE / FRAME_SIZE, level)


@torch.no_grad()
def encode(mimi: Any, recordings: Iterable[Recording], batch: int = 16) -> list[Utterance]:
    """Codec tokens of recordings, in their order. Only AT_ONCE of them are in memory."""
    coming, encoded = iter(recordings), []
    while some := list(islice(coming, AT_ONCE)):
        encoded += _encode(mimi, some, batch)
    return encoded


def _encode(mimi: Any, recordings: list[Recording], batch: int) -> list[Utterance]:
    order = sorted(range(len(recordings)), key=lambda k: len(recordings[k].pcm))
    found: dict[int, Utterance] = {}
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        longest = max(len(recordings[k].pcm) for k in part)
        sound = torch.zeros(len(part), 1, longest)
        for row, k in enumerate(part):
            sound[row, 0, : len(recordings[k].pcm)] = torch.from_numpy(recordings[k].pcm)
        codes = mimi_codes(mimi, sound).numpy().astype(np.int16)
        for row, k in enumerate(part):
            one = recordings[k]
            frames = len(one.pcm) // FRAME_SIZE
            kept = codes[row, :, LEAD - KEPT_LEAD : frames - TAIL + KEPT_TAIL].copy()
            found[k] = Utterance(kept, one.words, one.end, one.noise)
    return [found[k] for k in range(len(recordings))]


def mimi_codes(mimi: Any, sound: Tensor) -> Tensor:
    """Codes [B, K, T] of sound [B, 1, T * 1920], wherever the codec is."""
    from moshi.utils.compile import no_compile

    with no_compile():
        codes: Tensor = mimi.encode(sound.to(next(mimi.parameters()).device)).cpu()
    return codes


def join(parts: Sequence[Utterance]) -> Utterance:
    """One after the other without the silence that follows all but the last."""
    codes, words, place = [], [], 0
    for part in parts[:-1]:
        length = int(part.end) + 1
        codes.append(part.codes[:, :length])
        words += [(word, place + at) for word, at in part.words]
        place += length
    last = parts[-1]
    words += [(word, place + at) for word, at in last.words]
    return Utterance(np.concatenate((*codes, last.codes), 1), tuple(words), place + last.end, last.noise)


def build(
    mimi: Any,
    questions: dict[str, int],
    answers: dict[str, int],
    seed: int,
    robot: Takes = MappingProxyType({}),
    people: Takes | None = None,
    held_out: bool = False,
    echoes: Sequence[str] = (),
) -> Library:
    """Speak and encode every text as often as it says. robot: what it says, by its own voice. people: who asks too then, in
    any room. echoes: what the robot hears of itself."""
    rng = random.Random(f"utterances {seed}")
    asked, answered = ([text for text, n in each.items() for _ in range(n)] for each in (questions, answers))
    speaking = partial(track, console=Console(stderr=True), transient=True)

    def ask(text: str) -> Recording:
        return record(text, rng, held_out) if people is None else record_somebody(text, rng, people)

    user = encode(mimi, (ask(text) for text in speaking(asked, "recording questions")))
    own = encode(mimi, (record_robot(text, rng, robot) for text in speaking(answered, "recording answers")))
    levels = speakers.NOISE_LEVELS if people is None else speakers.LOUDER_LEVELS
    library = Library({}, {}, silences(mimi, rng, levels))
    for text, utterance in zip(asked, user):
        library.user.setdefault(text, []).append(utterance)
    for text, utterance in zip(answered, own):
        library.robot.setdefault(text, []).append(utterance)
    for text, utterance in zip(echoes, encode(mimi, (record_echo(text, rng, robot) for text in echoes))):
        library.echo.setdefault(text, []).append(utterance)
    return library


def silences(mimi: Any, rng: random.Random, levels: Sequence[float]) -> tuple[npt.NDArray[np.int16], ...]:
    """Codec tokens of nobody in noise of these levels."""
    samples = (SILENCE_SECONDS * SAMPLE_RATE) // FRAME_SIZE * FRAME_SIZE
    sounds = [speakers.noise(rng, samples, level) for level in levels]
    with torch.no_grad():
        codes = mimi_codes(mimi, torch.from_numpy(np.stack(sounds))[:, None])
    return tuple(row[:, LEAD:].numpy().astype(np.int16) for row in codes)


def save(library: Library, path: Path) -> None:
    """One npz: all codes in a row, and where each utterance is."""
    rows, codes, place = [], [], 0
    for who in ("user", "robot", "echo"):
        for text, utterances in getattr(library, who).items():
            for u in utterances:
                rows.append([who, text, place, u.codes.shape[1], u.words, u.end, u.noise])
                codes.append(u.codes)
                place += u.codes.shape[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, codes=np.concatenate(codes, 1), silence=np.stack(library.silence), index=json.dumps(rows))
    part.replace(path)  # whole, or not there


def load(path: Path | str) -> Library:
    with np.load(path) as file:
        codes, silence, rows = file["codes"], file["silence"], json.loads(str(file["index"]))
    library = Library({}, {}, tuple(silence))
    for who, text, place, length, words, end, noise in rows:
        spoken = tuple((word, at) for word, at in words)
        utterance = Utterance(codes[:, place : place + length], spoken, end, noise)
        getattr(library, who).setdefault(text, []).append(utterance)
    return library
