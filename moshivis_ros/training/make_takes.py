"""Questions spoken by people's voices (people.KokoroVoice), kept as sound: they take long to make, and each is used many
times, changed every time (acoustics). Goes on where it stopped."""

from __future__ import annotations

import argparse
import random
from functools import cache
from pathlib import Path

import numpy as np
from rich.progress import track

from moshivis_ros.training import dialogues
from moshivis_ros.training.people import SPEAKERS, KokoroVoice
from moshivis_ros.training.speakers import louder
from moshivis_ros.training.voices import Speech, Word

SPEEDS = (0.9, 1.35)  # of Kokoro's own: about 150 to 220 words a minute


@cache
def asked() -> tuple[str, ...]:
    """Every question of training, those that are asked often first; and among them what is none."""
    rng = random.Random("asked")
    drawn = (
        dialogues.unknown(rng, False) if rng.random() < 0.08 else dialogues.exchange(rng, dialogues.random_view(rng))
        for _ in range(40000)
    )
    return tuple(dict.fromkeys(exchange.question for exchange in drawn))


def somebody(rng: random.Random) -> KokoroVoice:
    """One of Kokoro's speakers, or what lies between some."""
    weights = [rng.gammavariate(0.4, 1.0) + 1e-6 for _ in SPEAKERS]
    accent = "en" if rng.random() < 0.3 else "en-us"
    return KokoroVoice(tuple(weights), rng.uniform(*SPEEDS), accent)


def make(folder: Path, count: int) -> None:
    """Take k is the k-th question, from the beginning again when all are spoken, by somebody new."""
    for k in track(range(count), "takes"):
        path = folder / f"{k:05}.npz"
        if path.exists():
            continue
        rng = random.Random(f"take {k}")
        text = asked()[k % len(asked())]
        write(path, text, louder(somebody(rng).say(text), 0.9))


def write(path: Path, text: str, speech: Speech) -> None:
    """Keep what was said as 16 bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"part-{path.name}")
    times = [(word.start, word.end) for word in speech.words]
    np.savez(part, text=text, times=times, pcm=(speech.pcm * 32767).astype(np.int16))
    part.replace(path)  # whole, or not there


def read(path: Path) -> tuple[str, Speech]:
    """Text and sound of a take."""
    with np.load(path) as file:
        text, times, pcm = str(file["text"]), file["times"], file["pcm"].astype(np.float32) / 32767
    words = tuple(Word(word, float(a), float(b)) for word, (a, b) in zip(text.split(), times))
    return text, Speech(pcm, words)


def load(folder: Path | str) -> dict[str, list[Speech]]:
    """All takes, by text."""
    takes: dict[str, list[Speech]] = {}
    for path in sorted(Path(folder).glob("[0-9]*.npz")):
        text, speech = read(path)
        takes.setdefault(text, []).append(speech)
    return takes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = __doc__
    parser.add_argument("folder")
    parser.add_argument("--count", type=int, default=2000, help="(%(default)s)")


def run(args: argparse.Namespace) -> int:
    make(Path(args.folder), args.count)
    return 0


if __name__ == "__main__":
    main = argparse.ArgumentParser()
    add_arguments(main)
    raise SystemExit(run(main.parse_args()))
