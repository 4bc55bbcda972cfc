"""How the miniature behaves among people: interrupted, spoken to about what it does not know, in noise, and with its own echo.

    python benchmarks/manners.py [MODEL] [--count 60] [--voice "espeak m2"]

Everything is heard as sound by a Conversation with the randomness that suits the checkpoint; phrasings, pictures and the
voice are none of training. Printed:

- of answers into which another question came: how many were silent 0.6 s after it began, and how many of the other questions
  were answered right;
- of speech that is no question, and of questions, how many were answered "I did not understand.";
- how often it began to speak in silence, noise, music and the talk of others, each a minute long or as long as is said;
- how often it spoke without having been asked while it heard its own voice again, 0.24 s later and 20 dB lower.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from moshivis_ros import Conversation
from moshivis_ros.audio import FRAME_SIZE, SAMPLE_RATE, Float
from moshivis_ros.evaluation.scoring import score
from moshivis_ros.evaluation.voices_test import VOICES
from moshivis_ros.training import dialogues, speakers
from moshivis_ros.training.dialogues import Exchange
from moshivis_ros.training.pictures import Picture, pictures
from moshivis_ros.vision.refresh_policy import Settings

RATE = SAMPLE_RATE / FRAME_SIZE  # frames a second
SILENT = round(0.6 * RATE)  # frames in which an interrupted answer has to end
ANSWER = round(5 * RATE)  # frames for an answer
AUDIBLE = 0.02  # of full scale
PAUSE = round(1 * RATE)  # frames without a word, after which a word is a new beginning
ECHO_DELAY, ECHO = 3, 0.1  # frames, gain
Ask = Callable[[str], Float]


class Talk:
    """A conversation, and what was said in it: text and loudness of each frame."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.texts: list[str] = []
        self.peaks: list[float] = []
        self.sound: list[Float] = []

    def begin(self, picture: Picture) -> None:
        self.conversation.reset()
        self.conversation.see(picture.pixels, wait=True)
        self.texts, self.peaks, self.sound = [], [], []
        self.hear(np.zeros(5 * FRAME_SIZE, np.float32))

    def hear(self, sound: Float, echo: bool = False) -> None:
        sound = np.pad(sound, (0, -len(sound) % FRAME_SIZE))
        for start in range(0, len(sound), FRAME_SIZE):
            heard = sound[start : start + FRAME_SIZE]
            if echo and len(self.sound) >= ECHO_DELAY:
                heard = heard + ECHO * self.sound[-ECHO_DELAY]
            frame = self.conversation.step(heard.astype(np.float32))
            self.texts.append(frame.text or "")
            self.peaks.append(float(np.abs(frame.pcm).max()))
            self.sound.append(frame.pcm)

    def wait(self, frames: int) -> None:
        self.hear(np.zeros(frames * FRAME_SIZE, np.float32))

    @property
    def text(self) -> str:
        return "".join(self.texts).strip()

    @property
    def beginnings(self) -> int:
        """How often it began to speak."""
        spoken = [number for number, text in enumerate(self.texts) if text]
        return sum(b - a > PAUSE for a, b in zip([-PAUSE - 1, *spoken], spoken))


def questions(count: int, kinds: Sequence[str], seed: str, scenes: Iterator[Picture]) -> list[tuple[Exchange, Picture]]:
    rng = random.Random(seed)
    found: list[tuple[Exchange, Picture]] = []
    while len(found) < count:
        picture = next(scenes)
        exchange = dialogues.QUESTIONS[kinds[len(found) % len(kinds)]](rng, picture.view, True)
        if exchange is not None:
            found.append((exchange, picture))
    return found


def interrupted(talk: Talk, ask: Ask, count: int, scenes: Iterator[Picture]) -> str:
    """A question comes into the answer to another one, about the same picture."""
    rng = random.Random("interrupted")
    silent = right = asked = 0
    for first, picture in questions(count, ("describe", "place", "colour"), "first", scenes):
        second = None
        while second is None or second.question == first.question:
            second = dialogues.QUESTIONS[rng.choice(("colour", "place", "number", "small talk"))](rng, picture.view, True)
        talk.begin(picture)
        talk.hear(ask(first.question))
        for _ in range(ANSWER):
            if talk.text:
                break
            talk.wait(1)
        talk.wait(rng.randint(3, 8))
        if not talk.text or max(talk.peaks[-3:]) < AUDIBLE:  # nothing to be interrupted
            continue
        begun = len(talk.peaks)
        talk.hear(ask(second.question))
        over = len(talk.peaks)
        asked += 1
        silent += max(talk.peaks[begun + SILENT : over], default=0.0) < AUDIBLE
        talk.wait(ANSWER)
        right += score(second, "".join(talk.texts[begun + SILENT :]).strip()).right
    return f"interrupted: {silent} of {asked} answers silent after 0.6 s, {right} of {asked} other questions answered right"


def understood(talk: Talk, ask: Ask, count: int, scenes: Iterator[Picture]) -> Iterator[str]:
    rng = random.Random("unknown")
    unknown = [dialogues.unknown(rng, True) for _ in range(count)]
    answer = unknown[0].answer
    known = questions(count, [kind for kind in dialogues.QUESTIONS if kind != "teacher"], "known", scenes)
    for name, asked in (
        ("speech that is no question", [(exchange, next(scenes)) for exchange in unknown]),
        ("questions", known),
    ):
        said = []
        for exchange, picture in asked:
            talk.begin(picture)
            talk.hear(ask(exchange.question))
            talk.wait(ANSWER)
            said.append(talk.text)
        missed = sum(text == answer for text in said)
        right = sum(score(exchange, text).right for (exchange, _), text in zip(asked, said))
        also = f", {right} answered right" if name == "questions" else f", {said.count('')} not at all"
        yield f'{name}: {missed} of {len(said)} answered "{answer}"{also}'


def noises(ask: Ask, seconds: float) -> Iterator[tuple[str, Float]]:
    rng, frames = random.Random("noise"), round(seconds * RATE)
    samples = frames * FRAME_SIZE
    yield "silence", np.zeros(samples, np.float32)
    yield "noise (0.03 of full scale)", speakers.noise(rng, samples, 0.03)
    times = np.arange(samples) / SAMPLE_RATE
    music = np.zeros(samples)
    for start in np.arange(0, seconds, 0.4):  # broken chords, two notes at a time
        for note in rng.sample((0, 4, 7, 12, 16), 2):
            since = times - start
            tone = np.sin(2 * np.pi * 220 * 2 ** (note / 12) * since) + 0.4 * np.sin(4 * np.pi * 220 * 2 ** (note / 12) * since)
            music += np.where(since >= 0, tone * np.exp(-5 * since.clip(min=0)), 0)
    yield "music (0.2 at its loudest)", (0.2 * music / np.abs(music).max()).astype(np.float32)
    talk = np.concatenate([ask(dialogues.unknown(rng, True).question) for _ in range(round(seconds / 2))])
    yield "talk of others (0.05 at its loudest)", (0.1 * np.resize(talk, samples)).astype(np.float32)


def echoed(talk: Talk, ask: Ask, seconds: float, scenes: Iterator[Picture]) -> str:
    """Questions ten seconds apart, and nothing else but its own voice."""
    answered = 0
    asked = questions(round(seconds / 10), ("colour", "place", "small talk"), "echo", scenes)
    talk.begin(asked[0][1])
    before = talk.beginnings
    for exchange, picture in asked:
        talk.conversation.see(picture.pixels, wait=True)
        begun = len(talk.peaks)
        talk.hear(ask(exchange.question), echo=True)
        rest = round(10 * RATE) - (len(talk.peaks) - begun)
        talk.hear(np.zeros(rest * FRAME_SIZE, np.float32), echo=True)
        answered += any(talk.texts[begun:])
    extra = talk.beginnings - before - answered
    return f"own echo: {len(asked)} questions in {seconds / 60:.0f} minutes, {answered} answered, {extra} more beginnings"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="builtin")
    parser.add_argument("--count", type=int, default=60, help="of each sort (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each noise; five times that with echo (%(default)s)")
    parser.add_argument("--voice", choices=list(VOICES), default="espeak m2")
    args = parser.parse_args()
    torch.set_num_threads(1)
    voice = VOICES[args.voice]

    def ask(text: str) -> Float:
        return speakers.louder(voice.say(text), 0.5).pcm

    with Conversation.load(args.model, device="cpu", seed=1, refresh=Settings(policy="manual")) as conversation:
        siglip = conversation.config.siglip
        scenes = pictures(97, siglip.image_size, siglip.patch_size)
        talk = Talk(conversation)
        print(interrupted(talk, ask, args.count, scenes), flush=True)
        for line in understood(talk, ask, args.count, scenes):
            print(line, flush=True)
        for name, sound in noises(ask, args.seconds):
            talk.begin(next(scenes))
            before = talk.beginnings
            talk.hear(sound)
            print(f"{name}: began to speak {talk.beginnings - before} times in {args.seconds:.0f} s", flush=True)
        print(echoed(talk, ask, 5 * args.seconds, scenes), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
