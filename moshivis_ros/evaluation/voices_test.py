"""`moshivis eval CHECKPOINT --voices held-out`: who is understood? One row for every voice that is kept for judging.

Each voice asks questions of all kinds, spoken answers, clean and in a room with noise; what is finished is kept, so it goes on
where it was stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from moshivis_ros.evaluation.examination import Examination
from moshivis_ros.evaluation.judges import JUDGES
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.training import acoustics, dialogues, make_takes, speakers, utterances
from moshivis_ros.training.dialogues import Exchange
from moshivis_ros.training.utterances import Library, Recording, placed
from moshivis_ros.training.voices import EspeakVoice, Speech

KINDS = tuple(dialogues.QUESTIONS)
VOICES = {"espeak m2": EspeakVoice(speakers.HELD_OUT_USER), **JUDGES}
RT60, SIGNAL_TO_NOISE = 0.5, 10.0  # seconds, dB
CLEAN, ROOMY = "clean", "room, 10 dB"
PEAK = 0.5
KEPT = Path("build/held-out")
Row = dict[str, list[int]]
"""For each kind: right answers, those right with the pictures exchanged, questions."""


def recordings(voice: str, texts: list[str]) -> dict[str, Speech]:
    """What ``voice`` said, spoken once and kept in a folder: some need a second for a sentence."""
    said = {}
    for text in texts:
        path = KEPT / voice.replace(" ", "_") / f"{hashlib.sha1(text.encode()).hexdigest()[:16]}.npz"
        if not path.exists():
            make_takes.write(path, text, speakers.louder(VOICES[voice].say(text), 0.9))
        said[text] = make_takes.read(path)[1]
    return said


def library(mimi: Any, said: dict[str, Speech], noisy: bool, seed: int) -> Library:
    """The questions as codec tokens: clean (noise of a quiet room), or far away in a room with noise."""
    rng = random.Random(f"held-out voice {seed}")
    level = len(speakers.LOUDER_LEVELS) - 1 if noisy else 1
    recorded: list[Recording] = []
    for speech in said.values():
        loud = speakers.louder(speech, PEAK)
        if noisy:
            pcm = acoustics.in_room(speech.pcm, acoustics.room(rng, RT60))
            root_mean_square = float(np.sqrt(np.mean(np.square(pcm))))
            wanted = speakers.LOUDER_LEVELS[level] * 10 ** (SIGNAL_TO_NOISE / 20)
            loud = Speech((pcm * (wanted / root_mean_square)).clip(-1, 1), speech.words)
        recorded.append(placed(loud, rng, level))
    encoded = utterances.encode(mimi, recorded)
    silence = utterances.silences(mimi, rng, speakers.LOUDER_LEVELS[level : level + 1])
    return Library({text: [one] for text, one in zip(said, encoded)}, {}, silence)


def run(
    args: argparse.Namespace,
    folder: Path,
    mimi: Any,
    asked: list[tuple[Exchange, int]],
    examination: Examination,
) -> int:
    """Prints a table with a row for each voice. examination: gets the recordings of each."""
    codec = ModelConfig.load(folder).mimi_codec
    weights = b"".join((folder / name).read_bytes() for name in ("model.safetensors", codec))
    mark = f"{hashlib.sha1(weights).hexdigest()[:12]}-{args.per_kind}-{args.seed}"
    path = KEPT / f"rows-{mark}.json"  # of finished rows
    rows: dict[str, Row] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    texts = sorted({exchange.question for exchange, _ in asked})
    places = [CLEAN, *([ROOMY] if args.rooms else [])]
    for name, place in product(VOICES, places):
        row = f"{name}, {place}"
        if row in rows:
            continue
        examination.library = library(mimi, recordings(name, texts), place == ROOMY, args.seed)
        result = examination.ask(asked)
        rows[row] = {
            kind: [sum(s.right for s in scores[kind]) for scores in (result.scores, result.blind)]
            + [len(result.scores[kind])]
            for kind in KINDS
        }
        print(_line(row, rows[row]), flush=True)
        path.write_text(json.dumps(rows), encoding="utf-8")
    lines = [f"| voice | n | all | blind | {' | '.join(KINDS)} |", f"|---|---|---|---|{'---|' * len(KINDS)}"]
    for place in places:
        lines += [_line(f"{name}, {place}", rows[f"{name}, {place}"]) for name in VOICES]
        judges = [rows[f"{name}, {place}"] for name in JUDGES]
        total = {kind: np.sum([row[kind] for row in judges], axis=0).tolist() for kind in KINDS}
        lines.append(_line(f"**all kept for judging, {place}**", total))
    command = f"moshivis eval {args.model} --voices held-out --per-kind {args.per_kind} --seed {args.seed}"
    text = "\n".join((*lines, "", f"`{command}{' --rooms' if args.rooms else ''}`"))
    print(text)
    if args.write:
        Path(args.write).write_text(text + "\n", encoding="utf-8")
    return 0


def _line(name: str, row: Row) -> str:
    right, blind, count = np.sum(list(row.values()), axis=0)
    cells = [f"{100 * r / n:.0f}" for r, _, n in row.values()]
    return (
        f"| {name} | {count} | {100 * right / count:.0f} | {100 * blind / count:.0f} | {' | '.join(cells)} |"
    )
