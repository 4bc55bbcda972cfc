"""How well the listener understands the questions that the miniature understands: its word error rate.

    python -m moshivis_ros.evaluation.heard MODEL [--questions 100]

Spoken by espeak-ng's voices of the training and by one that training never has, in a little noise; found and understood as the
node does it. Spellings of one word count as the same.
"""

from __future__ import annotations

import argparse
import random
import time

import numpy as np
import numpy.typing as npt

from moshivis_ros.audio.resample import resample
from moshivis_ros.evaluation.intelligibility import word_error_rate, words_of
from moshivis_ros.hearing import FRAME_SECONDS, FRAME_SIZE, SAMPLE_RATE
from moshivis_ros.hearing.detector import SpeechDetector
from moshivis_ros.hearing.recogniser import Recogniser
from moshivis_ros.hearing.utterances import Utterances
from moshivis_ros.training import speakers
from moshivis_ros.training.dialogues import exchange, random_view

AMERICAN = {"color": "colour"}
FRAME = round(FRAME_SECONDS * 1e9)  # nanoseconds


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heard", description=__doc__.split("\n")[0])
    parser.add_argument("model", help="as the listener's parameter: a size, a folder or a Hugging Face repo")
    parser.add_argument("--questions", type=int, default=100, help="of each kind of voice (%(default)s)")
    options = parser.parse_args(args)
    recogniser, detector = Recogniser(options.model), SpeechDetector()
    for held_out in (False, True):
        rng = random.Random(0)
        pairs, found, seconds = [], 0, 0.0
        for _ in range(options.questions):
            question = exchange(rng, random_view(rng), held_out=held_out).question
            sound = _spoken(rng, question, held_out)
            start = time.process_time()
            utterances = _utterances(detector, sound)
            texts = [recogniser(utterance).text for utterance in utterances]
            seconds += time.process_time() - start
            found += len(utterances) == 1
            pairs.append((words_of(question), [AMERICAN.get(word, word) for word in words_of(" ".join(texts))]))
        right = sum(said == heard for said, heard in pairs)
        print(
            f"{'a voice unknown to training' if held_out else 'voices of training'}: {len(pairs)} questions, word error rate "
            f"{100 * word_error_rate(pairs):.1f} %, {right} without an error, {found} found as one utterance, "
            f"{seconds / len(pairs):.2f} s of a core each"
        )


def _spoken(rng: random.Random, text: str, held_out: bool) -> npt.NDArray[np.float32]:
    """float32 at 16 kHz, in silence."""
    speech = speakers.louder(speakers.user(rng, held_out).say(text), rng.uniform(0.2, 0.6)).pcm
    rest = np.zeros(24000, np.float32)
    sound = np.concatenate([rest, speech, rest])
    return resample(sound + speakers.noise(rng, len(sound), rng.choice(speakers.NOISE_LEVELS)), 24000, SAMPLE_RATE)


def _utterances(detector: SpeechDetector, sound: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    utterances = Utterances(pause=0.5, every=0)
    found = []
    for n in range(len(sound) // FRAME_SIZE):
        frame = sound[n * FRAME_SIZE : (n + 1) * FRAME_SIZE]
        found.append(utterances.push(n * FRAME, frame, detector(frame)))
    return [utterance.sound for utterance in found if utterance]


if __name__ == "__main__":
    main()
