"""Lines of a language model that nobody could say: what is wrong with one, in a word, or nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

MOST_WORDS = 60  # about 20 s
LABEL = re.compile(
    r"^[\s\"'*(]*(user|friend|human|person|you|robot|assistant|speaker ?\d?|question|answer|q|a|me)\W*:\s*",
    re.I,
)
OTHER_LABEL = re.compile(
    r"(^|[\n.?!]\s*)\W*(user|friend|human|robot|assistant|speaker ?\d|question|answer)\W*:", re.I
)
MARKUP = re.compile(
    r"[*_#`|<>{}\[\]\\~^=]|https?:|www\.|\n\s*([-•]|\d+[.)])\s|[\u2190-\u2bff\U0001f000-\U0001faff]"
)
REFUSAL = re.compile(
    r"\bas an? (ai|artificial|language|large)\b|\blanguage model\b|\b(can(no|')?t|unable to|not able to|won't|will not) "
    r"(assist|help|comply|fulfil|process|provide|engage|continue|view|see (the )?(images?|pictures?)|analy[sz]e)\b"
    r"|\bopenai\b|\bmy (training|programming|guidelines)\b",
    re.I,
)
TOLD = re.compile(
    r"\b(caption|(image|picture|given|provided|the|this) description|described (as|in)|(the|this) (text|prompt) (says|above)|"
    r"i (was|have been) (told|given)|based on what i)\b",
    re.I,
)
LETTERS = re.compile(r"[^\W\d_]")
WORDS = re.compile(r"[\w']+")
QUOTES = str.maketrans(
    {"“": '"', "”": '"', "’": "'", "‘": "'", "–": "-", "—": "-", "…": "...", "\u00a0": " "}
)


def cleaned(text: str) -> str:
    """Without what models put around a line and nobody says: the name of the speaker, quotation marks, thoughts."""
    text = re.sub(r"<think>.*?</think>", "", text, flags=re.S).translate(QUOTES).strip()
    text = LABEL.sub("", text).strip()
    if len(text) > 1 and text[0] == text[-1] == '"' and text.count('"') == 2:
        text = text[1:-1].strip()
    return text


def problem(text: str, whole: bool, before: Sequence[str]) -> str | None:
    """Why a cleaned line cannot be used. whole: it was not cut off; before: what the same speaker has said."""
    words = [word.lower() for word in WORDS.findall(text)]
    if not words:
        return "empty"
    if REFUSAL.search(text):
        return "refusal"
    if OTHER_LABEL.search(text) or text[0] in "{[":
        return "wrong format"
    if MARKUP.search(text):
        return "markup"
    letters = LETTERS.findall(text)
    if sum(letter.isascii() for letter in letters) < 0.9 * len(letters):
        return "not English"
    if not whole:
        return "cut off"
    if len(words) > MOST_WORDS:
        return "too long"
    if TOLD.search(text):
        return "speaks of a description"
    if _repeats(words) or any(_alike(words, line) for line in before):
        return "repetition"
    return None


def _repeats(words: list[str]) -> bool:
    """The same three words in a row three times."""
    runs = Counter(zip(words, words[1:], words[2:]))
    return max(runs.values(), default=0) >= 3


def _alike(words: list[str], before: str) -> bool:
    """Nearly all words are those of a line before, in whatever order."""
    others = Counter(word.lower() for word in WORDS.findall(before))
    common = sum((Counter(words) & others).values())
    return common >= 0.9 * max(len(words), sum(others.values()))
