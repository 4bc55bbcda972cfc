"""CIDEr-D (Vedantam et al. 2015) of captions: 100 is what the papers print as 100.

Checked against pycocoevalcap, which needs Java for its tokenizer and has no other fault: tests/test_metrics.py.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

LONGEST = 4  # words of an n-gram
SIGMA = 6.0  # words: how far lengths may differ
Grams = Counter[tuple[str, ...]]
# As the Penn Treebank is tokenized, without its punctuation: what COCO's captions are scored with.
_CLITICS = re.compile(r"(?<=\w)('s|'re|'ve|'ll|'d|'m|n't)\b")
_GLUED = re.compile(r"\b(can)(not)\b|\b(gon|wan)(na)\b|\b(got)(ta)\b|\b(gim|lem)(me)\b")
_TOKENS = re.compile(
    r"-[lr]rb-|n't|'\w+|\d+(?:[.,:]\d+)+|\b(?:mr|mrs|ms|dr|st|jr|sr|vs)\.|\w(?:\.\w)+\.?|\w+(?:[-/]\w+)*|[&$%#@]"
)


def tokens(text: str) -> list[str]:
    """Lower-case words without punctuation, but as there for brackets and a few signs."""
    text = text.replace("(", " -lrb- ").replace(")", " -rrb- ")
    text = _GLUED.sub(lambda match: " ".join(part for part in match.groups() if part), text.lower())
    return _TOKENS.findall(_CLITICS.sub(r" \1", text))


def cider(said: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """The score of each caption against the references of its picture; which words are rare is taken from all references
    here, so a score means little for few pictures, and nothing for one."""
    known = [[_grams(text) for text in texts] for texts in references]
    pictures: Grams = Counter()
    for texts in known:
        pictures.update({gram for grams in texts for gram in grams})
    most = math.log(len(known))

    def weighed(grams: Grams) -> list[dict[tuple[str, ...], float]]:
        of: list[dict[tuple[str, ...], float]] = [{} for _ in range(LONGEST)]
        for gram, count in grams.items():
            of[len(gram) - 1][gram] = count * (most - math.log(max(1, pictures[gram])))
        return of

    scores = []
    for text, texts in zip(said, known):
        own = _grams(text)
        each = [_similar(weighed(own), weighed(other), _length(own) - _length(other)) for other in texts]
        scores.append(1000 * float(np.mean(each)) if each else 0.0)
    return scores


def _similar(
    own: list[dict[tuple[str, ...], float]], other: list[dict[tuple[str, ...], float]], longer: int
) -> float:
    total = 0.0
    for a, b in zip(own, other):
        common = sum(min(weight, b[gram]) * b[gram] for gram, weight in a.items() if gram in b)
        norms = math.sqrt(sum(w * w for w in a.values())) * math.sqrt(sum(w * w for w in b.values()))
        total += common / norms if norms else common
    return total / LONGEST * math.exp(-(longer**2) / (2 * SIGMA**2))


def _length(grams: Grams) -> int:
    """In pairs of words, as pycocoevalcap counts it."""
    return sum(count for gram, count in grams.items() if len(gram) == 2)


def _grams(text: str) -> Grams:
    words = tokens(text)
    return Counter(tuple(words[k : k + n]) for n in range(1, LONGEST + 1) for k in range(len(words) - n + 1))
