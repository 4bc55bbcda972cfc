"""What is said, in a terminal and without one."""

from __future__ import annotations

import io

from rich.console import Console

from moshivis_ros.shading import AWAY, LOOKING, shade, words
from moshivis_ros.terminal import Screen


def code(colour: tuple[int, int, int]) -> str:
    return "48;2;{};{};{}m".format(*colour)


def screen(terminal: bool) -> tuple[Screen, io.StringIO]:
    file = io.StringIO()
    colours = "truecolor" if terminal else None
    return Screen(Console(file=file, force_terminal=terminal, color_system=colours, width=90, highlight=False)), file


def test_a_word_is_shaded_by_the_mean_of_its_pieces() -> None:
    spoken = words([(1.0, " gr", 0.2), (1.08, "een", 0.8), (1.2, " ball", 1.0)])
    assert [(word.time, word.text, round(word.gate, 6)) for word in spoken] == [(1.0, " green", 0.5), (1.2, " ball", 1.0)]
    assert shade(0) == "#e8e8e8" and shade(1) == shade(7) == "#ffa600" and shade(0.5) == "#f4c774"


def test_words_stay_and_levels_move_in_a_terminal() -> None:
    shown, file = screen(terminal=True)
    with shown:
        shown.piece("robot", " It", 0.0)
        shown.piece("robot", " is", 0.0)
        shown.piece("robot", " gr\x07een", 1.0)
        shown.level("user", 0.1)
        shown.tell("picture", "3.0 s old, keep: unchanged")
        shown.over("robot")
        drawn = file.getvalue()
        file.truncate(0)
        shown.tell("picture", "")
        shown.over("user")
        rest = file.getvalue()
    assert code(AWAY) in drawn and code(LOOKING) in drawn and "gr\N{REPLACEMENT CHARACTER}een" in drawn
    assert "3.0 s old, keep: unchanged" in drawn and "3.0 s old" not in rest
    assert drawn.count("█") and "green" not in rest


def test_without_a_terminal_only_what_is_said_is_written() -> None:
    shown, file = screen(terminal=False)
    with shown:
        shown.piece("robot", " It", 0.0)
        shown.level("user", 0.5)
        shown.piece("robot", " is", 1.0)
        assert file.getvalue() == " It is"  # at once, not when the line is full
        shown.over("robot")
    assert file.getvalue() == " It is\n"
