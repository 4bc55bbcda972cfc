"""The refresh policy: a table of situations, and what must hold in every one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moshivis_ros.errors import ConfigError
from moshivis_ros.vision.gate import GateNormaliser
from moshivis_ros.vision.refresh_policy import Observation, Settings, State, decide

GATING, ON_CHANGE, MANUAL = Settings("gating"), Settings("on_change"), Settings("manual")
STEP = 0.08
NEAR, FAR, CUT = 0.05, 0.5, 0.95  # distances: unchanged, changed, another place


def seen(time: float = 10.0, **facts: object) -> Observation:
    """An ordinary moment: a picture in the cache, an unchanged view, silence."""
    usual = Observation(time, distance=0.0, gate=0.0, age=5.0, has_image=True)
    return replace(usual, **facts)  # type: ignore[arg-type]


def play(settings: Settings, observations: list[Observation], state: State | None = None) -> list[str]:
    """`action: reason` of each step."""
    state, said = state or State(), []
    for observation in observations:
        state, decision = decide(state, observation, settings)
        said.append(f"{decision.action}: {decision.reason}")
    return said


def describing(seconds: float, **facts: object) -> list[Observation]:
    """The model speaks with an open gate, from 10 s on; facts hold from 1 s after it began."""
    steps = [seen(10 + k * STEP, speaking=True, gate=0.9) for k in range(round(seconds / STEP))]
    return [replace(s, **facts) if s.time >= 11 else s for s in steps]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "observation", "said"),
    [
        (GATING, seen(), "keep: unchanged"),
        (GATING, seen(distance=NEAR), "keep: unchanged"),
        (GATING, seen(distance=FAR), "refresh: changed"),
        (GATING, seen(distance=FAR, speaking=True, gate=0.0), "refresh: changed"),
        (GATING, seen(has_image=False, distance=1.0), "refresh: first picture"),
        (GATING, seen(age=61.0), "refresh: keep-alive"),
        (GATING, seen(distance=0.09, speaking=True, gate=0.9), "refresh: about to look"),
        (GATING, seen(distance=0.09, speaking=True, gate=0.0), "keep: unchanged"),
        (GATING, seen(distance=FAR, in_flight=True), "defer: encoding"),
        (GATING, seen(distance=FAR, frozen=True), "keep: frozen"),
        (GATING, seen(distance=None), "keep: no camera"),
        (GATING, seen(distance=FAR, bad="black"), "defer: bad frame: black"),
        (GATING, seen(has_image=False, distance=1.0, bad="torn"), "defer: bad frame: torn"),
        (GATING, seen(requested=True), "refresh: requested"),
        (GATING, seen(requested=True, in_flight=True), "defer: encoding"),
        (ON_CHANGE, seen(distance=NEAR), "keep: unchanged"),
        (ON_CHANGE, seen(distance=FAR, speaking=True, gate=0.9), "refresh: changed"),
        (Settings("interval", interval=2.0), seen(age=1.9, distance=FAR), "keep: interval"),
        (Settings("interval", interval=2.0), seen(age=2.0), "refresh: interval"),
        (MANUAL, seen(distance=FAR, age=1e6), "keep: manual"),
        (MANUAL, seen(has_image=False, distance=1.0), "keep: manual"),
        (MANUAL, seen(requested=True), "refresh: requested"),
    ],
)
def test_single_moment(settings: Settings, observation: Observation, said: str) -> None:
    assert play(settings, [observation]) == [said]


def test_change_waits_for_the_end_of_the_phrase() -> None:
    steps = describing(3.0, distance=FAR)
    end = replace(steps[-1], time=steps[-1].time + STEP, phrase_end=True)
    said = play(GATING, [*steps, end])
    assert said[-2:] == ["defer: describing", "refresh: phrase end"]
    assert not any(line.startswith("refresh") for line in said[:-1])


def test_change_waits_for_the_gate_to_close() -> None:
    steps = describing(3.0, distance=FAR)
    closed = [replace(steps[-1], time=steps[-1].time + k * STEP, gate=0.0) for k in range(1, 40)]
    said = play(GATING, [*steps, *closed])
    first = next(k for k, line in enumerate(said) if line.startswith("refresh"))
    assert len(steps) < first < len(steps) + 38


@pytest.mark.parametrize(("distance", "hold"), [(FAR, GATING.hold), (CUT, GATING.cut_hold)])
def test_hold_ends_and_a_cut_ends_it_sooner(distance: float, hold: float) -> None:
    steps = describing(8.0, distance=distance)
    said = play(GATING, steps)
    first = said.index("refresh: held long enough")
    assert steps[first].time == pytest.approx(11.0 + hold, abs=2 * STEP)


def test_change_in_the_lead_in_of_an_answer_is_seen_before_the_answer() -> None:
    steps = [seen(10 + k * STEP, speaking=True, gate=0.9, distance=FAR if k > 3 else 0.0) for k in range(8)]
    assert "refresh: changed" in play(GATING, steps)


def test_a_moving_view_is_followed_slowly_until_an_answer_begins() -> None:
    moving = [seen(10 + k * STEP, distance=FAR) for k in range(40)]
    assert play(GATING, moving).count("refresh: changed") == pytest.approx(39 * STEP / GATING.spacing, abs=2)
    answer = [replace(step, speaking=True, gate=0.9) for step in moving]
    said = play(GATING, answer)
    assert set(said[: int(GATING.onset / STEP)]) == {"refresh: changed"}
    assert said[int(GATING.onset / STEP) + 2] == "defer: describing"


def test_a_view_that_hovers_at_the_threshold_is_not_encoded_again_and_again() -> None:
    just = GATING.change_distance
    steps = [seen(10 + k * STEP, distance=just - 0.02 + 0.01 * (k % 2)) for k in range(50)]
    assert set(play(GATING, steps)) == {"keep: unchanged"}


def test_change_that_is_over_before_the_phrase_is_forgotten() -> None:
    steps = describing(3.0, distance=FAR)
    back = [seen(steps[-1].time + k * STEP, distance=0.0) for k in range(1, 5)]
    assert play(GATING, [*steps, *back])[-4:] == ["keep: unchanged"] * 4


def test_bad_frames_are_waited_out_then_taken_as_the_view() -> None:
    steps = [seen(10 + k * STEP, distance=FAR, bad="black") for k in range(80)]
    said = play(GATING, steps)
    first = next(k for k, line in enumerate(said) if line.startswith("refresh"))
    assert steps[first].time - 10 == pytest.approx(GATING.bad_patience, abs=2 * STEP)


def test_failing_encodes_are_not_tried_again_every_frame() -> None:
    settings = Settings("interval", interval=1.0)
    said = play(settings, [seen(10 + k * STEP, age=100.0) for k in range(26)])  # 0 s, 1.04 s
    assert said.count("refresh: interval") == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": "sometimes"},
        {"interval": -1.0},
        {"hold": float("nan")},
        {"settle_distance": 0.5, "change_distance": 0.4},
        {"gate_closed": 0.6, "gate_open": 0.5},
        {"cut_hold": 9.0},
        {"max_per_minute": 0},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Settings(**wrong)  # type: ignore[arg-type]


# --- what holds in every situation ---

share = st.floats(0, 1)
policies = st.builds(
    Settings,
    policy=st.sampled_from(["gating", "on_change", "interval"]),
    interval=st.floats(0, 3),
    max_per_minute=st.integers(1, 8),
    spacing=st.floats(0, 1),
    onset=st.floats(0, 1),
)
moments = st.builds(
    Observation,
    time=st.just(0.0),
    distance=st.none() | share,
    bad=st.sampled_from([None, None, None, "black"]),
    gate=st.none() | share,
    speaking=st.booleans(),
    phrase_end=st.booleans(),
    age=st.floats(0, 100),
    in_flight=st.booleans(),
    has_image=st.booleans(),
    frozen=st.sampled_from([False, False, False, True]),
    requested=st.sampled_from([False, False, False, True]),
)
conversations = st.lists(moments, min_size=1, max_size=40).map(
    lambda steps: [replace(step, time=0.32 * k) for k, step in enumerate(steps)]
)


@given(policies, conversations)
def test_never_a_refresh_with_one_in_flight_or_frozen_or_without_a_camera(
    settings: Settings, steps: list[Observation]
) -> None:
    for step, said in zip(steps, play(settings, steps), strict=True):
        if step.in_flight or step.frozen or step.distance is None:
            assert not said.startswith("refresh")


@given(policies, conversations)
def test_never_above_the_budget(settings: Settings, steps: list[Observation]) -> None:
    steps = [replace(step, requested=False) for step in steps]
    refreshes = [s.time for s, said in zip(steps, play(settings, steps), strict=True) if "refresh" in said]
    for time in refreshes:
        assert sum(time - 60 < other <= time for other in refreshes) <= settings.max_per_minute


@given(policies, conversations, st.floats(0, 1), st.floats(0, 100))
def test_more_distance_or_age_never_turns_a_refresh_into_a_keep(
    settings: Settings, steps: list[Observation], farther: float, older: float
) -> None:
    state = State()
    for step in steps:
        distance = None if step.distance is None else min(1.0, step.distance + farther)
        worse = replace(step, distance=distance, age=step.age + older)
        _, decision = decide(state, worse, settings)
        state, usual = decide(state, step, settings)
        assert not (usual.action == "refresh" and decision.action == "keep")


@given(conversations, st.floats(GATING.change_distance, 1), share)
def test_whatever_came_before_a_hold_ends(steps: list[Observation], distance: float, gate: float) -> None:
    state = State()
    for step in steps:
        state, _ = decide(state, step, GATING)
    start = steps[-1].time + 60  # the budget is free again
    held = [
        seen(start + k * STEP, distance=distance, gate=gate, speaking=True, age=5.0)
        for k in range(round((GATING.hold + 1.0) / STEP))
    ]
    assert any(line.startswith("refresh") for line in play(GATING, held, state))


@given(policies, conversations)
def test_the_same_history_gives_the_same_decisions(settings: Settings, steps: list[Observation]) -> None:
    assert play(settings, steps) == play(settings, steps)


# --- the scale of the gate ---


def test_gate_is_normalised_between_the_bounds_of_the_checkpoint() -> None:
    gate = GateNormaliser(0.005, 0.021)
    assert gate.update(0.005, True)[1] == 0.0
    assert gate.update(0.013, True)[1] == pytest.approx(0.5)
    assert gate.update(0.5, True)[1] == 1.0


def test_one_outlier_does_not_close_the_gate_and_a_quiet_talk_does_not_open_it() -> None:
    gate = GateNormaliser(0.005, 0.021)
    gate, _ = gate.update(10.0, True)
    assert gate.update(0.021, True)[1] > 0.99
    for _ in range(20_000):
        gate, quiet = gate.update(0.0055, True)
    assert quiet < 0.1


def test_frames_without_an_image_teach_the_gate_nothing() -> None:
    gate = GateNormaliser(0.005, 0.021)
    assert gate.update(0.02, False) == (gate, 0.0)
    assert gate.update(float("nan"), True) == (gate, 0.0)


@given(st.lists(st.floats(0, 1), max_size=300), st.floats(0.001, 0.5), st.floats(0.001, 0.5))
def test_bounds_stay_within_half_to_twice(gates: list[float], low: float, span: float) -> None:
    gate = GateNormaliser(low, low + span)
    for value in gates:
        gate, normalised = gate.update(value, True)
        assert 0 <= normalised <= 1
        assert gate.low is None or low / 2 <= gate.low <= 2 * low
        assert gate.high is None or (low + span) / 2 <= gate.high <= 2 * (low + span)
