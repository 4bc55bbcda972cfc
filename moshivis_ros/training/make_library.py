"""Speak and encode the sentences that the language model is trained with (one stage of `make builtin`)."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch

from moshivis_ros.model.codec import build_mimi, released_layout
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.weights import load_into
from moshivis_ros.training import dialogues, utterances
from moshivis_ros.training.pictures import pool


def texts(views: list[dialogues.View], renderings: int) -> tuple[list[str], dict[str, int]]:
    """All questions of training, and the answers with the number of renderings of each.

    Short answers come up all the time and are rendered more often; descriptions are those of ``views``.
    """
    rng = random.Random(0)
    asked: set[str] = set()
    answers = {dialogues.description(view): 2 for view in views}
    for _ in range(40000):
        one = dialogues.exchange(rng, dialogues.random_view(rng))
        asked.add(one.question)
        if one.kind not in ("describe", "teacher"):
            answers[one.answer] = renderings
    for kind in dialogues.KINDS:
        for colour in dialogues.COLOURS:
            answers[dialogues.description((dialogues.Item(kind, colour, ""),))] = renderings
    return sorted(asked), answers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Writes an npz of spoken sentences as codec tokens."
    parser.add_argument("out", help="npz file")
    parser.add_argument("--model", required=True, help="folder of config.yaml")
    parser.add_argument("--codec", required=True, help="folder of the codec's file")
    parser.add_argument("--pictures", required=True, help="npz of pictures: some of them are described")
    parser.add_argument("--described", type=int, default=800, help="pictures whose description is spoken")
    parser.add_argument("--renderings", type=int, default=60, help="of every question and short answer")


def run(args: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    config = ModelConfig.load(args.model)
    with torch.device("meta"):
        mimi = build_mimi(config)
    path = Path(args.codec) / config.mimi_codec
    mimi = load_into(mimi, path, released_layout(mimi.state_dict()), "cpu", torch.float32)
    size, patch = config.siglip.image_size, config.siglip.patch_size
    views = list(pool(args.pictures, args.described, 1, size, patch).views)
    asked, answers = texts(views, args.renderings)
    print(f"{len(asked)} questions, {len(answers)} answers", flush=True)
    utterances.save(utterances.build(mimi, asked, answers, args.renderings, 0), Path(args.out))
    return 0


if __name__ == "__main__":
    main = argparse.ArgumentParser()
    add_arguments(main)
    raise SystemExit(run(main.parse_args()))
