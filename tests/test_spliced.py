"""What the robot says, put together from many recordings: nothing that is heard tells the next word."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from moshivis_ros.training.spliced import BEFORE, Spliced
from moshivis_ros.training.utterances import Utterance

TEXTS = ("a red ball", "a red cup", "a blue box", "I see nothing", "I see nothing there")
FRAMES = 20  # of a recording


def recording(number: int, text: str) -> Utterance:
    """Each code tells its recording and its frame; the words begin a little apart in each."""
    starts = np.cumsum([2.0, *(2.3 + 0.31 * ((number + k) % 3) for k in range(len(text.split()) - 1))])
    codes = np.arange(FRAMES * number, FRAMES * (number + 1), dtype=np.int16)[None]
    return Utterance(codes, tuple(zip(text.split(), starts.tolist())), end=17.5 + number / 100, noise=0)


@pytest.fixture
def known() -> dict[str, list[Utterance]]:
    return {text: [recording(2 * k, text), recording(2 * k + 1, text)] for k, text in enumerate(TEXTS)}


@pytest.mark.parametrize("text", TEXTS)
def test_every_word_is_heard_where_it_is_said_to_be_and_whole(text: str, known: dict[str, list[Utterance]]) -> None:
    recordings = [take for takes in known.values() for take in takes]
    voice = Spliced(known)
    for seed in range(20):
        said = voice.draw(random.Random(seed), text)
        assert [word for word, _ in said.words] == text.split() and said.codes.dtype == np.int16
        for k, (word, at) in enumerate(said.words):
            take, frame = divmod(int(said.codes[0, int(at)]), FRAMES)
            theirs = recordings[take].words
            assert theirs[k][0] == word and int(theirs[k][1]) == frame and theirs[k][1] % 1 == pytest.approx(at % 1)
        own, last = divmod(int(said.codes[0, -1]), FRAMES)
        assert last == FRAMES - 1 and any(recordings[own] is take for take in known[text]), "it ends as itself"
        assert said.codes.shape[1] - said.end == pytest.approx(FRAMES - recordings[own].end)


def test_what_is_heard_before_a_word_may_come_from_every_sentence_that_begins_so(known: dict[str, list[Utterance]]) -> None:
    voice, rng = Spliced(known), random.Random(0)
    heard = {text: Counter[int]() for text in TEXTS[:2]}
    for text, sources in heard.items():
        for _ in range(400):
            said = voice.draw(rng, text)
            before = said.codes[0, : int(said.words[2][1]) - BEFORE] // FRAMES
            sources[int(before[-1])] += 1
    assert [set(sources) for sources in heard.values()] == [{0, 1, 2, 3}] * 2


def test_a_sentence_that_can_go_on_in_one_way_only_is_left_whole(known: dict[str, list[Utterance]]) -> None:
    voice = Spliced(known)
    said = [voice.draw(random.Random(seed), "I see nothing") for seed in range(20)]
    assert all(len(set((one.codes[0] // FRAMES).tolist())) == 1 for one in said)


def test_what_was_never_recorded_is_an_error(known: dict[str, list[Utterance]]) -> None:
    with pytest.raises(KeyError, match="a green ball"):
        Spliced(known).draw(random.Random(0), "a green ball")
