"""Words to be said, as a table that the recorded step follows by itself (Stream.follow).

The network is asked for its text as ever. What it asks for - padding, end of padding or some piece of a word - decides
when the next word comes, in the rhythm that it has learned; the table decides which word that is:

- the pieces of one word follow each other;
- a word that follows padding has the end of padding before it, as in training;
- one that has not come after LONGEST frames of padding comes now.

A row of the table says for each kind of token (padding, end of padding, piece) what becomes of the one that the network
chose, ``keep * chosen + token``, and which row is next (three times its number). Row FREE keeps it; row HUSH makes padding of everything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PADDING, END, PIECE = range(3)  # kinds of token
FREE, HUSH, FIRST = range(3)  # rows; from FIRST on those of a script
LONGEST = 6  # frames of padding (0.48 s) between two words: as long as training makes them within a sentence
TAIL = 6  # frames of padding after the last word, before the network is free: it adds no word of its own
ROWS = 512  # for scripts, in a ring
AHEAD = ROWS // 2  # rows that are always there before the one in use; a step goes on by LONGEST + 2 at most

Rows = NDArray[np.int64]


def kinds(card: int, padding: int, end: int) -> Rows:
    """Of every text token [card]."""
    found = np.full(card, PIECE, np.int64)
    found[padding], found[end] = PADDING, END
    return found


def free_rows(padding: int) -> Rows:
    """A table [FIRST + ROWS, 3, 3] without a script: (keep, token, next row) by kind."""
    table = np.zeros((FIRST + ROWS, 3, 3), np.int64)
    table[:] = (1, 0, 3 * FREE)
    table[HUSH] = (0, padding, 3 * HUSH)
    return table


class Script:
    """The rows of some words, and how far they have come. ``words``: the pieces of each. Rows count from 0; ``chunk``
    gives the place of each in the table.
    """

    def __init__(self, words: Sequence[Sequence[int]], padding: int, end: int) -> None:
        self._padding, self._end = padding, end
        self._rows: list[list[tuple[int, int]]] = []  # of each kind: (token, next)
        self._pieces: list[tuple[int, int]] = []  # (row, word) of every piece
        for number, word in enumerate(words):
            self._add(word, number)
        for _ in range(TAIL):
            self._always(padding)
        self._written = 0
        self.said = 0  # pieces
        self.total = len(words)

    @property
    def words(self) -> int:
        """That were said, whole."""
        if self.said == len(self._pieces):
            return self.total
        return self._pieces[self.said][1]

    @property
    def over(self) -> bool:
        """Every word was said."""
        return self.said == len(self._pieces)

    def chunk(self) -> tuple[int, Rows] | None:
        """Rows to write into the table now, as (first place, rows), or None. The first must be there before the step that
        begins; from then on one is wanted after a step at most."""
        passed = self._pieces[self.said - 1][0] if self.said else 0
        if self._written == len(self._rows) or self._written - passed >= AHEAD:
            return None
        place = self._written % ROWS
        count = min(passed + ROWS, self._written + ROWS - place, len(self._rows)) - self._written
        rows = np.zeros((count, 3, 3), np.int64)
        for k, row in enumerate(self._rows[self._written : self._written + count]):
            rows[k, :, 1:] = [
                (token, 3 * (FREE if at == len(self._rows) else FIRST + at % ROWS)) for token, at in row
            ]
        self._written += count
        return FIRST + place, rows

    def _add(self, word: Sequence[int], number: int) -> None:
        """The rows of a pause, and one for each piece."""
        if number == 0:
            self._always(self._end)
        else:
            start = len(self._rows)
            first = start + LONGEST + 1
            end = (self._end, first)
            pause = [(self._padding, start + n + 1) for n in range(LONGEST)]
            self._rows.append([pause[0], end, (word[0], first + 1)])
            self._rows += [[padding, end, end] for padding in pause[1:]]
            self._rows.append([end] * 3)
        for piece in word:
            self._pieces.append((len(self._rows), number))
            self._always(piece)

    def _always(self, token: int) -> None:
        self._rows.append([(token, len(self._rows) + 1)] * 3)
