"""Which answers are right, and the questions of a test."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu

from moshivis_ros.training import dialogues
from moshivis_ros.training.dialogues import COLOURS, KINDS, Exchange, View
from moshivis_ros.training.pool import Pool


@dataclass(frozen=True)
class Score:
    """Of one answer. right: the words that matter are there; exact: every word; named, invented: of a description."""

    right: bool
    exact: bool
    named: float = 0.0
    invented: int = 0
    said: int = 0


def score(exchange: Exchange, text: str, things: Sequence[str] = KINDS) -> Score:
    """``things``: the kinds that the model has words for."""
    words = text.lower().replace(",", " ").replace(".", " ").replace("?", " ").split()
    exact = text == exchange.answer
    if exchange.kind in dialogues.DESCRIPTIONS:
        wanted, said = list(exchange.keys), _things(words, things)
        left, hits = list(said), 0
        for name in wanted:
            if name in left:
                left.remove(name)
                hits += 1
        return Score(not left and hits == len(wanted), exact, hits / len(wanted), len(left), len(said))
    if exchange.kind == "small talk":
        return Score(exact, exact)
    others = _alternatives(exchange, things)
    right = all(key in words for key in exchange.keys) and not any(word in words for word in others)
    return Score(right, exact)


def _things(words: list[str], kinds: Sequence[str]) -> list[str]:
    """What a description names: "red ball", or "nothing"."""
    pairs = [f"{a} {b}" for a, b in zip(words, words[1:]) if a in COLOURS and b in kinds]
    return pairs or (["nothing"] if "nothing" in words else [])


def _alternatives(exchange: Exchange, things: Sequence[str]) -> set[str]:
    """Words that would make another answer of it."""
    families: dict[str, Sequence[str]] = {
        "colour": (*COLOURS, *(("yes", "no") if len(exchange.keys) > 1 else ())),
        "thing": things,
        "place": [place.split()[-1] for place in dialogues.PLACES],
        "number": dialogues.NUMBERS,
        "presence": ("yes", "no"),
    }
    return set(families.get(exchange.kind, ())) - set(exchange.keys)


def questions(
    rng: random.Random, pictures: Pool, per_kind: int, kinds: Iterable[str]
) -> list[tuple[Exchange, int]]:
    """``per_kind`` questions of each kind, each about a picture of its own; numbers balanced over the true number."""
    found: list[tuple[Exchange, int]] = []
    for kind in kinds:
        counted: dict[str, int] = defaultdict(int)
        while sum(counted.values()) < per_kind:
            n = rng.randrange(len(pictures))
            one = dialogues.QUESTIONS[kind](rng, pictures.views[n], True)
            if one is None:
                continue
            truth = one.keys[0] if kind in ("number", "presence") else kind
            if counted[truth] < per_kind / {"number": 5, "presence": 2}.get(kind, 1):
                counted[truth] += 1
                found.append((one, n))
    return found


def same_question(rng: random.Random, first: Exchange, view: View) -> Exchange | None:
    """The question of ``first`` about another view, or None if it has no answer there."""
    for _ in range(60):
        one = dialogues.QUESTIONS[first.kind](rng, view, True)
        if one is not None and one.question == first.question:
            return one
    return None


def auc(high: npt.ArrayLike, low: npt.ArrayLike) -> float:
    """Probability that one of ``high`` is above one of ``low``; equal ones count half."""
    return float(mannwhitneyu(high, low).statistic / (np.size(high) * np.size(low)))
