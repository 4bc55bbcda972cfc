"""What is said in people's voices (people.KokoroVoice), kept as sound: it takes long to make, and each take is used many
times, changed every time (acoustics). Goes on where it stopped."""

from __future__ import annotations

import argparse
import random
from functools import cache
from pathlib import Path

import numpy as np
from rich.progress import track

from moshivis_ros.errors import ConfigError
from moshivis_ros.training import dialogues
from moshivis_ros.training.people import KokoroVoice
from moshivis_ros.training.speakers import ROBOT, louder
from moshivis_ros.training.vocoder import vocoded
from moshivis_ros.training.voices import Speech, Word

SPEEDS = (0.85, 1.3)  # of Kokoro's own: about 145 to 220 words a minute
AMERICAN = (
    "af_alloy af_aoede af_bella af_heart af_jessica af_kore af_nicole af_nova af_river af_sarah af_sky "
    "am_adam am_echo am_eric am_fenrir am_liam am_michael am_onyx am_puck am_santa"
).split()
BRITISH = "bf_alice bf_emma bf_isabella bf_lily bm_daniel bm_fable bm_george bm_lewis".split()
OTHERS = (  # Spanish, French, Hindi, Italian, Japanese, Portuguese and Chinese people: their English has an accent
    "ef_dora em_alex ff_siwis hf_alpha hm_omega if_sara im_nicola jf_alpha jf_nezumi jm_kumo pf_dora pm_alex zf_xiaoyi zm_yunxi"
).split()


@cache
def asked() -> tuple[str, ...]:
    """Every question of training, those that are asked often first; and among them what is none."""
    rng = random.Random("asked")
    drawn = (
        dialogues.unknown(rng, False) if rng.random() < 0.12 else dialogues.exchange(rng, dialogues.random_view(rng))
        for _ in range(40000)
    )
    return tuple(dict.fromkeys(exchange.question for exchange in drawn))


@cache
def answered() -> tuple[str, ...]:
    """Every part of the robot's answers, and what it is told to say."""
    rng = random.Random("answered")
    drawn = (dialogues.exchange(rng, dialogues.random_view(rng)).answer for _ in range(40000))
    parts = dict.fromkeys(part for answer in drawn for part in dialogues.parts(answer))
    parts[dialogues.unknown(rng, False).answer] = None
    return (*sorted(parts), *dialogues.told_sentences())


def somebody(rng: random.Random) -> KokoroVoice:
    """One of Kokoro's speakers, or what lies between some of the same country."""
    names, accent = rng.choices(((AMERICAN, "en-us"), (BRITISH, "en"), (OTHERS, "en-us")), (5, 3, 2))[0]
    mixed = tuple((name, rng.uniform(0.2, 1)) for name in rng.sample(names, rng.choice((1, 2, 2, 3))))
    return KokoroVoice(mixed, rng.uniform(*SPEEDS), accent)


def make(folder: Path, count: int) -> None:
    """Take k is the k-th question, from the beginning again when all are spoken, by somebody new, and the same by a vocoder."""
    for k in track(range(count), "takes"):
        text, name = asked()[k % len(asked())], f"{k:05}"
        if not _says(folder / f"{name}.npz", text):
            write(folder / f"{name}.npz", text, louder(somebody(random.Random(f"take {k}")).say(text), 0.9))
        if not _says(folder / f"{name}-vocoder.npz", text):
            _, speech = read(folder / f"{name}.npz")
            write(folder / f"{name}-vocoder.npz", text, louder(vocoded(random.Random(f"vocoder {k}"), speech), 0.9))


def make_robot(folder: Path) -> None:
    """The robot says everything that it ever says in training, once."""
    for k, text in enumerate(track(answered(), "the robot's takes")):
        path = folder / f"{k:05}.npz"
        if not _says(path, text):
            write(path, text, louder(ROBOT.say(text), 0.6))


def _says(path: Path, text: str) -> bool:
    """Is the take there, and of this text? An older one may have another."""
    return path.exists() and read(path)[0] == text


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
    """All takes, by text. Raises ConfigError: there are none."""
    takes: dict[str, list[Speech]] = {}
    for path in sorted(Path(folder).glob("[0-9]*.npz")):
        text, speech = read(path)
        takes.setdefault(text, []).append(speech)
    if not takes:
        raise ConfigError(f"no takes in {folder}: python -m moshivis_ros.training.make_takes {folder}, with --robot for the robot's")
    return takes


class Kept:
    """A voice that says nothing but its takes (a folder of them)."""

    def __init__(self, folder: Path | str) -> None:
        self.takes = load(folder)

    def say(self, text: str) -> Speech:
        """Its first take of ``text``. Raises KeyError where it has none."""
        return self.takes[text][0]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = __doc__
    parser.add_argument("folder")
    parser.add_argument("--count", type=int, default=2000, help="(%(default)s)")
    parser.add_argument("--robot", action="store_true", help="everything that the robot says, in its voice, instead of questions")


def run(args: argparse.Namespace) -> int:
    if args.robot:
        make_robot(Path(args.folder))
    else:
        make(Path(args.folder), args.count)
    return 0


if __name__ == "__main__":
    main = argparse.ArgumentParser()
    add_arguments(main)
    raise SystemExit(run(main.parse_args()))
