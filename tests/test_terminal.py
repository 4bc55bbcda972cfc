"""What is said, in a terminal and without one."""

from __future__ import annotations

import io

import numpy as np
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


def test_what_the_model_sees_is_a_picture_of_blocks_and_other_programs_lines_stay_whole() -> None:
    shown, file = screen(terminal=True)
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[:240], picture[240:] = (255, 0, 0), (0, 0, 255)
    shown.pass_on("12 % of")
    assert file.getvalue() == "12 % of"  # a bar moves on while nothing else is shown
    with shown:
        shown.see(picture)
        shown.tell("picture", "new")  # drawn with it
        shown.over("robot")
        drawn = file.getvalue()
        assert drawn.count("▀") % (24 * 9) == 0 and drawn.count("▀")
        assert "38;2;255;0;0;48;2;255;0;0m▀" in drawn and "38;2;0;0;255;48;2;0;0;255m▀" in drawn
        shown.pass_on("talk: a warn")
        assert "talk: a warn" not in file.getvalue()
        shown.pass_on("ing\n")
        assert "talk: a warning" in file.getvalue()
        file.truncate(0)
        shown.see(None)
        shown.over("robot")
    assert "▀" not in file.getvalue()


def test_without_a_terminal_only_what_is_said_is_written() -> None:
    shown, file = screen(terminal=False)
    with shown:
        shown.piece("robot", " It", 0.0)
        shown.level("user", 0.5)
        shown.piece("robot", " is", 1.0)
        assert file.getvalue() == " It is"  # at once, not when the line is full
        shown.over("robot")
    assert file.getvalue() == " It is\n"
