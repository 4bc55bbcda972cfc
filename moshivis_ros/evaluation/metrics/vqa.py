"""Accuracy of short answers: VQAv2's, with its normalisation, and OCR-VQA's exact match; and both inside a sentence.

VQAv2 (Antol et al. 2015, visualqa.org): an answer is right as far as three of the ten people gave it: the mean over every
nine of them of min(1, number who did / 3). Checked against the official code (docs/fine-tuning-data.md), which leaves an answer
as it is where all ten agree; here it is normalised always, for a voice says "Yes.".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

NUMBERS = {
    word: str(n) for n, word in enumerate("zero one two three four five six seven eight nine ten".split())
} | {"none": "0"}
ARTICLES = {"a", "an", "the"}
# Written without an apostrophe these are taken for the words with one. Those that are then other words are not.
CONTRACTIONS = {
    word.replace("'", ""): word
    for word in (
        "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't it'd "
        "it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't somebody'll "
        "somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd they'll "
        "they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll "
        "who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've"
    ).split()
}
_MARKS = ';/[]"{}()=+\\_-><@`,?!'


def normalised(text: str) -> str:
    """As the official evaluation compares answers: no punctuation, no article, numbers in digits, contractions whole."""
    text = " ".join(text.split())
    thousands = re.search(r"\d,\d", text)
    plain = text
    for mark in _MARKS:  # one between two letters stands for a space, one beside a space for nothing
        beside = thousands or f"{mark} " in text or f" {mark}" in text
        plain = plain.replace(mark, "" if beside else " ")
    plain = re.sub(r"\.(?!\d)", "", plain).lower()
    words = [NUMBERS.get(word, word) for word in plain.split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(said: str, answers: Sequence[str]) -> float:
    """0..1; answers: what ten people said."""
    return _accuracy([normalised(said) == normalised(answer) for answer in answers])


def vqa_accuracy_in_sentence(said: str, answers: Sequence[str]) -> float:
    """The same where the answer may stand anywhere in what was said: "It is red." for "red"."""
    return _accuracy([_within(normalised(answer), normalised(said)) for answer in answers])


def exact_match(said: str, answers: Sequence[str]) -> float:
    """1 where it is one of the answers: case, punctuation at the ends and spaces do not count."""
    return float(any(_plain(said) == _plain(answer) for answer in answers))


def exact_match_in_sentence(said: str, answers: Sequence[str]) -> float:
    """1 where one of the answers stands in what was said, as whole words."""
    return float(any(_within(_words(answer), _words(said)) for answer in answers))


def _accuracy(same: Sequence[bool]) -> float:
    total = sum(same)
    return float(np.mean([min(1.0, (total - one) / 3) for one in same]))


def _within(answer: str, said: str) -> bool:
    return bool(answer) and f" {answer} " in f" {said} "


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).strip(" .,!?;:\"'")


def _words(text: str) -> str:
    return " ".join(re.findall(r"[\w']+", text.lower()))
