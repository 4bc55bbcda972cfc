"""`moshivis eval CHECKPOINT --babillage FOLDER`: the tables of the paper: captions, answers, a change of the subject, prosody.

Each answer is written down as it comes, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from moshivis_ros.errors import ConfigError
from moshivis_ros.evaluation import babillage
from moshivis_ros.evaluation.asker import Asker
from moshivis_ros.evaluation.babillage import Sample
from moshivis_ros.evaluation.context_switch import context_switch
from moshivis_ros.evaluation.examination import FORMS, mimi_of
from moshivis_ros.evaluation.free_running import Reply, Turn
from moshivis_ros.evaluation.metrics import vqa
from moshivis_ros.evaluation.metrics.cider import cider
from moshivis_ros.model.adapters import Adapters
from moshivis_ros.model.checkpoint import load_model, resolve
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.device import default_dtype, find_device
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.sampling import Sampling
from moshivis_ros.training.dialogues import Exchange

KEPT = Path("build/babillage")  # answers
TASKS = {
    "coco": "COCO captions",
    "ocrvqa": "OCR-VQA",
    "vqav2": "VQAv2",
}
# How a written prompt is worded; {question} is that of Babillage.
WORDINGS = {
    "coco": (
        "{question}",
        "What do you see?",
        "Describe the picture in one sentence.",
        "What is this a picture of?",
    ),
    "ocrvqa": ("{question}", "{question} Answer in a few words."),
    "vqav2": ("{question}", "{question} Answer in one or two words."),
}
ANSWER = 100  # frames, 8 s
AT_ONCE = 256  # questions that are read, and put in order of length
Metric = Callable[[str, Sequence[str]], float]
METRICS: dict[str, dict[str, Metric]] = {
    "ocrvqa": {"exact match": vqa.exact_match, "in the sentence": vqa.exact_match_in_sentence},
    "vqav2": {"accuracy": vqa.vqa_accuracy, "in the sentence": vqa.vqa_accuracy_in_sentence},
}


class Replies:
    """What was answered, by (task, form, wording, sample), on disk as it comes."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.known: dict[tuple[str, str, int, int], dict[str, Any]] = {}
        if path.exists():
            whole = path.read_text("utf-8").rpartition("\n")[0].splitlines()
            for line in map(json.loads, whole):
                self.known[line["task"], line["form"], line["wording"], line["id"]] = line
            path.write_text("".join(text + "\n" for text in whole), encoding="utf-8")

    def add(self, task: str, form: str, wording: int, sample: int, reply: Reply) -> None:
        line = {
            "task": task, "form": form, "wording": wording, "id": sample, "text": reply.text,
            "gate": float(np.mean(reply.gates)) if reply.gates else None,
        }  # fmt: skip
        self.known[task, form, wording, sample] = line
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def texts(self, task: str, form: str, wording: int, samples: Sequence[Sample]) -> list[str]:
        return [self.known[task, form, wording, sample.id]["text"] for sample in samples]


def answer_all(
    asker: Asker, replies: Replies, task: str, form: str, wording: int, samples: Sequence[Sample]
) -> None:
    """Ask what has not been asked yet, many at a time, those of about one length together."""
    left = iter([s for s in samples if (task, form, wording, s.id) not in replies.known])
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(f"{TASKS[task]}, {form}, wording {wording}", total=len(samples))
        progress.advance(bar, sum((task, form, wording, s.id) in replies.known for s in samples))
        while part := list(islice(left, AT_ONCE)):
            texts = {s.id: WORDINGS[task][wording].format(question=s.question) for s in part}
            sounds = {s.id: s.speech() for s in part} if form == "spoken" else {}
            length = {k: sound.seconds for k, sound in sounds.items()} or {
                k: len(text) for k, text in texts.items()
            }
            part.sort(key=lambda s: length[s.id])
            for start in range(0, len(part), asker.batch):
                some = part[start : start + asker.batch]
                library = asker.library({str(s.id): sounds[s.id] for s in some}) if sounds else None
                asked = [str(s.id) if sounds else texts[s.id] for s in some]
                talks = [
                    [Turn(Exchange(task, text, ""), asker.look(s.picture))] for text, s in zip(asked, some)
                ]
                for sample, (reply,) in zip(some, asker.ask(talks, form, library)):
                    replies.add(task, form, wording, sample.id, reply)
                progress.advance(bar, len(some))


def score(task: str, said: Sequence[str], samples: Sequence[Sample]) -> dict[str, float]:
    """Mean of every measure of a task, in percent (CIDEr: as the papers print it)."""
    references = [sample.references for sample in samples]
    if task == "coco":
        return {"CIDEr": float(np.mean(cider(said, references)))}
    return {
        name: 100 * float(np.mean([metric(text, true) for text, true in zip(said, references)]))
        for name, metric in METRICS[task].items()
    }


def check(task: str, samples: Sequence[Sample]) -> Iterator[str]:
    """What the measures say of answers that people gave: of this picture, and of another one."""
    own = [_usual(sample.references) for sample in samples]
    if task == "coco" and all(len(sample.references) > 1 for sample in samples):
        others = [replace(sample, references=sample.references[1:]) for sample in samples]
        yield f"a person's caption against the others' of its picture: {_cells(score(task, own, others))}"
    else:
        yield f"a person's answer: {_cells(score(task, own, samples))}"
    yield f"that of the next picture: {_cells(score(task, own[1:] + own[:1], samples))}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("kyutai's Babillage instead (docs/fine-tuning-data.md)")
    group.add_argument(
        "--babillage", metavar="FOLDER", help="kyutai/Babillage, with the originals' pictures and answers"
    )
    group.add_argument("--most", type=int, default=0, help="questions of each task, drawn at random (all)")
    group.add_argument("--batch", type=int, default=32, help="questions at a time (%(default)s)")
    group.add_argument("--device", default="auto", help="cpu, cuda (%(default)s)")


def run(args: argparse.Namespace) -> int:
    folder = Path(args.babillage)
    if "heard" in args.forms:
        raise ConfigError("--babillage is asked --forms written spoken, or one of them")
    questions = {task: _some(babillage.samples(folder, task), args.most) for task in babillage.tasks(folder)}
    asked = babillage.unrelated(folder)
    asker, mark = _load(args)
    replies = Replies(KEPT / f"{mark}.jsonl")
    table = ["| task | prompts | wording | n | measure | score |", "|---|---|---|---:|---|---:|"]
    checks, lines = [], []
    for task, samples in questions.items():
        for form in args.forms:
            wordings = ("as it is asked",) if form == "spoken" else WORDINGS[task]
            found = defaultdict(list)
            for number, wording in enumerate(wordings):
                answer_all(asker, replies, task, form, number, samples)
                for measure, value in score(
                    task, replies.texts(task, form, number, samples), samples
                ).items():
                    found[measure].append(value)
                    shown = wording.replace("{question} ", "as it is asked, then ").replace(
                        "{question}", "as it is asked"
                    )
                    row = f"| {TASKS[task]} | {form} | {shown} | {len(samples)} | {measure} | {value:.1f} |"
                    table.append(row)
                    print(row, flush=True)
            for measure, values in found.items():
                if len(values) > 1:
                    lines.append(
                        f"- {TASKS[task]}, {form}, {measure} over {len(values)} wordings: {min(values):.1f} to {max(values):.1f}"
                    )
        checks += [f"- {TASKS[task]}: {line}" for line in check(task, samples)]
    first = next(iter(questions.values()))
    for form in args.forms:
        lines += [f"- {FORMS[form]}: {line}" for line in context_switch(asker, form, first, asked)]
    text = "\n".join(
        [
            *table,
            "",
            "What the measures say of people's own answers:",
            "",
            *checks,
            "",
            "Change of the subject, voice:",
            "",
            *lines,
        ]
    )
    print(text)
    if args.write:
        Path(args.write).write_text(f"# Babillage: {args.model}\n\n{text}\n", encoding="utf-8")
    return 0


def _load(args: argparse.Namespace) -> tuple[Asker, str]:
    """The model, and a name for its answers that another model, or other settings, does not have."""
    folder = resolve(args.model)
    config = ModelConfig.load(folder)
    device = find_device(args.device)
    model = load_model(folder, device, default_dtype(device), adapters=args.adapters)
    sampling = Sampling(text_temperature=args.text_temperature, audio_temperature=args.audio_temperature)
    mimi = mimi_of(folder, config).to(device)
    what = (
        str(folder.resolve()),
        _identity(folder / config.model),
        str(Path(args.babillage).resolve()),
        str(sampling),
        args.seed,
        args.adapters and _identity(Adapters.load(args.adapters).path),
    )
    mark = hashlib.sha1(repr(what).encode()).hexdigest()[:12]
    return Asker(model, Tokenizer.load(folder, config), config, mimi, sampling, args.seed, args.batch), mark


def _identity(file: Path) -> tuple[str, int, int]:
    written = file.stat()
    return str(file.resolve()), written.st_size, written.st_mtime_ns


def _some(samples: list[Sample], most: int) -> list[Sample]:
    if not most or most >= len(samples):
        return samples
    return [samples[k] for k in sorted(random.Random("babillage").sample(range(len(samples)), most))]


def _usual(answers: Sequence[str]) -> str:
    """Of captions the first, of answers the commonest."""
    return max(answers, key=lambda one: (list(answers).count(one), -list(answers).index(one)))


def _cells(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in scores.items())
