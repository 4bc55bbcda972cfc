"""Speak and encode the sentences that the language model is trained with (one stage of `make builtin`)."""

from __future__ import annotations

import argparse
import random
from collections import Counter
from pathlib import Path

import torch

from moshivis_ros import arguments
from moshivis_ros.errors import ConfigError
from moshivis_ros.model.codec import build_mimi, released_layout
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.weights import load_into
from moshivis_ros.training import dialogues, make_takes, utterances

ECHOES = 10  # of each part of an answer
TOLD = 2  # of each sentence that it is told to say
DRAWN = 400_000  # so that the rarest question is among them


def texts(user: int, robot: int, least: int = 2) -> tuple[dict[str, int], dict[str, int]]:
    """How many renderings of each question and of each part of an answer: about as often as training needs it."""
    rng = random.Random(0)
    asked: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    for _ in range(DRAWN):
        one = dialogues.exchange(rng, dialogues.random_view(rng))
        asked[one.question] += 1
        answered.update(dialogues.parts(one.answer))

    def often(counter: Counter[str], wanted: int) -> dict[str, int]:
        return {text: max(least, round(n * wanted / counter.total())) for text, n in sorted(counter.items())}

    asked.update(dialogues.unknown(rng, False).question for _ in range(DRAWN // 20))
    answered[dialogues.unknown(rng, False).answer] += DRAWN // 40
    return often(asked, user), often(answered, robot) | dict.fromkeys(dialogues.told_sentences(), TOLD)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Writes an npz of spoken sentences as codec tokens."
    parser.add_argument("out", help="npz file")
    parser.add_argument("--model", required=True, help="folder of config.yaml")
    parser.add_argument("--codec", required=True, help="folder of the codec's file")
    parser.add_argument(
        "--questions", type=int, default=25000, help="recordings of users, about (%(default)s)"
    )
    parser.add_argument("--takes", required=True, help="folder of make_takes: people's questions")
    parser.add_argument("--robot", required=True, help="folder of make_takes --robot: the robot's voice")
    parser.add_argument("--seed", type=arguments.seed, default=0)
    parser.add_argument(
        "--answers", type=int, default=7000, help="recordings of the robot, about (%(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    config = ModelConfig.load(args.model)
    with torch.device("meta"):
        mimi = build_mimi(config)
    path = Path(args.codec) / config.mimi_codec
    mimi = load_into(mimi, path, released_layout(mimi.state_dict()), "cpu", torch.float32)
    asked, answered = texts(args.questions, args.answers)
    people, robot = make_takes.load(args.takes), make_takes.load(args.robot)
    if unsaid := [text for text in answered if text not in robot]:
        raise ConfigError(
            f"{args.robot} has no take of {len(unsaid)} of {len(answered)} texts ({unsaid[0]!r}): delete it, and make it by "
            f"python -m moshivis_ros.training.make_takes {args.robot} --robot"
        )
    print(f"{sum(asked.values())} recordings of {len(asked)} questions, ", end="")
    print(f"{sum(answered.values())} of {len(answered)} parts of answers", flush=True)
    told = set(dialogues.told_sentences())
    echoes = [text for text in answered if text not in told for _ in range(ECHOES)]
    library = utterances.build(mimi, asked, answered, args.seed, robot, people, echoes=echoes)
    utterances.save(library, Path(args.out))
    return 0


if __name__ == "__main__":
    main = argparse.ArgumentParser()
    add_arguments(main)
    raise SystemExit(run(main.parse_args()))
