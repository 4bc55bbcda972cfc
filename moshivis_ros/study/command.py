"""When to look: every refresh policy on the same rendered clips and conversations, through the real detector.

    moshivis study-refresh --json study.json --docs docs

writes the figures as JSON, and their table and plot into the folder of refresh_policy.md. The first third of
the clips was for choosing thresholds; what is reported comes from the rest. Who speaks when, and with how open a
gate, comes from a generative model, or with --model from a trained one (the policies only: no detector hears it).
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from moshivis_ros import arguments
from moshivis_ros.audio import FRAME_SECONDS
from moshivis_ros.errors import ConfigError
from moshivis_ros.study.clips import NUISANCES
from moshivis_ros.study.detectors import THRESHOLDS, Detection, disturb, sweep
from moshivis_ros.study.policies import Tally, play
from moshivis_ros.study.report import plot, table, with_table
from moshivis_ros.study.sums import add_all
from moshivis_ros.study.talk import Recording
from moshivis_ros.vision.refresh_policy import Settings
from moshivis_ros.vision.scene_change import DEFAULT

if TYPE_CHECKING:
    from rich.progress import Progress


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
            add_all(tallies, happened)

    speech = "generative model of moshivis_ros/study/talk.py"
    if recording is not None:
        speech = (
            f"written conversations with {args.model}, recorded by moshivis_ros/study/recorded_talk.py"
        )
    study = {
        "speech": speech,
        "date": date.today().isoformat(),
        "command": "moshivis study-refresh"
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
    from moshivis_ros.study.recorded_talk import record  # torch: nothing else here needs it

    recording: Recording = record(args.model, args.seed, round(args.seconds / FRAME_SECONDS))
    return recording


def _compare(
    pool: ProcessPoolExecutor, progress: Progress, train: list[int], held_out: list[int], seconds: float
) -> dict[tuple[str, float], Detection]:
    """Every detector on the held-out clips, at the threshold that is best in the others."""
    detections: dict[tuple[str, float], Detection] = {}
    thresholds = partial(sweep, seconds=seconds, thresholds=THRESHOLDS)
    for found in progress.track(pool.map(thresholds, train), len(train), description="Thresholds"):
        add_all(detections, found)
    best = {
        name: max(values, key=lambda value: detections[name, value].figures()["f1"])
        for name, values in THRESHOLDS.items()
    }
    best[DEFAULT] = Settings().change_distance
    detections = {}
    chosen = partial(sweep, seconds=seconds, thresholds={name: (best[name],) for name in best})
    for found in progress.track(pool.map(chosen, held_out), len(held_out), description="Detectors"):
        add_all(detections, found)
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
