"""A conversation in a terminal: what is said, each word shaded by how much the model looked; below it, what goes on now, and
what the model sees.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from moshivis_ros.shading import INK, Word, printable, shade, words

PERIOD = 0.1  # seconds between two looks
QUIET = -60.0  # dB: the left end of a level
BAR = 24  # columns
SIGHT = (24, 18)  # pixels of the picture: a column each, two to a line
STYLES = {"robot": "bold yellow", "user": "bold cyan"}


def shaded(spoken: Sequence[Word]) -> Text:
    """Words on the shade of their gate; just text where the terminal has no colours."""
    text = Text()
    for word in spoken:
        body = printable(word.text)
        space = len(body) - len(body.lstrip())
        text.append(body[:space])
        text.append(body[space:], style=f"{INK} on {shade(word.gate)}")
    return text


def bar(part: float, colour: str) -> Text:
    """0..1 as a bar of BAR columns."""
    full = round(min(1.0, max(0.0, part)) * BAR)
    return Text("█" * full, style=colour) + Text("·" * (BAR - full), style="dim")


def level(rms: float) -> float:
    """0..1: from QUIET to full scale."""
    return max(0.0, 1 - 20 * math.log10(max(rms, 1e-6)) / QUIET)


def blocks(picture: NDArray[np.uint8]) -> Text:
    """RGB [height, width, 3] in half blocks: the upper half of a character is one pixel, what is behind it the next."""
    import cv2  # here, so that the command line starts without it

    small = cv2.resize(picture, SIGHT, interpolation=cv2.INTER_AREA)
    text = Text()
    for upper, lower in zip(small[::2].tolist(), small[1::2].tolist(), strict=True):
        for above, below in zip(upper, lower, strict=True):
            text.append("▀", style="rgb({},{},{}) on rgb({},{},{})".format(*above, *below))
        text.append("\n")
    return text[:-1]


class Screen:
    """Shows what it is told while it is entered. Where there is no terminal only what is said and noted is written, as it
    comes.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._open: dict[str, list[tuple[float, str, float]]] = {}  # what each speaker is saying: pieces
        self._levels = {"user": 0.0, "robot": 0.0}
        self._gate = 0.0
        self._sight = Text()
        self._lines: dict[str, Text] = {}  # what else there is to be told, by name
        self._drawn = 0.0
        self._rest = ""  # of a line of another program

    def __enter__(self) -> Screen:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for speaker in list(self._open):
            self.over(speaker)
        if self.console.is_terminal:
            self._live.stop()

    def piece(self, speaker: str, text: str, gate: float) -> None:
        """Of a word, with its leading space."""
        if not self.console.is_terminal:
            self.console.file.write(printable(text))
            self.console.file.flush()
        self._open.setdefault(speaker, []).append((0.0, text, gate))
        self._draw()

    def over(self, speaker: str) -> None:
        """An utterance, whose pieces have been told."""
        pieces = self._open.pop(speaker, [])
        if not self.console.is_terminal:
            self.console.file.write("\n")
            self.console.file.flush()
            return
        self._draw(now=True)
        if pieces:
            self.console.print(self._line(speaker, pieces))

    def note(self, words: str) -> None:
        """A line that stays, between what is said."""
        self.console.print(Text(words), soft_wrap=True)

    def pass_on(self, text: str) -> None:
        """What other programs wrote: as it comes, or while this is entered in whole lines that stay."""
        if not self._live.is_started:
            self.console.file.write(text)
            self.console.file.flush()
            return
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self.console.print(Text.from_ansi(line), soft_wrap=True)

    def see(self, picture: NDArray[np.uint8] | None) -> None:
        """RGB [height, width, 3], which is in the cache now."""
        self._sight = Text() if picture is None or self.console.color_system is None else blocks(picture)
        self._draw()

    def level(self, side: str, rms: float) -> None:
        self._levels[side] = level(rms)
        self._draw()

    def gate(self, value: float) -> None:
        self._gate = value
        self._draw()

    def tell(self, name: str, words: str, style: str = "") -> None:
        """A line of its own below the levels, in place of the last of this name; empty: none any more."""
        if words:
            self._lines[name] = Text(f"{name}: {words}", style=style)
        else:
            self._lines.pop(name, None)
        self._draw()

    def _draw(self, now: bool = False) -> None:
        if self._live.is_started and (now or time.monotonic() - self._drawn >= PERIOD):
            self._drawn = time.monotonic()
            self._live.update(self._picture(), refresh=True)

    def _picture(self) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        for side, colour in (("user", "cyan"), ("robot", "yellow")):
            table.add_row(side, bar(self._levels[side], colour))
        table.add_row("looks", bar(self._gate, shade(1.0)), f"{self._gate:.2f}")
        said = [self._line(speaker, pieces) for speaker, pieces in self._open.items()]
        below = Table.grid(padding=(0, 2))
        below.add_row(*([self._sight] if self._sight else []), Group(table, *self._lines.values()))
        return Group(*said, below)

    def _line(self, speaker: str, pieces: list[tuple[float, str, float]]) -> Text:
        return Text.assemble((speaker, STYLES.get(speaker, "bold")), " ", shaded(words(pieces)))
