"""What the robot says, each word from another recording: what is heard of a sentence must tell nothing of its next word.

A voice sounds a little different before "ball" and before "bottle". Where every text has one recording, a network learns to
read the next word from what it hears itself say, and while it talks that is drawn by lot.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from moshivis_ros.training.utterances import Utterance

BEFORE = 1  # frames before a word begins from which its own recording is heard
TRIED = 8  # recordings, of which the one is taken whose next word begins at the most similar place in its frame


class Spliced:
    """Draws utterances of a library (utterances.Library.robot)."""

    def __init__(self, known: Mapping[str, Sequence[Utterance]]) -> None:
        self._known = known
        self._begun: dict[tuple[str, ...], list[Utterance]] = defaultdict(list)  # by words that they begin and go on after
        following: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for takes in known.values():
            words = [word for word, _ in takes[0].words]
            for count in range(1, len(words)):
                self._begun[tuple(words[:count])] += takes
                following[tuple(words[:count])].add(words[count])
        self._open = {begun for begun, next_words in following.items() if len(next_words) > 1}

    def draw(self, rng: random.Random, text: str) -> Utterance:
        """``text``, from another recording up to every word that could be another one as well. Raises KeyError: not known."""
        last = rng.choice(self._known[text])
        words = [word for word, _ in last.words]
        sources = [last] * len(words)
        for count in range(len(words) - 1, 0, -1):
            begun, after = tuple(words[:count]), sources[count]
            some = rng.choices(self._begun[begun], k=TRIED) if begun in self._open else [after]
            sources[count - 1] = min(some, key=lambda take: abs(take.words[count][1] % 1 - after.words[count][1] % 1))
        codes, timed, place = [], [], 0
        for k, source in enumerate(sources):
            first = _edge(source, k)
            until = _edge(source, k + 1) if k + 1 < len(sources) else source.codes.shape[1]
            timed.append((words[k], place - first + source.words[k][1]))
            codes.append(source.codes[:, first:until])
            place += codes[-1].shape[1]
        end = last.end + place - last.codes.shape[1]
        return Utterance(np.concatenate(codes, 1), tuple(timed), end, last.noise)


def _edge(take: Utterance, word: int) -> int:
    """The frame from which a word is heard in its own recording; in that of the word before up to there."""
    return max(0, int(take.words[word][1]) - BEFORE) if word else 0
