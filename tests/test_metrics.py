"""Measures of answers: what the official programs say of the same ones."""

from __future__ import annotations

import random

import numpy as np
import pytest
from babillage import tone

from moshivis_ros.evaluation.metrics.cider import cider, tokens
from moshivis_ros.evaluation.metrics.prosody import prosody
from moshivis_ros.evaluation.metrics.vqa import (
    exact_match,
    exact_match_in_sentence,
    normalised,
    vqa_accuracy,
    vqa_accuracy_in_sentence,
)

CAPTIONS = (
    "A man riding a wave on top of a surfboard.",
    "Two dogs, one black & one white, play in the park.",
    "There's a cat that isn't sleeping on the couch!",
    "A close-up of a slice of pizza with pepperoni (and cheese).",
    "A group of people standing around a table with laptops.",
    "People don't walk near the 1,000 lb. bear.",
)


def test_cider_is_that_of_pycocoevalcap() -> None:
    official = pytest.importorskip("pycocoevalcap.cider.cider")
    rng = random.Random(0)

    def caption() -> str:
        words = f"{rng.choice(CAPTIONS)} {rng.choice(CAPTIONS)}".split()
        start = rng.randrange(len(words) - 4)
        return " ".join(words[start : start + rng.randint(2, 12)])

    references = [[caption() for _ in range(rng.randint(1, 5))] for _ in range(40)]
    said = [rng.choice(texts) if rng.random() < 0.5 else caption() for texts in references]
    said[3] = ""
    known = {k: [" ".join(tokens(text)) for text in texts] for k, texts in enumerate(references)}
    mean, each = official.Cider().compute_score(
        known, {k: [" ".join(tokens(text))] for k, text in enumerate(said)}
    )
    ours = cider(said, references)
    assert ours == pytest.approx(100 * np.asarray(each), abs=1e-9) and np.mean(ours) == pytest.approx(
        100 * mean
    )
    assert 50 < np.mean(ours) < 900


def test_captions_are_split_as_the_penn_treebank_is() -> None:
    """What pycocoevalcap's tokenizer, which is Stanford's in Java, made of these."""
    assert [" ".join(tokens(text)) for text in CAPTIONS[1:4]] == [
        "two dogs one black & one white play in the park",
        "there 's a cat that is n't sleeping on the couch",
        "a close-up of a slice of pizza with pepperoni -lrb- and cheese -rrb-",
    ]
    assert " ".join(tokens("The U.S. flag at 12:30 p.m. on a 3-story shop; Mr. Smith's... gonna")) == (
        "the u.s. flag at 12:30 p.m. on a 3-story shop mr. smith 's gon na"
    )


def test_the_own_caption_alone_scores_a_thousand_and_another_one_nothing() -> None:
    texts = [CAPTIONS[0], CAPTIONS[4], CAPTIONS[5]]
    assert cider(texts, [[text] for text in texts]) == pytest.approx([1000.0] * 3)
    assert cider(["Nobody knows zebras.", ""], [[CAPTIONS[0]], [CAPTIONS[5]]]) == [0, 0]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("The Red one.", "red 1"),
        ("two, three", "2 3"),
        ("blue-green", "blue green"),
        ("T-shirt , maybe", "t shirt maybe"),
        ("1,000 - ish", "1000 ish"),
        ("10.5", "10.5"),
        ("U.S.", "us"),
        ("dont know", "don't know"),
        ("It's its", "it's its"),
        ("None", "0"),
    ],
)
def test_answers_are_compared_as_the_official_program_compares_them(text: str, plain: str) -> None:
    assert normalised(text) == plain  # each was given to vqaEval.py


def test_three_people_make_an_answer_right() -> None:
    people = ["red"] * 3 + ["dark red"] * 2 + ["orange"] * 5
    assert vqa_accuracy("Red.", people) == pytest.approx((3 * 2 / 3 + 7) / 10)
    assert vqa_accuracy("dark red", people) == pytest.approx((2 / 3 * 8 + 2 * 1 / 3) / 10)
    assert vqa_accuracy("orange", people) == 1 and vqa_accuracy("blue", people) == 0
    assert (
        vqa_accuracy("It is orange.", people) == 0 and vqa_accuracy_in_sentence("It is orange.", people) == 1
    )
    assert vqa_accuracy_in_sentence("It is infrared.", people) == 0


def test_an_exact_answer_may_differ_in_case_and_at_its_ends() -> None:
    assert (
        exact_match(" Stephen  King. ", ["stephen king"]) == 1 and exact_match("King", ["stephen king"]) == 0
    )
    assert exact_match_in_sentence("It is by Stephen King, I think.", ["Stephen King"]) == 1
    assert exact_match_in_sentence("It is by Stephen Kingsley.", ["Stephen King"]) == 0


def test_the_pitch_range_and_rate_of_a_voice() -> None:
    pause = np.zeros(24000, np.float32)
    glide = prosody(np.concatenate([pause, tone(2.0, 100, 200), pause]), 8)
    assert glide.pitch == pytest.approx(141, rel=0.03)
    assert glide.range == pytest.approx(0.8 * 12, abs=0.4)  # of an octave, without its ends
    assert glide.rate == pytest.approx(4, rel=0.05)  # pauses left out
    high = prosody(tone(1.0, 220, 220), 3)
    assert high.pitch == pytest.approx(220, rel=0.02) and high.range < 0.2
    noise = np.random.default_rng(0).standard_normal(24000).astype(np.float32) * 0.1
    assert prosody(noise, 0).pitch == 0 and prosody(pause, 0).rate == 0
