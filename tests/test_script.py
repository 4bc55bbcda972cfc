"""Words to be said, as the table that a step follows: every piece, in order, with the pauses that were learned."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch

from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.sampling import GREEDY
from moshivis_ros.model.script import FIRST, LONGEST, ROWS, TAIL, Script, free_rows, kinds
from moshivis_ros.model.stream import Stream

PADDING, END = 3, 0
OTHER = 77  # a piece that is not in the script


def spoken(words: list[list[int]], choose: Callable[[], int]) -> tuple[list[int], int]:
    """The text of a network that always chooses like that, until it is free, and the row then: as Stream.follow does."""
    script, table = Script(words, PADDING, END), free_rows(PADDING)
    kind = kinds(100, PADDING, END)
    text, row, late = [], 3 * FIRST, 0

    def write() -> None:
        while (chunk := script.chunk()) is not None:
            place, rows = chunk
            table[place : place + len(rows)] = rows

    write()
    while row >= 3 * FIRST:
        chosen = choose()
        keep, token, row = table.reshape(-1, 3)[row + kind[chosen]]
        text.append(int(keep * chosen + token))
        if late not in (PADDING, END):  # pieces are counted a frame late
            script.said += 1
            write()
        late = text[-1]
    assert script.over and script.words == len(words)
    return text, int(row)


def test_every_word_as_training_has_it() -> None:
    rng = random.Random(1)
    for trial in range(300):
        words = [[rng.randrange(10, 70) for _ in range(rng.randint(1, 4))] for _ in range(rng.randint(1, 12))]
        weights = [rng.random() for _ in range(3)]
        text, row = spoken(words, lambda w=weights: rng.choices((PADDING, END, OTHER), w)[0])  # type: ignore[misc]
        assert row == 0, trial
        assert text[-TAIL:] == [PADDING] * TAIL
        text = text[:-TAIL]
        assert [token for token in text if token not in (PADDING, END)] == sum(words, [])
        at, pauses = 0, []
        for word in words:
            start = at
            while text[at] in (PADDING, END):
                at += 1
            pause = text[start:at]
            assert pause in ([], [END]) or pause == [PADDING] * (len(pause) - 1) + [END]
            pauses.append(len(pause))
            assert text[at : at + len(word)] == word  # without padding in between
            at += len(word)
        assert at == len(text) and pauses[0] == 1 and max(pauses) <= LONGEST + 1


def test_the_network_chooses_when() -> None:
    words = [[10, 11], [12], [13]]
    always: list[tuple[int, list[int]]] = [
        (OTHER, [END, 10, 11, 12, 13]),
        (END, [END, 10, 11, END, 12, END, 13]),
        (PADDING, [END, 10, 11, *[PADDING] * LONGEST, END, 12, *[PADDING] * LONGEST, END, 13]),
    ]
    for token, expected in always:
        assert spoken(words, lambda token=token: token)[0][:-TAIL] == expected  # type: ignore[misc]


def test_a_long_text_is_written_in_parts() -> None:
    words = [[10 + k % 60] * (1 + k % 3) for k in range(2000)]
    rng = random.Random(2)
    text, _ = spoken(words, lambda: rng.choice((PADDING, END, OTHER)))
    assert [token for token in text if token not in (PADDING, END)] == sum(words, [])
    assert sum(len(word) for word in words) > 5 * ROWS


def test_a_recorded_step_follows_it() -> None:
    config = ModelConfig.preset("tiny")
    torch.manual_seed(7)
    model = MoshiVis(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    stream = Stream(model)
    stream.record()
    stream.set_sampling(GREEDY)
    codes = torch.zeros(1, config.user_q, dtype=torch.int64)

    def step() -> int:
        return int(stream.step(codes).tokens[0, 0])

    free = [step() for _ in range(12)]
    stream.reset()
    assert [step() for _ in range(6)] == free[:6]
    words = [[20, 21], [22], [23, 24, 25]]
    stream.write_script(Script(words, PADDING, END), begin=True)
    said = [step() for _ in range(40)]
    assert said[0] == free[6] and said[1:4] == [END, 20, 21]  # it comes a step late
    assert [token for token in said[1:] if token not in (PADDING, END)][:6] == sum(words, [])
    assert int(stream.place) == 0
    stream.hush()
    assert [step() for _ in range(8)][1:] == [PADDING] * 7
    stream.hush(False)
    stream.reset()
    assert [step() for _ in range(12)] == free


def test_rows_are_int64_and_free_ones_keep_what_was_chosen() -> None:
    table = free_rows(PADDING)
    assert table.dtype == np.int64 and table.shape == (FIRST + ROWS, 3, 3)
    assert (table[0] == (1, 0, 0)).all() and (table[1] == (0, PADDING, 3)).all()
