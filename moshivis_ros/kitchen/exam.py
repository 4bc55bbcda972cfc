"""What a model can say of robots, and of everything else: the same questions before and after it has learned."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from moshivis_ros.evaluation.examination import Examination, look, mimi_of
from moshivis_ros.evaluation.scoring import Score
from moshivis_ros.evaluation.scoring import questions as usual_questions
from moshivis_ros.kitchen import questions
from moshivis_ros.model.checkpoint import load_model, resolve
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.sampling import Sampling
from moshivis_ros.training import dialogues, utterances
from moshivis_ros.training.dialogues import Exchange
from moshivis_ros.training.pictures import Picture, pictures
from moshivis_ros.training.pool import Pool

FORMS = ("written", "spoken")
SEED = 7_000  # of pictures and questions that training never has
SHOWN = 200  # pictures
Scores = dict[str, dict[str, list[Score]]]
"""Of the answers, by form and kind of question."""


def drawn(seed: int, count: int, config: ModelConfig, share: float) -> list[Picture]:
    """Pictures of which `share` have a robot in them."""
    size, patch = config.siglip.image_size, config.siglip.patch_size
    every = pictures(seed, size, patch, questions.THINGS)
    wanted = round(share * count)
    robots = list(islice((p for p in every if questions.has(p.view)), wanted))
    others = list(islice((p for p in every if not questions.has(p.view)), count - wanted))
    both = [*robots, *others]
    random.Random(seed).shuffle(both)
    return both


def pooled(some: Sequence[Picture]) -> Pool:
    return Pool(
        np.stack([picture.pixels for picture in some]),
        np.stack([picture.patches for picture in some]),
        tuple(picture.view for picture in some),
        tuple(picture.centres for picture in some),
    )


@dataclass(frozen=True)
class Result:
    """robots, others: scores of the questions about robots, and of all other ones."""

    robots: Scores
    others: Scores


def examine(model_name: str, adapters: str | None, per_kind: int) -> Result:
    """Ask `per_kind` questions of each kind, in phrasings and by a voice that training never has, in text and aloud."""
    folder = resolve(model_name)
    config = ModelConfig.load(folder)
    model = load_model(folder, "cpu", torch.float32, adapters=adapters)
    tokenizer, mimi = Tokenizer.load(folder, config), mimi_of(folder, config)
    new = pooled(drawn(SEED, SHOWN, config, share=0.75))
    old = pooled(list(islice(pictures(SEED + 1, config.siglip.image_size, config.siglip.patch_size), SHOWN)))
    asked = list(_about_robots(new, per_kind))
    usual = usual_questions(random.Random(SEED), old, per_kind, dialogues.QUESTIONS)
    texts = sorted({exchange.question for exchange, _ in (*asked, *usual)})
    library = utterances.build(mimi, dict.fromkeys(texts, 3), {}, SEED, held_out=True)
    results: list[Scores] = []
    for pool, wanted in ((new, asked), (old, usual)):
        tokens = look(model, pool)
        results.append({})
        for form in FORMS:
            sampling = Sampling(text_temperature=0.0, audio_temperature=0.5)
            one = Examination(model, tokenizer, pool, tokens, form, library, sampling, SEED)
            results[-1][form] = one.ask(wanted, blind=False, things=questions.THINGS).scores
    return Result(*results)


def _about_robots(pool: Pool, per_kind: int) -> Iterator[tuple[Exchange, int]]:
    """Questions with the numbers of their pictures; of presence as many with yes as with no."""
    rng = random.Random(SEED)
    for kind in questions.ABOUT_IT:
        counted: dict[str, int] = defaultdict(int)
        while sum(counted.values()) < per_kind:
            n = rng.randrange(len(pool))
            one = questions.draw(rng, kind, pool.views[n], held_out=True)
            if one is None or not questions.about_it(one):
                continue
            truth = one.keys[0] if kind == "presence" else kind
            if counted[truth] < per_kind / (2 if kind == "presence" else 1):
                counted[truth] += 1
                yield one, n


def share(scores: dict[str, list[Score]]) -> float:
    """Percent of the answers that are right."""
    return 100 * float(np.mean([score.right for some in scores.values() for score in some]))


def table(before: Result, after: Result) -> str:
    rows = [
        f"| about | kind | {' | '.join(f'{form}, before | after' for form in FORMS)} |",
        f"|---|---|{'---:|---:|' * len(FORMS)}",
    ]
    for name, first, second in (
        (questions.NEW, before.robots, after.robots),
        ("else", before.others, after.others),
    ):
        kinds = [kind for kind in dialogues.QUESTIONS if first[FORMS[0]].get(kind)]
        for kind in (*kinds, None):
            cells = [
                f"{share(each[form] if kind is None else {kind: each[form][kind]}):.0f}"
                for form in FORMS
                for each in (first, second)
            ]
            told = "all" if kind is None else kind
            rows.append(f"| {name} | {told} | {' | '.join(f'**{c}**' if kind is None else c for c in cells)} |")
    return "\n".join(rows)
