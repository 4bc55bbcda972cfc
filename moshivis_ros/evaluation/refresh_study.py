"""When to look: every refresh policy on the same rendered clips and conversations, through the real detector.

    python -m moshivis_ros.evaluation.refresh_study --json study.json --docs docs

writes the figures as JSON, and their table and plot into the folder of refresh_policy.md. The first third of
the clips was for choosing thresholds; what is reported comes from the rest. Who speaks when, and with how open a
gate, comes from a generative model, or with --model from a trained one (the policies only: no detector hears it).
"""

from __future__ import annotations

import argparse
import json
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moshivis_ros import arguments
from moshivis_ros.errors import ConfigError, MissingDependencyError
from moshivis_ros.evaluation.clips import (
    FRAME_SECONDS,
    NUISANCES,
    Clip,
    disturbed,
    load_clip,
    same_story,
    steady_light,
    thumbnails,
)
from moshivis_ros.evaluation.talk import PAUSE_FRAMES, Recording, Talk, generate
from moshivis_ros.vision.gate import GateNormaliser
from moshivis_ros.vision.refresh_policy import Observation, Settings, State, decide
from moshivis_ros.vision.scene_change import DEFAULT, FrameCheck, make_detector

if TYPE_CHECKING:
    from rich.progress import Progress

AUCS = (0.95, 0.8, 0.6)
LATENCIES = (0.03, 0.15, 0.5)  # seconds for one encode
TALKS = 3  # conversations per clip
TOLERANCE = 6  # frames (0.48 s) within which a change must be seen
_UNLIMITED = 10_000
THRESHOLDS: dict[str, tuple[float, ...]] = {  # from which the first third of the clips picks
    "patches": (0.07, 0.09, 0.11, 0.13, 0.16),
    "histogram": (0.03, 0.05, 0.08, 0.12, 0.2),
    "structure": (0.03, 0.05, 0.07, 0.1, 0.14),
    "hash": (0.05, 0.08, 0.1, 0.12, 0.16, 0.2),
    "edges": (0.1, 0.15, 0.2, 0.3, 0.4),
    "flow": (0.05, 0.1, 0.2, 0.3, 0.4),
}

POLICIES: dict[str, Settings] = {
    "static": Settings("manual"),
    "every frame": Settings("interval", interval=0.0, max_per_minute=_UNLIMITED),
    "every 1 s": Settings("interval", interval=1.0, max_per_minute=_UNLIMITED),
    "every 2 s": Settings("interval", interval=2.0, max_per_minute=_UNLIMITED),
    "on change": Settings("on_change", spacing=0.16),  # without speech to begin, less would be late
    "gating": Settings("gating"),
}


class Footage:
    """A clip as the policy meets it: thumbnails, which frames are bad, and distances computed once."""

    def __init__(self, clip: Clip, detector: str = DEFAULT) -> None:
        self.clip = clip
        self._detector = make_detector(detector)
        check = FrameCheck()
        self._thumbs = [self._detector.describe(image) for image in thumbnails(clip)]
        self.bad = [check.check(thumb) for thumb in self._thumbs]
        self._distances: dict[tuple[int, int], float] = {}
        self._stories: dict[tuple[int, int], bool] = {}

    def distance(self, reference: int, frame: int) -> float:
        key = (reference, frame)
        if key not in self._distances:
            self._distances[key] = self._detector.distance(self._thumbs[reference], self._thumbs[frame])
        return self._distances[key]

    def same_story(self, told: int, now: int) -> bool:
        key = (self.clip.shows[told], self.clip.shows[now])
        if key not in self._stories:
            self._stories[key] = same_story(self.clip.view(told), self.clip.view(now))
        return self._stories[key]


class _Sum:
    def add(self, other: _Sum) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Tally(_Sum):
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


@dataclass
class Detection(_Sum):
    """One detector against the truth.

    changes, found: true changes, and those with a detection within half a second. detections, false: what it
    reported, and how much of that while nothing that can be seen had changed. The same for clips in which no
    lamp changes and no shadow passes: what is left there is noise, flicker, exposure, blur and shaking.
    """

    changes: int = 0
    found: int = 0
    detections: int = 0
    false: int = 0
    minutes: float = 0.0
    false_steady: int = 0
    minutes_steady: float = 0.0

    def figures(self) -> dict[str, float]:
        recall = self.found / max(1, self.changes)
        precision = 1 - self.false / max(1, self.detections)
        return {
            "f1": 2 * precision * recall / max(1e-9, precision + recall),
            "recall": recall,
            "precision": precision,
            "false_per_10_minutes": 10 * self.false / max(1e-9, self.minutes),
            "false_per_10_minutes_in_steady_light": 10 * self.false_steady / max(1e-9, self.minutes_steady),
            "changes": self.changes,
            "minutes": self.minutes,
            "minutes_in_steady_light": self.minutes_steady,
        }


def detect(footage: Footage, threshold: float) -> Detection:
    """The detector alone: when the distance reaches the threshold, the frame becomes the new reference."""
    clip = footage.clip
    minutes = len(clip) * FRAME_SECONDS / 60
    score = Detection(changes=len(clip.changes), minutes=minutes)
    reference, detections = 0, []
    for k in range(len(clip)):
        if footage.bad[k] is None and footage.distance(reference, k) >= threshold:
            detections.append(k)
            score.false += clip.view(reference) == clip.view(k)
            reference = k
    score.detections = len(detections)
    score.found = sum(any(abs(k - change) <= TOLERANCE for k in detections) for change in clip.changes)
    if steady_light(clip.seed, len(clip) * FRAME_SECONDS):
        score.false_steady, score.minutes_steady = score.false, minutes
    return score


def disturb(seed: int, seconds: float) -> dict[str, list[float]]:
    """For each nuisance [detections, every one of them false; minutes] of the default detector."""
    detector, threshold, found = make_detector(), Settings().change_distance, {}
    for nuisance in NUISANCES:
        check, reference, false, frames = FrameCheck(), None, 0, 0
        for image in disturbed(nuisance, seed, seconds):
            thumb = detector.describe(image)
            bad = check.check(thumb)
            frames += 1
            if reference is None:
                reference = thumb
            elif bad is None and detector.distance(reference, thumb) >= threshold:
                reference = thumb
                false += 1
        found[nuisance] = [false, frames * FRAME_SECONDS / 60]
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="checkpoint folder or builtin, whose speech and gate to take")
    parser.add_argument("--json", type=Path, required=True, help="file to write the figures to")
    parser.add_argument("--docs", type=Path, help="folder of refresh_policy.md: write its table and plot")
    parser.add_argument("--seed", type=arguments.seed, default=0, help="another seed, other clips and conversations")
    parser.add_argument("--clips", type=int, default=210, help="clips, a third of them for thresholds only")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a clip")
    parser.add_argument("--jobs", type=int, default=1, help="processes; each takes one core")


def run(args: argparse.Namespace) -> int:
    """The whole study. Raises ConfigError if there are too few clips to split."""
    if args.clips < 6 or args.seconds < 4:
        raise ConfigError("the study needs --clips of 6 or more and --seconds of 4 or more")
    from rich.console import Console
    from rich.progress import Progress

    seeds = [10_000 * args.seed + k for k in range(args.clips)]
    train, held_out = seeds[: args.clips // 3], seeds[args.clips // 3 :]
    recording = _record(args) if args.model else None
    detections: dict[tuple[str, float], Detection] = {}
    tallies: dict[tuple[str, float, float], Tally] = {}
    alarms: dict[str, list[float]] = {}
    # Fresh processes: one forked from a process that has drawn with OpenGL hangs.
    workers = ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn"))
    with Progress() as progress, workers as pool:
        if recording is None:
            detections = _compare(pool, progress, train, held_out, args.seconds)
            alarms = _disturb(pool, progress, held_out, args.seconds)
        played = pool.map(partial(play, seconds=args.seconds, recording=recording), held_out)
        for happened in progress.track(played, len(held_out), description="Policies"):
            _sum(tallies, happened)

    speech = "generative model of moshivis_ros/evaluation/talk.py"
    if recording is not None:
        speech = (
            f"written conversations with {args.model}, recorded by moshivis_ros/evaluation/recorded_talk.py"
        )
    study = {
        "speech": speech,
        "date": date.today().isoformat(),
        "command": "python -m moshivis_ros.evaluation.refresh_study"
        + (f" --model {args.model}" if args.model else "")
        + f" --seed {args.seed} --clips {args.clips} --seconds {args.seconds:g}",
        "seed": args.seed,
        "clips": {"train": len(train), "held_out": len(held_out), "seconds": args.seconds},
        "policies": [
            {"policy": name, "auc": auc, "latency": latency, **tally.figures(latency)}
            for (name, auc, latency), tally in tallies.items()
        ],
        "detectors": [
            {"detector": name, "threshold": threshold, **detection.figures()}
            for (name, threshold), detection in detections.items()
        ],
        "nuisances": [
            {"nuisance": nuisance, "false_per_10_minutes": 10 * number / minutes, "minutes": minutes}
            for nuisance, (number, minutes) in alarms.items()
        ],
    }
    args.json.write_text(json.dumps(study, indent=1) + "\n")
    console = Console()
    console.print(table(study), markup=False, highlight=False, soft_wrap=True)
    if args.docs:
        page = args.docs / "refresh_policy.md"
        page.write_text(with_table(page.read_text(), table(study), "model" if args.model else "study"))
        if not args.model:
            plot(study, args.docs / "refresh_policy.png")
    return 0


def _record(args: argparse.Namespace) -> Recording:
    from moshivis_ros.evaluation.recorded_talk import record  # torch: nothing else here needs it

    recording: Recording = record(args.model, args.seed, round(args.seconds / FRAME_SECONDS))
    return recording


def _compare(
    pool: ProcessPoolExecutor, progress: Progress, train: list[int], held_out: list[int], seconds: float
) -> dict[tuple[str, float], Detection]:
    """Every detector on the held-out clips, at the threshold that is best in the others."""
    detections: dict[tuple[str, float], Detection] = {}
    thresholds = partial(sweep, seconds=seconds, thresholds=THRESHOLDS)
    for found in progress.track(pool.map(thresholds, train), len(train), description="Thresholds"):
        _sum(detections, found)
    best = {
        name: max(values, key=lambda value: detections[name, value].figures()["f1"])
        for name, values in THRESHOLDS.items()
    }
    best[DEFAULT] = Settings().change_distance
    detections = {}
    chosen = partial(sweep, seconds=seconds, thresholds={name: (best[name],) for name in best})
    for found in progress.track(pool.map(chosen, held_out), len(held_out), description="Detectors"):
        _sum(detections, found)
    return detections


def _disturb(
    pool: ProcessPoolExecutor, progress: Progress, held_out: list[int], seconds: float
) -> dict[str, list[float]]:
    alarms = {nuisance: [0.0, 0.0] for nuisance in NUISANCES}
    still = held_out[: max(1, len(held_out) * 30 // 140)]  # 10 minutes of each in the whole study
    quiet = pool.map(partial(disturb, seconds=seconds), still)
    for false in progress.track(quiet, len(still), description="Nuisances"):
        for nuisance, counts in false.items():
            alarms[nuisance] = [total + more for total, more in zip(alarms[nuisance], counts)]
    return alarms


def sweep(seed: int, seconds: float, thresholds: dict[str, tuple[float, ...]]) -> dict[Any, Detection]:
    clip = load_clip(seed, seconds)
    found = {}
    for name, values in thresholds.items():
        footage = Footage(clip, name)
        found.update({(name, value): detect(footage, value) for value in values})
    return found


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


def _sum(total: dict[Any, Any], more: dict[Any, Any]) -> None:
    for key, value in more.items():
        if key in total:
            total[key].add(value)
        else:
            total[key] = value


def table(study: dict[str, Any]) -> str:
    """The figures as Markdown: a table of policies and one of detectors."""
    clips = study["clips"]
    lines = [
        f"{clips['held_out']} held-out clips of {clips['seconds']:g} s, {TALKS} conversations each, seed "
        f"{study['seed']}; speech and gate: {study['speech']}. Made on {study['date']} by `{study['command']}`.",
        "",
        "| encode | policy | gate AUC | right answers | stale p50 / p95, ms | swaps inside a phrase, /min"
        " | encodes, /min | encodes per change | GPU ms/min |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(study["policies"], key=lambda row: row["latency"]):
        auc = f"{row['auc']:.2g}" if POLICIES[row["policy"]].policy == "gating" else ""
        lines.append(
            f"| {row['latency']:g} s | {row['policy']} | {auc} | {100 * row['right']:.1f} % "
            f"| {row['staleness_p50_ms']:.0f} / {row['staleness_p95_ms']:.0f} "
            f"| {row['swaps_inside_per_minute']:.2f} | {row['encodes_per_minute']:.1f} "
            f"| {row['encodes_per_change']:.2f} | {row['gpu_ms_per_minute']:.0f} |"
        )
    if not study["detectors"]:
        return "\n".join(lines)
    lines += [
        "",
        "| detector | threshold | F1 | recall | precision | false alarms in 10 min | the same, steady light |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(study["detectors"], key=lambda row: -row["f1"]):
        lines.append(
            f"| {row['detector']} | {row['threshold']:g} | {row['f1']:.3f} | {row['recall']:.3f} "
            f"| {row['precision']:.3f} | {row['false_per_10_minutes']:.1f} "
            f"| {row['false_per_10_minutes_in_steady_light']:.1f} |"
        )
    lines += ["", "| nuisance alone, at its worst | minutes | false alarms in 10 min |", "|---|---|---|"]
    for row in study["nuisances"]:
        lines.append(f"| {row['nuisance']} | {row['minutes']:.0f} | {row['false_per_10_minutes']:.1f} |")
    return "\n".join(lines)


def with_table(page: str, text: str, mark: str) -> str:
    """The page with everything between the two marks of this name replaced."""
    marks = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    before, begin, rest = page.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (begin and end):
        raise ConfigError(f"refresh_policy.md must hold the marks {marks[0]} and {marks[1]}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def plot(study: dict[str, Any], path: Path) -> None:
    """Right answers against encodes and against swaps inside a phrase."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("the plot needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    encodes, swaps = figure.subplots(1, 2, sharey=True)
    markers = dict(zip(LATENCIES, "osD"))
    for row in study["policies"]:
        colour = f"C{list(POLICIES).index(row['policy'])}"
        style = {
            "color": colour,
            "marker": markers[row["latency"]],
            "alpha": 0.35 + 0.65 * (row["auc"] > 0.9),
        }
        encodes.plot(row["encodes_per_minute"] + 0.5, 100 * row["right"], **style)
        swaps.plot(row["swaps_inside_per_minute"], 100 * row["right"], **style)
    for name in POLICIES:
        encodes.plot([], [], "o", color=f"C{list(POLICIES).index(name)}", label=name)
    for latency, marker in markers.items():
        encodes.plot([], [], marker, color="grey", label=f"{latency:g} s an encode")
    encodes.set(
        xscale="log", xlabel="encodes per minute (+ 0.5)", ylabel="visual answers with the right picture, %"
    )
    swaps.set_xlabel("swaps inside a phrase about the old view, per minute (pale: AUC 0.8, 0.6)")
    encodes.legend(fontsize="small")
    for axes in (encodes, swaps):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(
        prog="refresh_study", description="When to look: refresh policies compared."
    )
    add_arguments(_parser)
    raise SystemExit(run(_parser.parse_args()))
