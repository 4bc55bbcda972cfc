"""A data set of spoken dialogues about simulated pictures (`moshivis make-dialogues` without other pictures).

In the convention of kyutai-labs/moshi-finetune: stereo wav (left the model, right the user), beside it a JSON file
with `alignments` [[word, [start, end], "SPEAKER_MAIN"], ...] of the model's words, and a .jsonl index of {"path",
"duration"}; here also {"image", "view", "turns"}. Where a turn is "interrupted", the user speaks into the answer and the
model falls silent. Every question about the picture is also a sample without sound, so that it is as folder.py reads it.
"""

from __future__ import annotations

import json
import random
import wave
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from moshivis_ros.errors import ConfigError
from moshivis_ros.training import speakers
from moshivis_ros.training.dialogues import Exchange, View, dialogue
from moshivis_ros.training.folder import MAIN, SPEECHLESS
from moshivis_ros.training.own_voice import OwnVoice
from moshivis_ros.training.pictures import pictures
from moshivis_ros.training.voices import SAMPLE_RATE, Sound, Speech, Voice, Word

INDEX = "dialogues.jsonl"
REJECTED = "rejected.log"  # what could not be made, and why (data.folder)
USER = "SPEAKER_USER"
INTERRUPTED = 0.15  # share of the answers, but the last, into which the user speaks
REACTION = 0.3  # seconds until the robot falls silent then
FADE = 0.02  # seconds


@dataclass(frozen=True)
class Spoken:
    """A dialogue as sound. model, user: float32 at 24 kHz of one length; words: (speaker, word) in order; interrupted:
    whether the user did not let the model finish, for each answer; answers: from when to when each is heard, in seconds."""

    model: Sound
    user: Sound
    words: tuple[tuple[str, Word], ...]
    interrupted: tuple[bool, ...]
    answers: tuple[tuple[float, float], ...]

    @property
    def seconds(self) -> float:
        return len(self.model) / SAMPLE_RATE


def speak(
    rng: random.Random, exchanges: list[Exchange], robot: Voice, user: Voice, tail: float = 1.5
) -> Spoken:
    """Say a dialogue. The user interrupts now and then, waits now and then; a silence of ``tail`` seconds ends it."""
    clips: list[tuple[str, float, Sound]] = []
    words: list[tuple[str, Word]] = []
    interrupted: list[bool] = []
    answers: list[tuple[float, float]] = []

    def say(who: str, speech: Speech) -> None:
        clips.append((who, now, speech.pcm))
        words.extend((who, Word(w.text, w.start + now, w.end + now)) for w in speech.words)

    now = rng.uniform(0.3, 1.5)
    for number, exchange in enumerate(exchanges, start=1):
        question = speakers.louder(user.say(exchange.question), 0.6)
        say(USER, question)
        now += question.seconds + rng.uniform(0.25, 0.5)
        answer = speakers.louder(robot.say(exchange.answer), 0.6)
        interrupted.append(number < len(exchanges) and rng.random() < INTERRUPTED)
        if interrupted[-1]:
            heard = rng.uniform(0.3, 0.7) * answer.seconds
            answers.append((now, now + min(heard + REACTION, answer.seconds)))
            say(MAIN, _until(answer, heard + REACTION))
            now += heard
        else:
            answers.append((now, now + answer.seconds))
            say(MAIN, answer)
            now += answer.seconds + rng.choice((0.1, 0.5, 1.0, 3.0))
    length = round((now + tail) * SAMPLE_RATE)
    channels = {who: np.zeros(length, np.float32) for who in (MAIN, USER)}
    for who, start, pcm in clips:
        begin = round(start * SAMPLE_RATE)
        channels[who][begin : begin + len(pcm)] += pcm
    channels[USER] += speakers.noise(rng, length, rng.choice(speakers.NOISE_LEVELS))
    return Spoken(channels[MAIN], channels[USER], tuple(words), tuple(interrupted), tuple(answers))


def _until(speech: Speech, end: float) -> Speech:
    """What was said by ``end`` (seconds): a word that was begun counts."""
    pcm = speech.pcm[: round(end * SAMPLE_RATE)].copy()
    fade = round(FADE * SAMPLE_RATE)
    pcm[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    words = tuple(Word(w.text, w.start, min(w.end, end)) for w in speech.words if w.start < end)
    return Speech(pcm, words)


def write(
    folder: Path, name: str, spoken: Spoken, pixels: Any, view: View, exchanges: list[Exchange]
) -> dict[str, Any]:
    """One dialogue's files; returns its line of the index."""
    import cv2

    stereo = np.stack((spoken.model, spoken.user), 1)
    with wave.open(str(folder / f"{name}.wav"), "wb") as file:
        file.setparams((2, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes((stereo.clip(-1, 1) * 32767).astype("<i2").tobytes())
    alignments = [
        [w.text, [round(w.start, 3), round(w.end, 3)], who] for who, w in spoken.words if who == MAIN
    ]
    visual = [
        [round(start, 3), round(end, 3)]
        for exchange, (start, end) in zip(exchanges, spoken.answers)
        if exchange.seen
    ]
    beside = {"alignments": alignments, "images": [{"path": f"{name}.png", "at": 0.0}], "visual": visual}
    (folder / f"{name}.json").write_text(json.dumps(beside), encoding="utf-8")
    cv2.imwrite(str(folder / f"{name}.png"), pixels[..., ::-1])
    return {
        "path": f"{name}.wav",
        "duration": round(spoken.seconds, 3),
        "image": f"{name}.png",
        "view": [asdict(item) for item in view],
        "turns": [
            {"kind": e.kind, "question": e.question, "answer": e.answer, "interrupted": interrupted}
            for e, interrupted in zip(exchanges, spoken.interrupted)
        ],
    }


def make(folder: Path, count: int, seed: int, size: int, held_out: bool) -> None:
    """``count`` dialogues in ``folder``."""
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    source, robot = pictures(seed, size, 14), speakers.InParts(OwnVoice())
    with (
        (folder / INDEX).open("w", encoding="utf-8") as index,
        (folder / SPEECHLESS).open("w", encoding="utf-8") as speechless,
    ):
        for k in track(range(count), "dialogues"):
            rng = random.Random(f"dialogue {seed} {k}")
            picture = next(source)
            exchanges = dialogue(rng, picture.view, rng.randint(2, 5), held_out)
            spoken = speak(rng, exchanges, robot, speakers.user(rng, held_out))
            line = write(folder, f"{k:06}", spoken, picture.pixels, picture.view, exchanges)
            index.write(json.dumps(line) + "\n")
            for one in exchanges:
                if one.seen:
                    sample = {"image": line["image"], "prompt": one.question, "text": one.answer}
                    speechless.write(json.dumps(sample) + "\n")
