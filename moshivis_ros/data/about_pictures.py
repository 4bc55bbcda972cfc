"""Dialogues about real pictures: written by several at a time, spoken and kept one after the other."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice

from rich.console import Console
from rich.progress import Progress

from moshivis_ros.data import prompts
from moshivis_ros.data.folder import SampleFolder, Shown
from moshivis_ros.data.pictures import Photo, encoded
from moshivis_ros.data.script import SWITCH, Author, RejectedError, Script, Tokens
from moshivis_ros.data.writer import Writer
from moshivis_ros.errors import EndpointError, ImageError, WordsError
from moshivis_ros.training.folder import MAIN
from moshivis_ros.training.make_dialogues import speak
from moshivis_ros.training.voices import Voice

TURNS = (3, 6)  # questions and answers of a dialogue
SECONDS = 9.0  # of an exchange, about: for the estimate
TOKENS = (450, 30)  # read and written for a line, about
CAPTION_TOKENS = (1200, 120)
BYTES = 96_000  # a second of sound
PICTURE_BYTES = 300_000
Voices = Callable[[random.Random], tuple[Voice, Voice]]


@dataclass(frozen=True)
class Plan:
    """What is to be made. each: dialogues about a picture; parallel: how many are written at a time; turns: questions of
    a dialogue, from and to."""

    photos: Sequence[Photo]
    kinds: Sequence[str]
    each: int = 1
    seed: int = 0
    turns: tuple[int, int] = TURNS
    parallel: int = 8

    def jobs(self) -> Iterator[tuple[str, str, Photo]]:
        """(name, kind, picture) of every dialogue: the kinds in turn, so that any part has all of them."""
        for number in range(self.each):
            for k, photo in enumerate(self.photos):
                kind = self.kinds[(k + number) % len(self.kinds)]
                yield f"{photo.name}-{number}-{kind}", kind, photo


@dataclass(frozen=True)
class Estimate:
    """What a plan takes, counted, before anything is asked."""

    dialogues: int
    requests: int
    read: int
    said: int
    seconds: float

    @classmethod
    def of(cls, plan: Plan, done: int = 0, most: int | None = None) -> Estimate:
        left = len(plan.photos) * plan.each - done
        left = left if most is None else min(left, most)
        share = left / max(1, len(plan.photos) * plan.each)
        captions = round(share * sum(photo.caption is None for photo in plan.photos))
        exchanges = left * sum(plan.turns) / 2
        return cls(
            dialogues=left,
            requests=round(2 * exchanges) + captions,
            read=round(2 * exchanges * TOKENS[0]) + captions * CAPTION_TOKENS[0],
            said=round(2 * exchanges * TOKENS[1]) + captions * CAPTION_TOKENS[1],
            seconds=exchanges * SECONDS,
        )

    @property
    def bytes(self) -> float:
        return self.seconds * BYTES + self.dialogues * PICTURE_BYTES

    def __str__(self) -> str:
        return (
            f"{self.dialogues} dialogues, about {self.seconds / 3600:.2g} hours of sound ({self.bytes / 1e9:.2g} GB): about "
            f"{self.requests} requests, {self.read / 1e6:.2g} million tokens read and {self.said / 1e6:.2g} million written"
        )

    def cost(self, price_read: float, price_said: float) -> float:
        """Prices: of a million tokens."""
        return (self.read * price_read + self.said * price_said) / 1e6


@dataclass
class Took:
    """What making dialogues took: seconds by the clock, of writing (the sum of all threads) and of speaking."""

    dialogues: int = 0
    seconds: float = 0.0
    asking: float = 0.0
    speaking: float = 0.0
    tokens: Tokens = field(default_factory=Tokens)

    def __str__(self) -> str:
        used = self.tokens
        return (
            f"{self.dialogues} dialogues in {self.seconds:.0f} s: {used.requests} requests, {used.read} tokens read, "
            f"{used.said} written"
        )


def make(folder: SampleFolder, plan: Plan, writer: Writer, voices: Voices, most: int | None = None) -> Took:
    """Every dialogue of the plan that is not there yet (at most `most`). A dialogue of which a line cannot be used, or a
    picture that cannot be read, is counted and left out; any other fault stops all."""
    jobs = [job for job in plan.jobs() if job[0] not in folder.done and job[0] not in folder.rejected][:most]
    took, began = Took(len(jobs)), time.monotonic()
    waiting = iter(jobs)
    running: dict[Future[_Written], tuple[str, Photo]] = {}

    captions = _Captions(folder.captions)

    def submit(name: str, kind: str, photo: Photo) -> None:
        running[pool.submit(_write, plan, writer, name, kind, photo, captions)] = name, photo

    def keep(future: Future[_Written]) -> None:
        name, photo = running.pop(future)
        written = future.result()
        took.tokens.add(written.tokens)
        took.asking += written.seconds
        start = time.monotonic()
        _keep(folder, plan, name, photo, written, voices)
        took.speaking += time.monotonic() - start
        progress.advance(bar)

    progress = Progress(console=Console(stderr=True), transient=True)
    with progress, ThreadPoolExecutor(plan.parallel) as pool:
        bar = progress.add_task("dialogues", total=len(jobs))
        try:
            while True:
                for job in islice(waiting, plan.parallel - len(running)):
                    submit(*job)
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    keep(future)
        except EndpointError:
            writer.stop()
            for future in list(running):  # what was paid for is not thrown away
                if future.exception() is None:
                    keep(future)
            raise
        except BaseException:
            writer.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    took.seconds = time.monotonic() - began
    return took


@dataclass(frozen=True)
class _Written:
    """What came of one job: a script and its picture, or why there is none."""

    tokens: Tokens
    seconds: float
    script: Script | None = None
    picture: tuple[bytes, str] = (b"", "")
    reason: str = ""


class _Captions:
    """What is in the pictures: asked once for each of which nothing is known, whichever thread needs it first."""

    def __init__(self, known: dict[str, str]) -> None:
        self._known = dict(known)
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def of(self, photo: Photo, author: Author, picture: bytes) -> str:
        """Raises RejectedError, EndpointError."""
        if photo.caption:
            return photo.caption
        with self._locks[photo.name]:
            if photo.name not in self._known:
                self._known[photo.name] = author.caption(picture)
            return self._known[photo.name]


def _write(plan: Plan, writer: Writer, name: str, kind: str, photo: Photo, captions: _Captions) -> _Written:
    rng = random.Random(f"script {plan.seed} {name}")
    author, began = Author(writer), time.monotonic()
    script, picture, reason = None, (b"", ""), ""
    try:
        picture = encoded(photo)
        caption = captions.of(photo, author, picture[0])
        script = author.script(rng, kind, caption, rng.randint(*plan.turns))
    except RejectedError as error:
        reason = str(error)
    except ImageError:
        reason = "unreadable picture"
    return _Written(author.tokens, time.monotonic() - began, script, picture, reason)


def _keep(
    folder: SampleFolder, plan: Plan, name: str, photo: Photo, written: _Written, voices: Voices
) -> None:
    script = written.script
    if script is None:
        folder.reject(name, written.reason)
        return
    rng = random.Random(f"speech {plan.seed} {name}")
    robot, user = voices(rng)
    try:
        spoken = speak(rng, script.exchanges, robot, user)
    except WordsError:
        folder.reject(name, "a word that the voice cannot say")
        return
    image = folder.picture(photo.name, *written.picture)
    folder.speechless(image, script.caption, rng.choice(prompts.SPEECHLESS))
    first = script.exchanges[0]  # nothing was said before it that one must know
    folder.question(image, first.question, first.answer)
    turns = [
        {"kind": e.kind, "question": e.question, "answer": e.answer, "interrupted": interrupted}
        for e, interrupted in zip(script.exchanges, spoken.interrupted)
    ]
    words = [word for who, word in spoken.words if who == MAIN]
    visual = [span for exchange, span in zip(script.exchanges, spoken.answers) if exchange.kind != SWITCH]
    about = {"kind": script.kind, "turns": turns}
    folder.add(name, spoken.model, spoken.user, words, [Shown(image, 0.0)], about, visual)
