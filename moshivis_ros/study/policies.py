"""Refresh policies in conversation: how often the right picture is in the cache when the model speaks about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moshivis_ros.audio import FRAME_SECONDS
from moshivis_ros.study.clips import load_clip
from moshivis_ros.study.footage import Footage
from moshivis_ros.study.sums import Sum
from moshivis_ros.study.talk import PAUSE_FRAMES, Recording, Talk, generate
from moshivis_ros.vision.gate import GateNormaliser
from moshivis_ros.vision.refresh_policy import Observation, Settings, State, decide

AUCS = (0.95, 0.8, 0.6)
LATENCIES = (0.03, 0.15, 0.5)  # seconds for one encode
TALKS = 3  # conversations per clip
_UNLIMITED = 10_000
POLICIES: dict[str, Settings] = {
    "static": Settings("manual"),
    "every frame": Settings("interval", interval=0.0, max_per_minute=_UNLIMITED),
    "every 1 s": Settings("interval", interval=1.0, max_per_minute=_UNLIMITED),
    "every 2 s": Settings("interval", interval=2.0, max_per_minute=_UNLIMITED),
    "on change": Settings("on_change", spacing=0.16),  # without speech to begin, less would be late
    "gating": Settings("gating"),
}


@dataclass
class Tally(Sum):
    """What happened to one policy, summed over conversations."""

    answers: int = 0
    right: int = 0
    staleness: list[float] = field(default_factory=list)  # ms, of every visual answer
    swaps_inside: int = 0
    encodes: int = 0
    changes: int = 0
    minutes: float = 0.0

    def figures(self, latency: float) -> dict[str, float]:
        return {
            "right": self.right / max(1, self.answers),
            "staleness_p50_ms": float(np.percentile(self.staleness or [0.0], 50)),
            "staleness_p95_ms": float(np.percentile(self.staleness or [0.0], 95)),
            "swaps_inside_per_minute": self.swaps_inside / self.minutes,
            "encodes_per_minute": self.encodes / self.minutes,
            "encodes_per_change": self.encodes / max(1, self.changes),
            "gpu_ms_per_minute": 1000 * latency * self.encodes / self.minutes,
            "answers": self.answers,
            "changes_per_minute": self.changes / self.minutes,
        }


def play(seed: int, seconds: float, recording: Recording | None = None) -> dict[Any, Tally]:
    footage = Footage(load_clip(seed, seconds))
    frames, changes = len(footage.clip), footage.clip.changes
    tallies: dict[Any, Tally] = {}
    for number in range(TALKS * seed, TALKS * seed + TALKS):
        if recording is None:
            talks = {auc: generate(number, frames, auc, changes) for auc in AUCS}
        else:
            talks = {recording.auc: recording.cut(number, frames)}
        for auc, talk in talks.items():
            for name, settings in POLICIES.items():
                if auc == max(talks) or settings.policy == "gating":  # the others do not look at the gate
                    for latency in LATENCIES:
                        tally = converse(footage, talk, settings, latency)
                        tallies.setdefault((name, auc, latency), Tally()).add(tally)
    return tallies


def converse(footage: Footage, talk: Talk, settings: Settings, latency: float) -> Tally:
    """One conversation under one policy, in the order of Conversation.step(): swap, speak, decide.

    Frame 0 is in the cache when it begins. An encode that starts in frame k is in use from the first frame
    that begins `latency` seconds later or after. The gate is known one frame late.
    """
    clip, frames = footage.clip, len(talk.text)
    tally = Tally(changes=len(clip.changes), minutes=frames * FRAME_SECONDS / 60)
    steps = max(1, math.ceil(latency / FRAME_SECONDS - 1e-9))
    state, normaliser = State(), GateNormaliser(talk.gate_low, talk.gate_high)
    cached, coming, ready = 0, None, 0
    gate, silent = 0.0, PAUSE_FRAMES
    answers = set(talk.answers)
    inside = np.zeros(frames, bool)
    for first, last in talk.phrases:
        inside[first : last + 1] = True
    for k in range(frames):
        if coming is not None and k >= ready:
            if inside[k] and not footage.same_story(cached, coming):
                tally.swaps_inside += 1
            cached, coming = coming, None
        if k in answers:
            wrong_for = _wrong_for(footage, cached, k)
            tally.answers += 1
            tally.right += wrong_for == 0
            tally.staleness.append(1000 * FRAME_SECONDS * wrong_for)
        silent = 0 if talk.text[k] else silent + 1
        observation = Observation(
            time=k * FRAME_SECONDS,
            distance=footage.distance(cached if coming is None else coming, k),
            bad=footage.bad[k],
            gate=gate,
            speaking=silent < PAUSE_FRAMES,
            phrase_end=silent == PAUSE_FRAMES or bool(talk.sentence_end[k]),
            age=(k - cached) * FRAME_SECONDS,
            in_flight=coming is not None,
            has_image=True,
        )
        state, decision = decide(state, observation, settings)
        if decision.action == "refresh":
            coming, ready = k, k + steps
            tally.encodes += 1
        normaliser, gate = normaliser.update(float(talk.gate[k]), has_image=True)
    return tally


def _wrong_for(footage: Footage, cached: int, now: int) -> int:
    """Frames for which the cached picture has not been telling the truth any more."""
    frames = 0
    while now - frames > cached and not footage.same_story(cached, now - frames):
        frames += 1
    return frames
