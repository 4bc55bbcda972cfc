"""How much the model looked at the picture while it said a word, as a colour: the same on the page, in a report and in a
terminal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

INK = "#111111"  # text on any shade
AWAY, LOOKING = (232, 232, 232), (255, 166, 0)  # gate 0, gate 1


@dataclass(frozen=True)
class Word:
    """`text` with its leading space; `gate` 0..1: the mean over its pieces; `time` in seconds."""

    time: float
    text: str
    gate: float


def shade(gate: float) -> str:
    """0 (the model looks away) .. 1 (it looks) -> a background such as "#ffa600"."""
    part = min(1.0, max(0.0, gate))
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(AWAY, LOOKING))


def words(pieces: Iterable[tuple[float, str, float]]) -> list[Word]:
    """(time, text, gate) of pieces as the tokenizer cuts them -> whole words: a space begins a new one."""
    groups: list[list[tuple[float, str, float]]] = []
    for piece in pieces:
        if piece[1][:1].isspace() or not groups:
            groups.append([])
        groups[-1].append(piece)
    return [
        Word(group[0][0], "".join(text for _, text, _ in group), sum(gate for *_, gate in group) / len(group))
        for group in groups
    ]


def printable(text: str) -> str:
    """A random model says control characters too: they must not reach a terminal or a page."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
