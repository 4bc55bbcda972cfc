"""One model asked about pictures, free-running, and what it answered."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moshivis_ros.audio import FRAME_SECONDS
from moshivis_ros.evaluation.free_running import TURN, Reply, Turn, converse
from moshivis_ros.evaluation.scoring import Score, same_question, score
from moshivis_ros.model.codec import build_mimi, released_layout
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.image_encoder import normalize
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.model.weights import load_into
from moshivis_ros.sampling import Sampling
from moshivis_ros.training import dialogues, utterances
from moshivis_ros.training.dialogues import Exchange
from moshivis_ros.training.pool import Pool
from moshivis_ros.training.utterances import Library

FORMS = {
    "written": "written prompt",
    "heard": "spoken prompt, text answer",
    "spoken": "spoken prompt, spoken answer",
}


@torch.no_grad()
def look(model: MoshiVis, pictures: Pool) -> Tensor:
    """Encoder tokens [n, N, hidden] of all pictures."""
    parts = []
    for start in range(0, len(pictures), 100):
        pixels = torch.from_numpy(pictures.pixels[start : start + 100]).permute(0, 3, 1, 2)
        parts.append(model.image_prefix.enc.model(normalize(pixels)))
    return torch.cat(parts)


@dataclass
class Result:
    scores: dict[str, list[Score]]
    blind: dict[str, list[Score]]
    replies: list[tuple[Exchange, Reply]]


class Examination:
    """One model asked in one form (written, heard or spoken), always free-running."""

    def __init__(
        self,
        model: MoshiVis,
        tokenizer: Tokenizer,
        pictures: Pool,
        tokens: Tensor,
        form: str,
        library: Library | None,
        sampling: Sampling,
        seed: int,
    ) -> None:
        self.model, self.tokenizer, self.sampling, self.seed = model, tokenizer, sampling, seed
        self.pictures, self.tokens = pictures, tokens
        self.form, self.library = form, library

    def ask(self, asked: list[tuple[Exchange, int]], blind: bool = True, things: Sequence[str] = dialogues.KINDS) -> Result:
        """All questions with their pictures and, ``blind``, with those of others; ``things`` as in score()."""
        result = Result(defaultdict(list), defaultdict(list), [])
        others = list(range(len(asked)))
        random.Random(self.seed).shuffle(others)
        for scores, order in ((result.scores, range(len(asked))), (result.blind, others)):
            if scores is result.blind and not blind:
                break
            talks = [[Turn(exchange, self.tokens[asked[k][1]])] for (exchange, _), k in zip(asked, order)]
            for (exchange, _), (reply,) in zip(asked, self._converse(talks)):
                scores[exchange.kind].append(score(exchange, reply.text, things))
                if scores is result.scores:
                    result.replies.append((exchange, reply))
        return result

    def swap(self, count: int) -> tuple[int, int]:
        """The same question before and after the picture changes: second answers right, of so many first ones."""
        rng = random.Random(f"swap {self.seed}")
        talks: list[list[Turn]] = []
        while len(talks) < count:
            kind = rng.choice(("colour", "place", "number", "thing"))
            a, b = rng.sample(range(len(self.pictures)), 2)
            first = dialogues.QUESTIONS[kind](rng, self.pictures.views[a], True)
            second = first and same_question(rng, first, self.pictures.views[b])
            if first and second and second.answer != first.answer:
                talks.append([Turn(first, self.tokens[a]), Turn(second, self.tokens[b])])
        judged = self._judge(talks)
        return sum(one and two for one, two in judged), sum(one for one, _ in judged)

    def switch(self, count: int) -> tuple[float, float, float]:
        """The context switch: shares of right answers to small talk without a picture, to small talk after a question
        about the picture, and to a question about the picture after that."""
        rng = random.Random(f"switch {self.seed}")
        talks: list[list[Turn]] = []
        while len(talks) < count:
            n = rng.randrange(len(self.pictures))
            about = (dialogues.colour, dialogues.small_talk, dialogues.place)
            asked = [exchange for ask in about if (exchange := ask(rng, self.pictures.views[n], True))]
            if len(asked) == len(about):
                talks.append([Turn(exchange, self.tokens[n]) for exchange in asked])
        alone = self._judge([[Turn(talk[1].exchange, None)] for talk in talks])
        among = np.mean(self._judge(talks), axis=0)
        return float(np.mean(alone)), float(among[1]), float(among[2])

    def combination(self, count: int) -> tuple[int, int]:
        """COMB of the paper, a general question and then a mix: right answers to the mix, of so many."""
        rng = random.Random(f"combination {self.seed}")
        talks: list[list[Turn]] = []
        for n in (rng.randrange(len(self.pictures)) for _ in range(count)):
            view = self.pictures.views[n]
            mix = [dialogues.exchange(rng, view, held_out=True) for _ in range(2)]
            talks.append([Turn(one, self.tokens[n]) for one in (dialogues.describe(rng, view, True), *mix)])
        judged = [right for _, *mix in self._judge(talks) for right in mix]
        return sum(judged), len(judged)

    def false_starts(self, minutes: float) -> int:
        """How often it began to speak while nobody said anything."""
        rng = random.Random(f"silence {self.seed}")
        turns = round(minutes * 60 / (TURN * FRAME_SECONDS))
        talks = [[Turn(None, self.tokens[rng.randrange(len(self.pictures))])] * 2 for _ in range(turns // 2)]
        return sum(bool(reply.text) for replies in self._converse(talks) for reply in replies)

    def _judge(self, talks: Sequence[Sequence[Turn]]) -> list[list[bool]]:
        return [
            [score(turn.exchange, reply.text).right for turn, reply in zip(talk, said) if turn.exchange]
            for talk, said in zip(talks, self._converse(talks))
        ]

    def _converse(self, talks: Sequence[Sequence[Turn]]) -> list[list[Reply]]:
        return converse(self.model, self.tokenizer, talks, self.form, self.library, self.sampling, self.seed)


def mimi_of(folder: Path, config: ModelConfig) -> Any:
    """The codec of a checkpoint, for whole recordings."""
    with torch.device("meta"):
        mimi = build_mimi(config)
    layout = released_layout(mimi.state_dict())
    return load_into(mimi, folder / config.mimi_codec, layout, "cpu", torch.float32)


def held_out_library(mimi: Any, seed: int) -> Library:
    """All held-out questions spoken by the user whom training never heard, twice each."""
    rng = random.Random("held out")
    texts = {
        dialogues.exchange(rng, dialogues.random_view(rng), held_out=True).question for _ in range(20000)
    }
    return utterances.build(mimi, dict.fromkeys(sorted(texts), 2), {}, seed, held_out=True)
