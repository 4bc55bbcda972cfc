"""A folder of samples that grows, one whole sample at a time, and goes on where it was stopped.

dialogues.jsonl   a line for each sample: {"path", "duration"} as kyutai-labs/moshi-finetune has it, and for people
                  "image", "kind", "turns"; NAME.wav (left Moshi, right the user) and NAME.json lie beside it
NAME.json         {"alignments": [[word, [start, end], "SPEAKER_MAIN"], ...], "images": [{"path", "at"}, ...],
                  "visual": [[start, end], ...]}: when Moshi answers about the picture, where that is known
speechless.jsonl  {"image", "text", "prompt"}: what a picture shows, and questions about it, without sound
rejected.log      {"name", "reason"} for each that could not be made
made.json         what it is made of: another run with something else is refused
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from moshivis_ros.audio.files import write as write_sound
from moshivis_ros.errors import ConfigError, OutputError
from moshivis_ros.outputs import OutputFile, make_folder
from moshivis_ros.training.folder import MAIN, SPEECHLESS
from moshivis_ros.training.make_dialogues import INDEX, REJECTED
from moshivis_ros.training.voices import Sound, Word

MADE = "made.json"
PICTURES = "pictures"


class Shown(NamedTuple):
    """A picture of the folder, and from which second on it is in the image cache."""

    path: str
    at: float


class SampleFolder:
    """Open in one process at a time. A sample is there when its line is: lines are written last, and at once.

    made: what the samples are made of. Raises ConfigError where the folder holds something else, or is open elsewhere.
    """

    def __init__(self, folder: str | Path, made: dict[str, Any]) -> None:
        self.path = make_folder(folder)
        there = [file for file in self.path.iterdir() if file.name != ".lock"]
        if there and not (self.path / MADE).is_file():
            raise ConfigError(
                f"{folder} is not empty, and nothing that can be gone on with: choose another folder"
            )
        try:
            self._lock = (self.path / ".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"{folder}: another make-dialogues is at work in it") from error
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written ({error.strerror}); name another") from error
        self._begin(made)
        for file in self.path.rglob("*.part*"):  # of a run that was killed: nothing else writes here
            file.unlink()
        self.done = {Path(line["path"]).stem for line in self._lines(INDEX)}
        self.rejected = {line["name"]: line["reason"] for line in self._lines(REJECTED)}
        self.captions: dict[str, str] = {}
        self._questions: set[tuple[str, str]] = set()  # pictures and prompts of the samples without sound
        for line in self._lines(SPEECHLESS):
            self.captions.setdefault(Path(line["image"]).stem, str(line["text"]))  # the first is the caption
            self._questions.add((line["image"], line["prompt"]))

    def __enter__(self) -> SampleFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()

    @property
    def reasons(self) -> Counter[str]:
        """Why samples were rejected, and how often."""
        return Counter(self.rejected.values())

    def need(self, size: float) -> None:
        """Raises OutputError where there are not so many bytes."""
        free = shutil.disk_usage(self.path).free
        if free < size:
            raise OutputError(
                f"{self.path}: about {size / 1e9:.2g} GB are needed and {free / 1e9:.2g} GB free; make room or make fewer"
            )

    def picture(self, name: str, data: bytes, ending: str) -> str:
        """Keep a picture; returns where, from this folder."""
        place = f"{PICTURES}/{name}{ending}"
        make_folder(self.path / PICTURES)
        if not (self.path / place).is_file():
            self._file(self.path / place, data)
        return place

    def speechless(self, image: str, text: str, prompt: str) -> None:
        """What a picture shows, once for each picture."""
        if Path(image).stem not in self.captions:
            self.captions[Path(image).stem] = text
            self.question(image, prompt, text)

    def question(self, image: str, prompt: str, text: str) -> None:
        """A question about a picture whose caption is there, and its answer, once."""
        if (image, prompt) not in self._questions:
            self._questions.add((image, prompt))
            self._add(SPEECHLESS, {"image": image, "text": text, "prompt": prompt})

    def add(
        self,
        name: str,
        model: Sound,
        user: Sound,
        words: Sequence[Word],
        images: Sequence[Shown],
        about: dict[str, Any],
        visual: Sequence[tuple[float, float]] | None = None,
    ) -> None:
        """A sample. model, user: float32 at 24 kHz of one length; words: the model's; about: what else its line says;
        visual: from when to when its answers are about a picture."""
        write_sound(self.path / f"{name}.wav", np.stack((model, user), 1))
        self.line(name, len(model) / 24000, words, images, about, visual)

    def line(
        self,
        name: str,
        seconds: float,
        words: Sequence[Word],
        images: Sequence[Shown],
        about: dict[str, Any],
        visual: Sequence[tuple[float, float]] | None = None,
    ) -> None:
        """The rest of a sample whose sound is there."""
        beside: dict[str, Any] = {
            "alignments": [[w.text, [round(w.start, 3), round(w.end, 3)], MAIN] for w in words],
            "images": [{"path": image.path, "at": round(image.at, 3)} for image in images],
        }
        if visual is not None:
            beside["visual"] = [[round(start, 3), round(end, 3)] for start, end in visual]
        self._file(self.path / f"{name}.json", json.dumps(beside, ensure_ascii=False).encode())
        image = {"image": images[0].path} if images else {}
        self._add(INDEX, {"path": f"{name}.wav", "duration": round(seconds, 3), **image, **about})
        self.done.add(name)

    def reject(self, name: str, reason: str) -> None:
        self.rejected[name] = reason
        self._add(REJECTED, {"name": name, "reason": reason})

    def _begin(self, made: dict[str, Any]) -> None:
        file = self.path / MADE
        if not file.is_file():
            self._file(file, json.dumps(made, indent=1).encode())
            return
        try:
            before = json.loads(file.read_text("utf-8"))
        except ValueError as error:
            raise ConfigError(f"{file} is damaged ({error}): choose another folder") from error
        other = sorted(key for key in before.keys() | made.keys() if before.get(key) != made.get(key))
        if other:
            told = ", ".join(f"{key} was {before.get(key)}, is {made.get(key)}" for key in other)
            raise ConfigError(f"{self.path} was begun with something else: {told}; choose another folder")

    def _lines(self, name: str) -> list[dict[str, Any]]:
        """Whole lines; what a killed run left of the last one is cut off."""
        file = self.path / name
        if not file.is_file():
            return []
        data = file.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(file, len(whole))
        try:
            return [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise ConfigError(f"{file} is damaged ({error}): mend it or choose another folder") from error

    def _add(self, name: str, line: dict[str, Any]) -> None:
        try:
            with (self.path / name).open("ab") as file:
                file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(
                f"{self.path / name}: cannot be written ({error.strerror}); the same command goes on when that is mended"
            ) from error

    def _file(self, path: Path, data: bytes) -> None:
        output = OutputFile(path)
        try:
            output.file.write(data)
        except OSError as error:
            raise output.failure(error) from error
        output.close()
