"""`moshivis eval`: free-running questions about pictures, in phrasings and by a voice that training never had.

Every figure has its blind twin: the same questions with the pictures exchanged among them.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from moshivis_ros import arguments
from moshivis_ros.audio import FRAME_SECONDS
from moshivis_ros.errors import CheckpointError, ConfigError
from moshivis_ros.evaluation import driving, voices_test
from moshivis_ros.evaluation.examination import (
    FORMS,
    Examination,
    Result,
    held_out_library,
    look,
    mimi_of,
)
from moshivis_ros.evaluation.intelligibility import Recogniser, speech_line
from moshivis_ros.evaluation.scoring import Score, auc, questions, score
from moshivis_ros.model.checkpoint import load_model, resolve
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.sampling import Sampling
from moshivis_ros.training import dialogues
from moshivis_ros.training.make_takes import Kept
from moshivis_ros.training.pictures import pictures as tables
from moshivis_ros.training.pool import pool

KIND_ORDER = tuple(dialogues.QUESTIONS)
SILENCE_MINUTES = 10
GATE_BINS = 8


def share(scores: Sequence[Score]) -> str:
    return f"{100 * np.mean([s.right for s in scores]):.0f}" if scores else "-"


def below(results: dict[str, Result], least: float) -> Iterator[str]:
    """The kinds of question of which fewer than ``least`` percent are answered right."""
    for form, result in results.items():
        for kind, scores in result.scores.items():
            if 100 * np.mean([s.right for s in scores]) < least:
                yield f"{kind} ({FORMS[form]}) {share(scores)} %"


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


def findings(examination: Examination, result: Result, pairs: int, minutes: float) -> Iterator[str]:
    """What else is to be said about one form, a line each."""
    scores = result.scores["describe"]
    invented = sum(s.invented for s in scores) / max(1, sum(s.said for s in scores))
    named = np.mean([s.named for s in scores])
    yield f"description: names {100 * named:.0f} % of the things, {100 * invented:.0f} % of what it names is not there"
    numbers: dict[str, list[bool]] = defaultdict(list)
    for exchange, reply in result.replies:
        if exchange.kind == "number":
            numbers[exchange.keys[0]].append(score(exchange, reply.text).right)
    by_number = (f"{n} {sum(numbers[n])}/{len(numbers[n])}" for n in dialogues.NUMBERS if numbers[n])
    yield f"number, by the true one: {', '.join(by_number)}"
    second, first = examination.swap(pairs)
    yield f"picture changed between two turns: {second} of {first} second answers right whose first one was"
    alone, among, back = examination.switch(pairs)
    yield (
        f"context switch: small talk right without a picture {100 * alone:.0f} %, after a question about the picture "
        f"{100 * among:.0f} %; the next question about the picture {100 * back:.0f} %"
    )
    right, of = examination.combination(pairs)
    yield f"combination: {right} of {of} questions of all kinds right that follow a description of the picture"
    delays = [FRAME_SECONDS * r.delay for _, r in result.replies if r.delay is not None]
    early = sum(r.early > 0 for _, r in result.replies)
    yield (
        f"answer: median {np.median(delays):.2f} s after the question, {100 * np.mean(np.array(delays) <= 1):.0f} % "
        f"within 1 s, {early} of {len(result.replies)} began before its end"
    )
    if examination.form == "spoken":
        starts = examination.false_starts(minutes)
        yield f"silence: began to speak {starts} times in {minutes:.0f} minutes in which nobody spoke"


def gate_table(results: dict[str, Result]) -> str:
    """Histogram of the reported gate in the words of answers, about the picture and other; AUC of words and answers."""
    lines: list[str] = []
    for form, result in results.items():
        answers = {
            about: [
                reply.gates for exchange, reply in result.replies if exchange.seen is about and reply.gates
            ]
            for about in (True, False)
        }
        if not all(answers.values()):
            continue
        seen, other = (np.concatenate(answers[about]) for about in (True, False))
        edges = np.histogram_bin_edges(np.concatenate((seen, other)), GATE_BINS)
        lines += ["", "| gate | " + " | ".join(f"to {edge:.3f}" for edge in edges[1:]) + " |"]
        lines.append("|---|" + "---|" * GATE_BINS)
        for name, values in (("about the picture", seen), ("about something else", other)):
            parts = 100 * np.histogram(values, edges)[0] / len(values)
            cells = " | ".join(f"{x:.0f} %" for x in parts)
            lines.append(f"| {name}, {len(values)} words | {cells} |")
        means = {about: [float(np.mean(gates)) for gates in answers[about]] for about in answers}
        low, high = np.quantile(other, 0.05), np.quantile(seen, 0.95)
        lines += [
            "",
            f"{FORMS[form]}: mean {seen.mean():.3f} and {other.mean():.3f}; AUC of answers (mean gate of each) "
            f"{auc(means[True], means[False]):.2f}, of single words {auc(seen, other):.2f}; 5 % of the other words are "
            f"below {low:.3f}, 95 % of those about the picture below {high:.3f}.",
        ]
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Asks a checkpoint questions about pictures, free-running, and writes tables."
    parser.add_argument("model", help="checkpoint folder, or builtin")
    parser.add_argument("--adapters", help="folder of `moshivis train`, put into the model")
    parser.add_argument("--per-kind", type=int, default=60, help="questions of each kind (%(default)s)")
    parser.add_argument("--forms", nargs="+", choices=tuple(FORMS), default=["written", "spoken"])
    parser.add_argument("--pictures", default="build/builtin/pictures/test.npz", help="npz, drawn if not there")
    parser.add_argument("--seed", type=arguments.seed, default=5)
    parser.add_argument("--text-temperature", type=float, default=0.0)
    parser.add_argument("--audio-temperature", type=float, default=0.5)
    parser.add_argument(
        "--recogniser",
        metavar="FILE",
        help="also say whether the speech can be understood, by this recogniser (trained in minutes if it is not there)",
    )
    parser.add_argument(
        "--robot", default="build/builtin/robot", help="takes of the robot's voice, to train it with (%(default)s)"
    )
    parser.add_argument("--write", help="markdown file for the tables")
    parser.add_argument(
        "--least", type=float, default=0.0, help="percent; fail if fewer answers of any kind are right"
    )
    other = parser.add_mutually_exclusive_group()
    other.add_argument(
        "--voices", choices=("held-out",), help="ask in the voices kept for judging instead, one row each"
    )
    other.add_argument("--driving", action="store_true", help="ask a robot that drives through rooms instead")
    parser.add_argument("--rooms", action="store_true", help="and in a room with noise; with --voices")
    parser.add_argument("--show", type=int, default=0, help="print so many questions with their answers")


def run(args: argparse.Namespace) -> int:
    began = time.monotonic()
    torch.set_num_threads(1)
    if (args.voices or args.driving) and (args.least or args.recogniser):
        raise ConfigError("--least and --recogniser judge the questions about tables: leave out --voices and --driving")
    robot = Kept(args.robot) if args.recogniser else None
    folder = resolve(args.model)
    config = ModelConfig.load(folder)
    model = load_model(folder, "cpu", torch.float32, adapters=args.adapters)
    tokenizer = Tokenizer.load(folder, config)
    sampling = Sampling(text_temperature=args.text_temperature, audio_temperature=args.audio_temperature)
    mimi = mimi_of(folder, config) if args.voices or set(args.forms) != {"written"} else None
    library = held_out_library(mimi, args.seed) if mimi and not args.voices else None
    if args.driving:
        return driving.run(args, model, tokenizer, sampling, library)
    siglip = config.siglip
    pictures = pool(args.pictures, 1500, 99, siglip.image_size, siglip.patch_size, tables)
    tokens = look(model, pictures)
    asked = questions(random.Random(f"questions {args.seed}"), pictures, args.per_kind, KIND_ORDER)
    if args.voices:
        one = Examination(model, tokenizer, pictures, tokens, "spoken", None, sampling, args.seed)
        return voices_test.run(args, folder, mimi, asked, one)
    results, lines = {}, []
    for form in args.forms:
        one = Examination(model, tokenizer, pictures, tokens, form, library, sampling, args.seed)
        results[form] = one.ask(asked)
        print(kinds_table({form: results[form]}), flush=True)
        for exchange, reply in random.Random(1).sample(results[form].replies, min(args.show, len(asked))):
            print(f"{exchange.kind:10} {exchange.question:45} | {exchange.answer:45} | {reply.text}")
        lines += ["", f"**{FORMS[form]}**", ""]
        lines += [f"- {line}" for line in findings(one, results[form], 2 * args.per_kind, SILENCE_MINUTES)]
        if robot and form == "spoken":
            recogniser = Recogniser.load_or_train(args.recogniser, mimi, robot.takes)
            said = [(reply.text, reply.audio) for _, reply in results[form].replies]
            lines.append(f"- speech: {speech_line(recogniser, mimi, robot, said)}")
    command = f"moshivis eval {args.model} --per-kind {args.per_kind} --forms {' '.join(args.forms)} --seed {args.seed}"
    text = "\n".join(
        [
            f"# Scores of {args.model}",
            "",
            "Made by `moshivis eval`: free-running, on pictures, phrasings and (spoken) a user's voice that training never",
            "had. Blind: the same questions with the pictures exchanged among them.",
            "",
            kinds_table(results),
            "",
            f"Percent of answers that are right. Text temperature {args.text_temperature}, audio {args.audio_temperature}.",
            *lines,
            gate_table(results),
            "",
            f"`{command}`: {time.monotonic() - began:.0f} s, {len(asked)} questions a form.",
        ]
    )
    print(text)
    if args.write:
        Path(args.write).write_text(text + "\n", encoding="utf-8")
    if poor := list(below(results, args.least)):
        raise CheckpointError(f"{args.model} is not good enough, {args.least:g} % wanted: {', '.join(poor)}")
    return 0


if __name__ == "__main__":
    main = argparse.ArgumentParser()
    add_arguments(main)
    raise SystemExit(run(main.parse_args()))
