"""The study of refresh policies, on a few short clips: what it measures, not how well."""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from moshivis_ros.errors import ConfigError
from moshivis_ros.evaluation.free_running import Reply
from moshivis_ros.simulation.render import Seen
from moshivis_ros.study import command, recorded_talk
from moshivis_ros.study.clips import NUISANCES, Clip, disturbed, load_clip, same_story
from moshivis_ros.study.detectors import detect
from moshivis_ros.study.footage import Footage
from moshivis_ros.study.policies import POLICIES, Tally, converse
from moshivis_ros.study.recorded_talk import follow
from moshivis_ros.study.talk import Recording, generate
from moshivis_ros.training.dialogues import Exchange

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("mujoco"), reason="mujoco is not installed")

BALL = Seen("ball", "ball", "red", share=1.0, area=0.01, x=0.5, y=0.5, world=(0.0, 0.0), size=0.2)


def ball(**facts: object) -> tuple[Seen, ...]:
    return (Seen(**{**vars(BALL), **facts}),)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clip]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield next(clip for clip in (load_clip(seed, 6.0) for seed in range(20)) if clip.changes)


def test_what_a_person_would_say_is_the_truth() -> None:
    assert same_story(ball(), ball(x=0.2, share=0.3))
    assert not same_story(ball(), ())
    assert not same_story((), ball())
    assert not same_story(ball(), ball(colour="blue"))
    assert same_story(ball(), ball(world=(0.1, 0.0)))
    assert not same_story(ball(), ball(world=(0.3, 0.0)))
    assert same_story((), ball(share=0.1))  # a corner of it: nobody would mention it, or contradict


def test_clips_come_back_from_the_disk_as_they_were(clip: Clip) -> None:
    again = load_clip(clip.seed, 6.0)
    assert again.changes == clip.changes
    for frame, same in zip(clip.frames(), again.frames(), strict=True):
        assert np.array_equal(frame, same)


@pytest.mark.parametrize("auc", [0.95, 0.6])
def test_the_gate_separates_as_well_as_it_says(auc: float) -> None:
    talks = [generate(seed, 1250, auc) for seed in range(40)]
    inside, spoken = [], []
    for talk in talks:
        visual = np.zeros(1250, bool)
        for first, last in talk.phrases:
            visual[first : last + 1] = True
        inside += list(talk.gate[visual & talk.text])
        start = [first - 30 for first, _ in talk.phrases]
        near = np.zeros(1250, bool)
        for first, (_, last) in zip(start, talk.phrases, strict=True):
            near[max(0, first) : last + 1] = True
        spoken += list(talk.gate[talk.text & ~near])
    order = np.argsort(np.argsort(inside + spoken))[: len(inside)]
    measured = (order.mean() - (len(inside) - 1) / 2) / len(spoken)
    assert measured == pytest.approx(auc, abs=0.05)


def test_timing_does_not_depend_on_the_gate() -> None:
    assert generate(1, 250, 0.95).answers == generate(1, 250, 0.6).answers


def test_every_frame_is_seldom_wrong_and_static_never_refreshes(clip: Clip) -> None:
    footage = Footage(clip)
    totals = {name: Tally() for name in POLICIES}
    for seed in range(40):
        talk = generate(seed, len(clip), 0.95, clip.changes)
        for name, settings in POLICIES.items():
            totals[name].add(converse(footage, talk, settings, 0.03))
    right = {name: total.figures(0.03)["right"] for name, total in totals.items()}
    assert totals["static"].encodes == 0
    assert right["static"] < right["every frame"]
    assert right["gating"] >= right["static"]
    assert totals["every frame"].encodes > totals["on change"].encodes > 0
    assert totals["on change"].encodes >= totals["gating"].encodes > 0
    assert totals["gating"].swaps_inside <= totals["on change"].swaps_inside


@pytest.mark.parametrize("nuisance", NUISANCES)
def test_a_nuisance_changes_the_picture_and_nothing_to_tell(nuisance: str) -> None:
    frames = list(disturbed(nuisance, 3, 6.0))
    assert len(frames) == 75
    changed = max(float(np.abs(frame.astype(int) - frames[0]).mean()) for frame in frames)
    assert changed > 1 or nuisance == "compression"  # which spoils all frames alike


def test_a_detector_that_never_or_always_fires_scores_so(clip: Clip) -> None:
    footage = Footage(clip)
    never, always = detect(footage, 1.1), detect(footage, 0.0)
    assert never.found == never.false == 0 and never.figures()["f1"] == 0
    assert always.found == always.changes and always.figures()["precision"] < 0.5


def test_the_command_writes_figures_and_the_table(clip: Clip, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "refresh_policy.md").write_text(
        "Before\n<!-- study -->\nYESTERDAY\n<!-- end of study -->\nAfter\n"
    )
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    given = ["--json", str(tmp_path / "s.json"), "--docs", str(tmp_path), "--clips", "6", "--seconds", "6"]
    assert command.run(parser.parse_args(given)) == 0
    figures = json.loads((tmp_path / "s.json").read_text())
    assert {row["policy"] for row in figures["policies"]} == set(POLICIES)
    assert {row["nuisance"] for row in figures["nuisances"]} == set(NUISANCES)
    page = (tmp_path / "refresh_policy.md").read_text()
    assert (
        page.startswith("Before")
        and page.endswith("After\n")
        and "YESTERDAY" not in page
        and "gating" in page
    )
    assert (tmp_path / "refresh_policy.png").stat().st_size > 10_000


def test_what_a_model_said_becomes_speech() -> None:
    seen = Exchange("describe", "What do you see?", "A red ball. And a blue box.")
    pieces, frames = (
        (" A", " red", " ball", ".", " And", " a", " blue", " box", "."),
        (3, 4, 5, 6, 9, 10, 11, 12, 13),
    )
    look = Reply(pieces, (0.5,) * 9, 1, np.zeros((8, 20), np.int64), 0, frames, np.full(20, 0.5, np.float32))
    small = Exchange("small talk", "How are you?", "Fine.")
    chat = Reply(
        (" Fine", "."), (0.1,) * 2, 1, np.zeros((8, 20), np.int64), 0, (2, 3), np.full(20, 0.1, np.float32)
    )
    talk = follow([small, seen], [chat, look], 0.0, 1.0)
    assert list(np.flatnonzero(talk.text)) == [2, 3, *(20 + frame for frame in frames)]
    assert list(np.flatnonzero(talk.sentence_end)) == [3, 26, 33]
    assert talk.answers == (
        24,
    )  # "red"; nothing was said about the view before, and small talk is not about it
    assert talk.phrases == ((25, 26), (32, 33))  # from the word after the first that the view decides
    part = next(cut for cut in (Recording((talk,), 0.9).cut(seed, 22) for seed in range(99)) if cut.answers)
    assert len(part.text) == len(part.gate) == 22
    assert part.text[part.answers[0]] and all(0 <= first <= last < 22 for first, last in part.phrases)


def test_the_policies_with_the_speech_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(recorded_talk, "CONVERSATIONS", 4)
    monkeypatch.setattr(recorded_talk, "TURNS", 4)
    (tmp_path / "refresh_policy.md").write_text("<!-- model -->\nYESTERDAY\n<!-- end of model -->\n")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    given = ["--json", str(tmp_path / "s.json"), "--docs", str(tmp_path), "--clips", "6", "--seconds", "4"]
    assert command.run(parser.parse_args([*given, "--model", "builtin"])) == 0
    page = (tmp_path / "refresh_policy.md").read_text()
    assert "conversations with builtin" in page and "| gating |" in page and "detector" not in page


def test_too_few_clips_are_refused(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    with pytest.raises(ConfigError, match="--clips"):
        command.run(parser.parse_args(["--json", str(tmp_path / "s.json"), "--clips", "2"]))
