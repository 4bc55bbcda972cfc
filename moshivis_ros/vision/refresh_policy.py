"""When to replace the picture in the image cache: a pure function of what was just observed.

    state, decision = decide(state, observation, settings)

Called once per 80 ms step. Nothing here keeps time, encodes or remembers by itself: the caller passes
the clock in and keeps the returned state, so every decision can be replayed from a table.
docs/refresh_policy.md justifies the defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from moshivis_ros.errors import ConfigError

Policy = Literal["gating", "on_change", "interval", "manual"]
Action = Literal["keep", "defer", "refresh"]
POLICIES: tuple[Policy, ...] = ("gating", "on_change", "interval", "manual")
_TIMES = "interval gate_smoothing onset breath hold cut_hold keep_alive spacing bad_patience".split()


@dataclass(frozen=True)
class Settings:
    """Parameters of the policy. Gates are normalised (0..1), distances are those of scene_change (0..1).

    policy: `gating` (scene change, held back while the model describes the old view), `on_change` (scene
        change alone), `interval` (by the clock), `manual` (only on request).
    interval: seconds between refreshes of `interval`; 0 means whenever no encode is in flight.
    change_distance: distance to the cached picture at which the scene has changed.
    settle_distance: distance below which a change that was seen is over again (hysteresis); also how far
        off the picture may be before an answer that is just starting refreshes it first.
    cut_distance: distance at which the old view is gone altogether, so that holding it is worth less.
    gate_open, gate_closed: smoothed gate at which the model counts as looking, and as not looking any more
        (hysteresis).
    gate_smoothing: seconds of speech over which the gate is averaged; an answer starts afresh.
    onset: seconds after the beginning of speech in which nothing has been said about the view yet.
    breath: seconds after the end of a phrase in which the next one has not begun.
    hold: longest time in seconds that a change waits while the model describes the old view.
    cut_hold: the same in seconds after a cut.
    keep_alive: age in seconds at which even an unchanged picture is encoded again.
    spacing: shortest time in seconds between two refreshes of `on_change` and `gating`; in onset and breath
        `gating` does not wait.
    max_per_minute: refreshes allowed in any 60 seconds, except those that were requested.
    bad_patience: seconds for which bad frames (black, torn, blurred ...) are waited out; after that they
        are the view.
    """

    policy: Policy = "gating"
    interval: float = 2.0
    change_distance: float = 0.11
    settle_distance: float = 0.03
    cut_distance: float = 0.9
    gate_open: float = 0.2
    gate_closed: float = 0.1
    gate_smoothing: float = 1.0
    onset: float = 0.8
    breath: float = 0.16
    hold: float = 4.0
    cut_hold: float = 3.0
    keep_alive: float = 60.0
    spacing: float = 0.4
    max_per_minute: int = 30
    bad_patience: float = 5.0

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConfigError(f"policy is {self.policy!r}; it must be one of {', '.join(POLICIES)}")
        for name in _TIMES:
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 0 seconds or more")
        if not 0 <= self.settle_distance <= self.change_distance <= self.cut_distance <= 1:
            raise ConfigError("0 <= settle_distance <= change_distance <= cut_distance <= 1 must hold")
        if not 0 <= self.gate_closed <= self.gate_open <= 1:
            raise ConfigError("0 <= gate_closed <= gate_open <= 1 must hold")
        if self.cut_hold > self.hold:
            raise ConfigError(f"cut_hold ({self.cut_hold} s) must not be longer than hold ({self.hold} s)")
        if self.max_per_minute < 1:
            raise ConfigError(f"max_per_minute is {self.max_per_minute}; it must be 1 or more")


@dataclass(frozen=True)
class Observation:
    """What is known at one step.

    time: seconds, any origin, never going back.
    distance: 0..1 between the newest camera frame and the picture in the cache (or in flight, if one is);
        None if no camera frame is at hand. Ignored without an image.
    bad: why the newest camera frame is not fit to be seen (scene_change.quality), or None.
    gate: normalised gate of the newest frame that has one, 0..1; None if there is none (no image, start).
    speaking: the model is saying something.
    phrase_end: a sentence or phrase of the model ended in this step.
    age: seconds since the picture in the cache was taken. Ignored without an image.
    in_flight: an encode is running.
    has_image: there is a picture in the cache.
    frozen: the user wants the cache left alone.
    requested: the user wants the newest frame in the cache; to be repeated until the decision is refresh.
    """

    time: float
    distance: float | None = None
    bad: str | None = None
    gate: float | None = None
    speaking: bool = False
    phrase_end: bool = False
    age: float = 0.0
    in_flight: bool = False
    has_image: bool = False
    frozen: bool = False
    requested: bool = False


@dataclass(frozen=True)
class State:
    """What decide() remembers from one step to the next.

    gate: smoothed, 0..1; looking: it is open, with hysteresis; time: of the last step.
    speaking_since, changed_since, held_since, bad_since: when that began, or None while it is not so.
    free_until: until then the model, though it speaks, says nothing about the view (onset, breath).
    refreshes: times of the refreshes of the last 60 seconds.
    """

    time: float | None = None
    gate: float = 0.0
    looking: bool = False
    speaking_since: float | None = None
    free_until: float = float("-inf")
    changed_since: float | None = None
    held_since: float | None = None
    bad_since: float | None = None
    refreshes: tuple[float, ...] = ()


@dataclass(frozen=True)
class Decision:
    """keep: the cached picture is right; defer: it is not, but not now; refresh: encode the newest frame."""

    action: Action
    reason: str


def decide(state: State, observation: Observation, settings: Settings) -> tuple[State, Decision]:
    """The decision of this step, and the state to pass with the next one."""
    now = observation.time
    state = _follow(state, observation, settings)
    decision = _obstacle(state, observation, settings) or _choose(state, observation, settings)
    over_budget = len(state.refreshes) >= settings.max_per_minute
    if decision.action == "refresh" and over_budget and not observation.requested:
        decision = Decision("defer", "budget")
    if decision.action == "refresh":
        state = replace(state, refreshes=(*state.refreshes, now), changed_since=None, held_since=None)
    elif decision.reason == "describing" and state.held_since is None and state.changed_since is not None:
        state = replace(state, held_since=now)
    return state, decision


def _follow(state: State, seen: Observation, settings: Settings) -> State:
    """Bring smoothing, hysteresis and the times since when up to date."""
    now = seen.time
    free_until = state.free_until
    if seen.speaking and state.speaking_since is None:
        free_until = now + settings.onset
    elif seen.phrase_end:
        free_until = now + settings.breath
    gate, looking = state.gate, state.looking
    if seen.gate is not None and seen.has_image:
        gate += _share(state, seen, settings) * (seen.gate - gate)
        looking = gate >= (settings.gate_closed if looking else settings.gate_open)

    changed = False
    if seen.distance is not None and seen.has_image:
        still = state.changed_since is not None
        changed = seen.distance >= (settings.settle_distance if still else settings.change_distance)

    return replace(
        state,
        time=now,
        gate=gate,
        looking=looking,
        speaking_since=_since(state.speaking_since, seen.speaking, now),
        free_until=free_until,
        changed_since=_since(state.changed_since, changed, now),
        held_since=state.held_since if changed else None,
        bad_since=_since(state.bad_since, seen.bad is not None, now),
        refreshes=tuple(t for t in state.refreshes if now - t < 60.0),
    )


def _share(state: State, seen: Observation, settings: Settings) -> float:
    """Weight of the newest gate: the mean since speech began, then an average over `gate_smoothing`."""
    if not seen.speaking or state.speaking_since is None or state.time is None:
        return 1.0
    step = seen.time - state.time
    window = min(settings.gate_smoothing, seen.time - state.speaking_since + step)
    return 1.0 if window <= step else step / window


def _since(since: float | None, is_so: bool, now: float) -> float | None:
    if not is_so:
        return None
    return now if since is None else since


def _obstacle(state: State, seen: Observation, settings: Settings) -> Decision | None:
    """What comes before any policy: things that forbid a refresh, and things that demand one."""
    if seen.frozen:
        return Decision("keep", "frozen")
    if seen.in_flight:
        return Decision("defer", "encoding")
    if seen.distance is None:
        return Decision("keep", "no camera")
    if seen.requested:
        return Decision("refresh", "requested")
    if settings.policy == "manual":
        return Decision("keep", "manual")
    if state.bad_since is not None and seen.time - state.bad_since < settings.bad_patience:
        return Decision("defer", f"bad frame: {seen.bad}")
    if not seen.has_image:
        return Decision("refresh", "first picture")
    return None


def _choose(state: State, seen: Observation, settings: Settings) -> Decision:
    if settings.policy == "interval":
        return _interval(state, seen, settings)
    if settings.policy == "on_change":
        return _on_change(state, seen, settings)
    return _gating(state, seen, settings)


def _interval(state: State, seen: Observation, settings: Settings) -> Decision:
    # The last attempt counts as well as the age: an encode that fails is not tried again every 80 ms.
    tried = state.refreshes[-1] if state.refreshes else float("-inf")
    if min(seen.age, seen.time - tried) >= settings.interval:
        return Decision("refresh", "interval")
    return Decision("keep", "interval")


def _on_change(state: State, seen: Observation, settings: Settings) -> Decision:
    if state.changed_since is not None:
        return _spaced(state, seen, settings, "changed")
    if seen.age >= settings.keep_alive:
        return _spaced(state, seen, settings, "keep-alive")
    return Decision("keep", "unchanged")


def _gating(state: State, seen: Observation, settings: Settings) -> Decision:
    assert seen.distance is not None  # _obstacle() has seen to it
    beginning = seen.speaking and seen.time < state.free_until
    describing = seen.speaking and state.looking and not beginning
    if state.changed_since is None:
        if beginning and state.looking and seen.distance >= settings.settle_distance:
            return Decision("refresh", "about to look")
        if seen.age < settings.keep_alive:
            return Decision("keep", "unchanged")
        return Decision("defer", "describing") if describing else _spaced(state, seen, settings, "keep-alive")
    if describing:
        held = 0.0 if state.held_since is None else seen.time - state.held_since
        if held < (settings.cut_hold if seen.distance >= settings.cut_distance else settings.hold):
            return Decision("defer", "describing")
        return _spaced(state, seen, settings, "held long enough")
    reason = "phrase end" if state.held_since is not None else "changed"
    # What is said next is about the view as it is then: a moving one is followed as fast as it can be.
    return Decision("refresh", reason) if beginning else _spaced(state, seen, settings, reason)


def _spaced(state: State, seen: Observation, settings: Settings, reason: str) -> Decision:
    if state.refreshes and seen.time - state.refreshes[-1] < settings.spacing:
        return Decision("defer", "too soon")
    return Decision("refresh", reason)
