"""Pieces, utterances and refreshes, from frames made by hand."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from moshivis_ros.transcript import Piece, Refresh, Transcript, Utterance


def frame(index, text=None, gate=0.0, refreshes=0, reason=""):
    status = SimpleNamespace(refreshes=refreshes, reason=reason)
    return SimpleNamespace(index=index, text=text, gate_normalised=gate, image=status)


def say(transcript, texts, start=0):
    """One entry a frame; returns the news with the frame they came with."""
    return [
        (start + n, news) for n, text in enumerate(texts) for news in transcript.add(frame(start + n, text))
    ]


def test_a_piece_is_told_at_once_with_the_time_of_its_frame():
    assert Transcript().add(frame(25, " hel", gate=0.25)) == [Piece(2.0, " hel", 0.25, 0)]
    assert Transcript().add(frame(25)) == Transcript().add(frame(26, "")) == []


def test_an_utterance_is_over_after_the_pause_and_spans_its_text():
    transcript = Transcript(pause=1.0)
    news = say(transcript, [None, " Two", None, " cats"] + [None] * 20)
    closing, utterance = news[-1]
    assert utterance == Utterance(start=0.08, end=0.32, text="Two cats", gate=0.0, number=0)
    assert closing == 17  # the first frame that begins 1 s after the end
    assert transcript.utterances == [utterance]


def test_after_a_full_stop_half_the_pause_is_enough():
    transcript = Transcript(pause=1.0)
    closing, utterance = say(transcript, [" Yes."] + [None] * 20)[-1]
    assert utterance.text == "Yes." and closing == 8


def test_text_that_goes_on_within_the_pause_is_the_same_utterance():
    transcript = Transcript(pause=1.0)
    say(transcript, [" one"] + [None] * 11 + [" two"] + [None] * 14 + [" three"])
    transcript.finish()
    assert [utterance.text for utterance in transcript.utterances] == ["one two", "three"]
    assert [piece.utterance for piece in transcript.pieces] == [0, 0, 1]


def test_the_gate_of_an_utterance_is_the_mean_over_its_text_only():
    transcript = Transcript()
    for index, (text, gate) in enumerate([(None, 1.0), (" a", 0.2), (None, 1.0), (" b", 0.6)]):
        transcript.add(frame(index, text, gate))
    [utterance] = transcript.finish()
    assert utterance.gate == pytest.approx(0.4)
    assert transcript.finish() == []


def test_a_refresh_is_noted_when_the_count_rises():
    transcript = Transcript()
    for index, (count, reason) in enumerate(
        [(1, "requested"), (1, "x"), (2, "interval"), (0, "reset"), (1, "again")]
    ):
        transcript.add(frame(index, refreshes=count, reason=reason))
    assert transcript.refreshes == [
        Refresh(0.0, "requested"),
        Refresh(0.16, "interval"),
        Refresh(0.32, "again"),
    ]


def test_json_has_exactly_the_published_fields():
    transcript = Transcript()
    transcript.add(frame(0, " hi", gate=0.5, refreshes=1, reason="requested"))
    transcript.finish()
    assert json.loads(json.dumps(transcript.to_json())) == {
        "pieces": [{"time": 0.0, "text": " hi", "gate": 0.5}],
        "utterances": [{"start": 0.0, "end": 0.08, "text": "hi", "gate": 0.5}],
        "refreshes": [{"time": 0.0, "reason": "requested"}],
    }
