"""A stated generative model of a conversation about what a camera sees: who speaks when, and the gate.

Questions, answers of one to three phrases and pauses, drawn from a seed; six answers in ten are about the view;
three questions in ten follow a change. recorded_talk.py has what a trained model really says.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

FRAME_SECONDS = 0.08
PAUSE_FRAMES = 8  # frames without text after which the model counts as silent, as in conversation.py
GATE_LOW, GATE_HIGH = 0.005, 0.021  # of the released model

# Normalised gate in the middle between visual and other speech, in silence, and the spread of one frame.
_MIDDLE, _SILENT, _SPREAD = 0.45, 0.2, 0.2


@dataclass(frozen=True)
class Talk:
    """One conversation, frame by frame.

    text: a text token comes out; sentence_end: it ends a sentence; gate: raw, between gate_low and gate_high.
    answers: frame of the first content word of each answer about the view; phrases: (frame in which the first
    content word is over and the next begins, frame of the last word) of each phrase about the view.
    """

    text: npt.NDArray[np.bool_]
    sentence_end: npt.NDArray[np.bool_]
    gate: npt.NDArray[np.float32]
    phrases: tuple[tuple[int, int], ...]
    answers: tuple[int, ...]
    gate_low: float = GATE_LOW
    gate_high: float = GATE_HIGH


@dataclass(frozen=True)
class Recording:
    """talks: whole conversations; auc: how well the gate of a word tells if its answer is about the picture."""

    talks: tuple[Talk, ...]
    auc: float

    def cut(self, seed: int, frames: int) -> Talk:
        """So many frames of one of the conversations, drawn from the seed."""
        rng = random.Random(f"cut {seed}")
        talk = rng.choice(self.talks)
        start = rng.randrange(len(talk.text) - frames + 1)
        part = slice(start, start + frames)
        phrases = [
            (max(first - start, 0), min(last - start, frames - 1))
            for first, last in talk.phrases
            if last >= start and first < start + frames
        ]
        answers = [frame - start for frame in talk.answers if start <= frame < start + frames]
        return replace(
            talk,
            text=talk.text[part],
            sentence_end=talk.sentence_end[part],
            gate=talk.gate[part],
            phrases=tuple(phrases),
            answers=tuple(answers),
        )


def generate(seed: int, frames: int, auc: float, changes: tuple[int, ...] = ()) -> Talk:
    """The conversation of this seed; the timing does not depend on auc.

    auc: how well a single frame's gate tells speech about the view from other speech. changes: frames at
    which something changes, for the questions that this provokes.
    """
    rng = random.Random(f"talk {seed}")
    text, ends = np.zeros(frames, bool), np.zeros(frames, bool)
    visual, spoken = np.zeros(frames, bool), np.zeros(frames, int)  # spoken: number of the phrase, 0: silence
    phrases: list[tuple[int, int]] = []
    answers: list[int] = []
    at = rng.uniform(0.0, 2.0)
    while True:
        at = _asked(rng, at, changes) + rng.uniform(0.8, 2.0) + rng.uniform(0.2, 0.6)
        about_view = rng.random() < 0.6
        lead_in = rng.uniform(0.24, 0.8)  # "I can see ...": nothing said about the view yet
        start = _frame(at)
        for number in range(rng.randint(1, 3)):
            length = rng.uniform(1.0, 3.0) + (lead_in if number == 0 else 0.0)  # at least three words
            words = _words(rng, at, length)
            if words[-1] >= frames:
                return Talk(text, ends, _gate(seed, auc, visual, spoken), tuple(phrases), tuple(answers))
            text[words] = True
            ends[words[-1]] = rng.random() < 0.85
            spoken[words[0] : words[-1] + 1] = spoken.max() + 1
            visual[start : words[-1] + 1] = about_view
            if about_view:
                content = sum(word < _frame(at + lead_in) for word in words) if number == 0 else 0
                phrases.append((words[content + 1], words[-1]))
                if number == 0:
                    answers.append(words[content])
            at += length + rng.uniform(0.24, 0.5)
        at += rng.uniform(0.5, 4.0)


def _frame(time: float) -> int:
    return int(time / FRAME_SECONDS)


def _asked(rng: random.Random, at: float, changes: tuple[int, ...]) -> float:
    """When the next question begins: now, or just after the next change if one comes soon."""
    follows, after = rng.random() < 0.3, rng.uniform(0.2, 1.0)
    soon = [change * FRAME_SECONDS for change in changes if 0 <= change * FRAME_SECONDS - at < 4.0]
    return soon[0] + after if follows and soon else at


def _words(rng: random.Random, at: float, length: float) -> list[int]:
    words, time = [], at
    while time < at + length:
        words.append(_frame(time))
        time += rng.uniform(0.16, 0.45)
    return words


def _gate(
    seed: int, auc: float, visual: npt.NDArray[np.bool_], spoken: npt.NDArray[np.int_]
) -> npt.NDArray[np.float32]:
    """Raw gate per frame, with means as far apart as the AUC says.

    Half of the variance is drawn per phrase, so that averaging over a phrase does not remove it, half per
    frame with a correlation of 0.7 from one frame to the next.
    """
    rng = np.random.default_rng((seed, 7))
    frames = len(visual)
    apart = NormalDist().inv_cdf(auc) * _SPREAD * 2**0.5
    mean = np.where(visual, _MIDDLE + apart / 2, np.where(spoken > 0, _MIDDLE - apart / 2, _SILENT))
    half = _SPREAD / 2**0.5
    per_phrase = rng.normal(0, half, int(spoken.max()) + 1)
    per_frame = np.zeros(frames)
    noise = rng.normal(0, half, frames)
    for k in range(frames):
        per_frame[k] = noise[k] if k == 0 else 0.7 * per_frame[k - 1] + (1 - 0.7**2) ** 0.5 * noise[k]
    normalised = mean + per_phrase[spoken] + per_frame
    return (GATE_LOW + (GATE_HIGH - GATE_LOW) * normalised).astype(np.float32)
