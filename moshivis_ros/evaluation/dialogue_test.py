"""`moshivis eval`: free-running questions about pictures, in phrasings and by a voice that training never had.

Every figure has its blind twin: the same questions with the pictures exchanged among them.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from moshivis_ros.evaluation.free_running import Reply, Turn, converse
from moshivis_ros.model.checkpoint import load_model, resolve
from moshivis_ros.model.codec import build_mimi, released_layout
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.sampling import Sampling
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.model.weights import load_into
from moshivis_ros.training import dialogues, utterances
from moshivis_ros.training.dialogues import COLOURS, KINDS, Exchange, View
from moshivis_ros.training.image_stage import normalize
from moshivis_ros.training.pictures import Pool, pool
from moshivis_ros.training.utterances import Library

KIND_ORDER = tuple(dialogues.QUESTIONS)
FORMS = {
    "written": "written prompt",
    "heard": "spoken prompt, text answer",
    "spoken": "spoken prompt, spoken answer",
}


@dataclass(frozen=True)
class Score:
    """Of one answer. right: the words that matter are there; exact: every word; named, invented: of a description."""

    right: bool
    exact: bool
    named: float = 0.0
    invented: int = 0
    said: int = 0


def score(exchange: Exchange, text: str) -> Score:
    words = text.lower().replace(",", " ").replace(".", " ").replace("?", " ").split()
    exact = text == exchange.answer
    if exchange.kind in ("describe", "teacher"):
        wanted, said = list(exchange.keys), _things(words)
        left, hits = list(said), 0
        for name in wanted:
            if name in left:
                left.remove(name)
                hits += 1
        return Score(not left and hits == len(wanted), exact, hits / len(wanted), len(left), len(said))
    if exchange.kind == "small talk":
        return Score(exact, exact)
    others = _alternatives(exchange)
    right = all(key in words for key in exchange.keys) and not any(word in words for word in others)
    return Score(right, exact)


def _things(words: list[str]) -> list[str]:
    """What a description names: "red ball", or "nothing"."""
    pairs = [f"{a} {b}" for a, b in zip(words, words[1:]) if a in COLOURS and b in KINDS]
    return pairs or (["nothing"] if "nothing" in words else [])


def _alternatives(exchange: Exchange) -> set[str]:
    """Words that would make another answer of it."""
    families: dict[str, Sequence[str]] = {
        "colour": (*COLOURS, *(("yes", "no") if len(exchange.keys) > 1 else ())),
        "thing": KINDS,
        "place": [place.split()[-1] for place in dialogues.PLACES],
        "number": dialogues.NUMBERS,
        "presence": ("yes", "no"),
    }
    return set(families.get(exchange.kind, ())) - set(exchange.keys)


def questions(
    rng: random.Random, pictures: Pool, per_kind: int, kinds: Iterable[str]
) -> list[tuple[Exchange, int]]:
    """``per_kind`` questions of each kind, each about a picture of its own; numbers balanced over the true number."""
    found: list[tuple[Exchange, int]] = []
    for kind in kinds:
        counted: dict[str, int] = defaultdict(int)
        while sum(counted.values()) < per_kind:
            n = rng.randrange(len(pictures))
            one = dialogues.QUESTIONS[kind](rng, pictures.views[n], True)
            if one is None:
                continue
            truth = one.keys[0] if kind in ("number", "presence") else kind
            if counted[truth] < per_kind / {"number": 5, "presence": 2}.get(kind, 1):
                counted[truth] += 1
                found.append((one, n))
    return found


@torch.no_grad()
def look(model: MoshiVis, pictures: Pool) -> Tensor:
    """Encoder tokens [n, N, hidden] of all pictures."""
    parts = []
    for start in range(0, len(pictures), 100):
        pixels = torch.from_numpy(pictures.pixels[start : start + 100]).permute(0, 3, 1, 2)
        parts.append(model.image_prefix.enc.model(normalize(pixels)))
    return torch.cat(parts)


def auc(high: Sequence[float], low: Sequence[float]) -> float:
    """Probability that one of ``high`` is above one of ``low``."""
    values = np.concatenate((high, low))
    ranks = np.empty(len(values))
    ranks[values.argsort(kind="stable")] = np.arange(1, len(values) + 1)
    return float((ranks[: len(high)].sum() - len(high) * (len(high) + 1) / 2) / (len(high) * len(low)))


@dataclass
class Result:
    scores: dict[str, list[Score]]
    blind: dict[str, list[Score]]
    replies: list[tuple[Exchange, Reply]]


def run_form(
    model: MoshiVis,
    tokenizer: Tokenizer,
    asked: list[tuple[Exchange, int]],
    tokens: Tensor,
    form: str,
    library: Library | None,
    sampling: Sampling,
    seed: int,
    blind: bool = True,
) -> Result:
    """All questions once with their pictures and once with those of others."""
    result = Result(defaultdict(list), defaultdict(list), [])
    others = list(range(len(asked)))
    random.Random(seed).shuffle(others)
    for scores, order in ((result.scores, range(len(asked))), (result.blind, others)):
        if scores is result.blind and not blind:
            break
        talks = [[Turn(exchange, tokens[asked[k][1]])] for (exchange, _), k in zip(asked, order)]
        for (exchange, _), (reply,) in zip(
            asked, converse(model, tokenizer, talks, form, library, sampling, seed)
        ):
            scores[exchange.kind].append(score(exchange, reply.text))
            if scores is result.scores:
                result.replies.append((exchange, reply))
    return result


def swapped(
    model: MoshiVis,
    tokenizer: Tokenizer,
    rng: random.Random,
    pictures: Pool,
    tokens: Tensor,
    count: int,
    form: str,
    library: Library | None,
    sampling: Sampling,
) -> tuple[int, int]:
    """The same question before and after the picture changes: (second answer right, first answer right)."""
    talks = []
    while len(talks) < count:
        kind = rng.choice(("colour", "place", "number", "thing"))
        a, b = rng.sample(range(len(pictures)), 2)
        first = dialogues.QUESTIONS[kind](rng, pictures.views[a], True)
        if first is None:
            continue
        second = _same_question(rng, first, pictures.views[b])
        if second is not None and second.answer != first.answer:
            talks.append([Turn(first, tokens[a]), Turn(second, tokens[b])])
    replies = converse(model, tokenizer, talks, form, library, sampling, rng.getrandbits(20))
    judged = [
        [score(t.exchange, r.text).right for t, r in zip(talk, said)] for talk, said in zip(talks, replies)
    ]
    return sum(one and two for one, two in judged), sum(one for one, _ in judged)


def _same_question(rng: random.Random, first: Exchange, view: View) -> Exchange | None:
    for _ in range(60):
        one = dialogues.QUESTIONS[first.kind](rng, view, True)
        if one is not None and one.question == first.question:
            return one
    return None


def share(scores: Sequence[Score]) -> str:
    return f"{100 * np.mean([s.right for s in scores]):.0f}" if scores else "-"


def kinds_table(results: dict[str, Result]) -> str:
    forms = list(results)
    lines = [
        "| kind | n | " + " | ".join(f"{FORMS[f]} | blind" for f in forms) + " |",
        "|---|---|" + "---|---|" * len(forms),
    ]
    for kind in KIND_ORDER:
        cells = [f"{share(results[f].scores[kind])} | {share(results[f].blind[kind])}" for f in forms]
        n = max(len(results[f].scores[kind]) for f in forms)
        lines.append(f"| {kind} | {n} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def description_line(result: Result) -> str:
    scores = result.scores["describe"]
    if not scores:
        return ""
    invented = sum(s.invented for s in scores) / max(1, sum(s.said for s in scores))
    return f"names {100 * np.mean([s.named for s in scores]):.0f} % of the things, {100 * invented:.0f} % of what it names is not there"


def numbers_line(result: Result) -> str:
    by: dict[str, list[bool]] = defaultdict(list)
    for exchange, reply in result.replies:
        if exchange.kind == "number":
            by[exchange.keys[0]].append(score(exchange, reply.text).right)
    return ", ".join(f"{name} {sum(by[name])}/{len(by[name])}" for name in dialogues.NUMBERS if by[name])


def gate_line(result: Result) -> tuple[str, float, float]:
    seen = [g for exchange, reply in result.replies if exchange.seen for g in reply.gates]
    other = [g for exchange, reply in result.replies if not exchange.seen for g in reply.gates]
    if not seen or not other:
        return "no words", 0.0, 1.0
    line = f"{np.mean(seen):.3f} in answers about the picture, {np.mean(other):.3f} in others, AUC {auc(seen, other):.2f}"
    return line, float(np.quantile(other, 0.05)), float(np.quantile(seen, 0.95))


def delay_line(result: Result) -> str:
    delays = [0.08 * r.delay for _, r in result.replies if r.delay is not None]
    early = sum(r.early > 0 for _, r in result.replies)
    within = np.mean([d <= 1.0 for d in delays]) if delays else 0.0
    return f"median {np.median(delays):.2f} s, {100 * within:.0f} % within 1 s, {early} began before the question was over"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Asks a checkpoint questions about pictures, free-running, and writes tables."
    parser.add_argument("model", help="checkpoint folder")
    parser.add_argument("--per-kind", type=int, default=60, help="questions of each kind (%(default)s)")
    parser.add_argument("--forms", nargs="+", choices=tuple(FORMS), default=list(FORMS))
    parser.add_argument(
        "--pictures", default="build/builtin/pictures/test.npz", help="npz, drawn if it is not there"
    )
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--text-temperature", type=float, default=0.0)
    parser.add_argument("--audio-temperature", type=float, default=0.5)
    parser.add_argument("--write", help="markdown file for the tables")
    parser.add_argument("--show", type=int, default=0, help="print so many questions with their answers")


def run(args: argparse.Namespace) -> int:
    began = time.monotonic()
    torch.set_num_threads(1)
    folder = resolve(args.model)
    config = ModelConfig.load(folder)
    model = load_model(folder, "cpu", torch.float32)
    tokenizer = Tokenizer.load(folder, config)
    siglip = config.siglip
    pictures = pool(args.pictures, 1500, 99, siglip.image_size, siglip.patch_size)
    tokens = look(model, pictures)
    rng = random.Random(f"questions {args.seed}")
    asked = questions(rng, pictures, args.per_kind, KIND_ORDER)
    sampling = Sampling(text_temperature=args.text_temperature, audio_temperature=args.audio_temperature)
    library = None
    if set(args.forms) != {"written"}:
        library = held_out_library(
            folder, config, sorted({exchange.question for exchange, _ in asked}), args.seed
        )
    results = {}
    for form in args.forms:
        results[form] = run_form(model, tokenizer, asked, tokens, form, library, sampling, args.seed)
        print(kinds_table({form: results[form]}), flush=True)
        for exchange, reply in random.Random(1).sample(results[form].replies, min(args.show, len(asked))):
            print(f"{exchange.kind:10} {exchange.question:45} | {exchange.answer:45} | {reply.text}")
    lines = [
        kinds_table(results),
        "",
        f"Percent of answers that are right. Text temperature {args.text_temperature}, audio {args.audio_temperature}.",
        "",
    ]
    for form, result in results.items():
        gates, low, high = gate_line(result)
        pairs = min(args.per_kind * 2, 120)
        second, first = (
            swapped(
                model,
                tokenizer,
                random.Random(args.seed),
                pictures,
                tokens,
                pairs,
                form,
                swap_library(library, form),
                sampling,
            )
            if form == "written"
            else (0, 0)
        )
        lines += [
            f"**{FORMS[form]}**",
            "",
            f"- description: {description_line(result)}",
            f"- number, by the true one: {numbers_line(result)}",
            f"- gate: {gates} (5 % quantile of others {low:.3f}, 95 % of answers about the picture {high:.3f})",
            f"- answer: {delay_line(result)}",
        ]
        if first:
            lines.append(f"- picture changed between two turns: {second} of {first} second answers right")
        lines.append("")
    command = f"moshivis eval --per-kind {args.per_kind} --forms {' '.join(args.forms)} --seed {args.seed}"
    lines.append(
        f"`{command}`: {time.monotonic() - began:.0f} s, {sum(map(len, results[args.forms[0]].scores.values()))} questions a form."
    )
    text = "\n".join(lines)
    print(text)
    if args.write:
        Path(args.write).write_text(text + "\n", encoding="utf-8")
    return 0


def swap_library(library: Library | None, form: str) -> Library | None:
    return None if form == "written" else library


def held_out_library(folder: Path, config: ModelConfig, texts: list[str], seed: int) -> Library:
    """The questions spoken by the user whom training never heard, twice each."""
    with torch.device("meta"):
        mimi = build_mimi(config)
    mimi = load_into(
        mimi, folder / config.mimi_codec, released_layout(mimi.state_dict()), "cpu", torch.float32
    )
    return utterances.build(mimi, dict.fromkeys(texts, 2), {}, seed, held_out=True)


if __name__ == "__main__":
    main = argparse.ArgumentParser()
    add_arguments(main)
    raise SystemExit(run(main.parse_args()))
