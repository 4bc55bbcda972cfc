"""Is the last question of a long conversation answered as well as the first, also where its context begins anew?

    python benchmarks/many_questions.py [--questions 120] [--renew-after 30] [--renew-keep 10]

One conversation of 10 minutes with the miniature: spoken questions of a voice and in phrasings that training never had,
each about another picture, every 5 seconds, with the randomness that suits the checkpoint. Once without renewals, and once
with. Prints the right answers of each quarter, and what the renewals cost.
"""

from __future__ import annotations

import argparse
import logging
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from moshivis_ros import Conversation
from moshivis_ros.audio import FRAME_SIZE, SAMPLE_RATE, Float
from moshivis_ros.evaluation.scoring import score
from moshivis_ros.training import dialogues, speakers
from moshivis_ros.training.dialogues import Exchange
from moshivis_ros.training.pictures import pictures
from moshivis_ros.vision.refresh_policy import Settings

KINDS = ("colour", "thing", "place", "number", "presence", "small talk")  # whose answers take no more than 3 s
TURN = 63 * FRAME_SIZE  # 5.04 s
BEGIN = SAMPLE_RATE // 2  # silence before the question


@dataclass(frozen=True)
class Turn:
    exchange: Exchange
    picture: np.ndarray
    sound: Float  # [TURN]


def turns(count: int, size: int, patch: int) -> Iterator[Turn]:
    rng = random.Random("many questions")
    scenes = pictures(7, size, patch)
    for number in range(count):
        kind, exchange = KINDS[number % len(KINDS)], None
        while exchange is None:
            picture = next(scenes)
            exchange = dialogues.QUESTIONS[kind](rng, picture.view, True)
        speech = speakers.louder(speakers.user(rng, held_out=True).say(exchange.question), 0.5)
        sound = np.zeros(TURN, np.float32)
        sound[BEGIN : BEGIN + len(speech.pcm)] = speech.pcm
        yield Turn(exchange, picture.pixels, sound)


def ask(conversation: Conversation, asked: list[Turn]) -> list[bool]:
    """One conversation: is each answer right?"""
    right, longest, indices, began = [], 0.0, 0, time.perf_counter()
    for turn in asked:
        conversation.see(turn.picture, wait=True)
        words = []
        for start in range(0, TURN, FRAME_SIZE):
            before = conversation.renewal.count, time.perf_counter()
            frame = conversation.step(turn.sound[start : start + FRAME_SIZE])
            if conversation.renewal.count > before[0]:
                longest = max(longest, time.perf_counter() - before[1])
            words.append(frame.text or "")
            assert frame.index == indices, "a frame was lost, or came twice"
            indices += 1
        right.append(score(turn.exchange, "".join(words).strip()).right)
        if not right[-1]:
            print(f"  wrong: {turn.exchange.question} | {turn.exchange.answer} | {''.join(words).strip()}")
    each = (time.perf_counter() - began) / indices * 1e3
    count = conversation.renewal.count
    cost = f", the longest frame with one {longest * 1e3:.0f} ms" if count else ""
    print(f"  {indices} frames, {each:.1f} ms each; {count} renewals{cost}")
    return right


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=120)
    parser.add_argument("--renew-after", type=float, default=30.0)
    parser.add_argument("--renew-keep", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.basicConfig(format="  %(message)s")
    asked: list[Turn] = []
    for renew_after in (0.0, args.renew_after):
        with Conversation.load(
            "builtin",
            device="cpu",
            seed=args.seed,
            refresh=Settings(policy="manual"),
            renew_after=renew_after,
            renew_keep=args.renew_keep,
        ) as conversation:
            siglip = conversation.config.siglip
            asked = asked or list(turns(args.questions, siglip.image_size, siglip.patch_size))
            kept = min(args.renew_keep, conversation.config.context * FRAME_SIZE / SAMPLE_RATE)
            print(f"renewed after {renew_after:g} s, {kept:g} s kept:" if renew_after else "never renewed:", flush=True)
            quarters = np.array_split(ask(conversation, asked), 4)
        print("  right: " + ", ".join(f"{sum(part)} of {len(part)}" for part in quarters), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
