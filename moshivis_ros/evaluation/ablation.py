"""How many spoken samples does it take? And what are the gates for? (arXiv 2503.15633, its central claims)

Adapters (cross-attention, gates, image projection) are trained on one frozen backbone with different shares of spoken
samples among the speechless ones, and once without gates. Each is asked in both forms, free-running.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moshivis_ros import arguments
from moshivis_ros.evaluation.dialogue_test import KIND_ORDER
from moshivis_ros.evaluation.examination import Examination, Result, held_out_library, look, mimi_of
from moshivis_ros.evaluation.scoring import auc, questions
from moshivis_ros.model.checkpoint import resolve
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.sampling import Sampling
from moshivis_ros.training.lm_stage import model_of, remove_gates
from moshivis_ros.training.pictures import pictures as tables
from moshivis_ros.training.pool import Pool, pool
from moshivis_ros.training.train import Settings, flush_denormals, train
from moshivis_ros.training.utterances import Library

SHARES = (0, 1, 10, 25, 100)  # percent of spoken samples
UNGATED_SHARE = 25
SAMPLING = Sampling(text_temperature=0.0, audio_temperature=0.5)


@dataclasses.dataclass
class Row:
    """Results of one run, by form."""

    name: str
    seconds: float
    results: dict[str, Result]
    switches: dict[str, tuple[float, float, float]]

    def __str__(self) -> str:
        cells = []
        for form, result in self.results.items():
            seen = [s.right for kind, scores in result.scores.items() if kind != "small talk" for s in scores]
            blind = [s.right for kind, scores in result.blind.items() if kind != "small talk" for s in scores]
            alone, among, _ = self.switches[form]
            cells += [
                f"{100 * np.mean(seen):.0f} ({100 * np.mean(blind):.0f})",
                f"{100 * alone:.0f} / {100 * among:.0f}",
            ]
        gates = {
            about: [
                np.mean(r.gates) for e, r in self.results["spoken"].replies if e.seen is about and r.gates
            ]
            for about in (True, False)
        }
        cells.append(f"{auc(gates[True], gates[False]):.2f}" if np.ptp(gates[True]) > 0 else "-")
        return f"| {self.name} | {' | '.join(cells)} | {self.seconds / 60:.0f} |"


HEAD = (
    "| spoken samples | written prompts | small talk | spoken prompts | small talk | gate AUC | minutes |\n"
    "|---|---|---|---|---|---|---|"
)


def measure(
    name: str, settings: Settings, pictures: Pool, library: Library, per_kind: int, seed: int
) -> Row:
    """Train one set of adapters and ask it."""
    began = time.monotonic()
    while not train(settings):
        pass
    seconds = time.monotonic() - began
    model = MoshiVis(ModelConfig.load(settings.options["model"]))
    if settings.stage == "ungated_lm":
        remove_gates(model)
    model.load_state_dict(model_of(settings.out))
    model.eval().requires_grad_(False)
    tokenizer = Tokenizer.load(Path(settings.out), model.config)
    tokens = look(model, pictures)
    asked = questions(random.Random(f"questions {seed}"), pictures, per_kind, KIND_ORDER)
    row = Row(name, seconds, {}, {})
    for form in ("written", "spoken"):
        one = Examination(model, tokenizer, pictures, tokens, form, library, SAMPLING, seed)
        row.results[form], row.switches[form] = one.ask(asked), one.switch(2 * per_kind)
    return row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = __doc__
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("config", help="yaml of a stage lm whose options.start is the backbone to freeze")
    parser.add_argument("--out", default="build/ablation", help="folder of the runs (%(default)s)")
    parser.add_argument("--codec", default="builtin", help="checkpoint folder with the codec (%(default)s)")
    parser.add_argument("--pictures", default="build/builtin/pictures/test.npz")
    parser.add_argument("--per-kind", type=int, default=30, help="questions of each kind (%(default)s)")
    parser.add_argument(
        "--shares", type=int, nargs="+", default=list(SHARES), help="percent of spoken samples"
    )
    parser.add_argument("--seed", type=arguments.seed, default=5)
    parser.add_argument("--write", help="markdown file for the table")


def run(args: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    flush_denormals()
    base = Settings.load(args.config)
    config = ModelConfig.load(base.options["model"])
    siglip = config.siglip
    pictures = pool(args.pictures, 1500, 99, siglip.image_size, siglip.patch_size, tables)
    library = held_out_library(mimi_of(resolve(args.codec), config), args.seed)
    rows = [HEAD]
    runs: list[tuple[str, str, int]] = [(f"{share} %", "lm", share) for share in args.shares]
    runs.append((f"{UNGATED_SHARE} %, without gates", "ungated_lm", UNGATED_SHARE))
    for name, stage, share in runs:
        mixture = {"written": 100 - share, "spoken": share}
        options: dict[str, Any] = {**base.options, "train": "adapters", "mixture": mixture}
        out = f"{args.out}/{stage}-{share}"
        settings = dataclasses.replace(base, stage=stage, out=out, options=options)
        row = measure(name, settings, pictures, library, args.per_kind, args.seed)
        print(row, flush=True)
        rows.append(str(row))
    if args.write:
        Path(args.write).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    main = argparse.ArgumentParser()
    add_arguments(main)
    raise SystemExit(run(main.parse_args()))
