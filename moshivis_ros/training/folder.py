"""A folder of samples about real pictures, as fine-tuning reads it: the layout of kyutai-labs/moshi-finetune, with pictures.

    NAME.jsonl        one line a dialogue: {"path": "a/000.wav", "duration": seconds}; any name but speechless.jsonl, or several
    a/000.wav         24 kHz, 16 bits, stereo: left Moshi, right the user
    a/000.json        {"alignments": [[word, [start, end], "SPEAKER_MAIN"], ...],   Moshi's words, seconds from the beginning
                       "images": [{"path": "pictures/7.jpg", "at": seconds}, ...],  what is seen from then on; may be missing
                       "visual": [[start, end], ...]}                               answers about the picture; may be missing
    speechless.jsonl  one line a sample without sound: {"image": "pictures/7.jpg", "prompt": question, "text": answer}

All paths are relative to the folder. Words of another speaker than SPEAKER_MAIN are left out. A picture is seen until the next
one. Without "visual", all of Moshi's words while a picture is seen count as said about it, which matters to the log of the
gates, and to their loss, if there is one.

Everything is checked while it is read, so that no run of hours ends with a file that is not there.
"""

from __future__ import annotations

import json
import math
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moshivis_ros.errors import ConfigError
from moshivis_ros.model.codec import FRAME_SIZE, SAMPLE_RATE

SPEECHLESS = "speechless.jsonl"
MAIN = "SPEAKER_MAIN"
MAX_LISTED = 10
Span = tuple[float, float]


@dataclass(frozen=True)
class Dialogue:
    """Times in seconds. visual: None: not told."""

    sound: Path
    seconds: float
    words: tuple[tuple[str, Span], ...]
    pictures: tuple[tuple[float, Path], ...]  # in the order of their times
    visual: tuple[Span, ...] | None

    @property
    def frames(self) -> int:
        """Of Mimi, the last one filled up."""
        return math.ceil(round(self.seconds * SAMPLE_RATE) / FRAME_SIZE)


@dataclass(frozen=True)
class Speechless:
    picture: Path
    prompt: str
    text: str


@dataclass(frozen=True)
class Data:
    dialogues: tuple[Dialogue, ...]
    speechless: tuple[Speechless, ...]

    @property
    def pictures(self) -> list[Path]:
        """Every one once."""
        told = [path for dialogue in self.dialogues for _, path in dialogue.pictures]
        return list(dict.fromkeys([*told, *(sample.picture for sample in self.speechless)]))


def read(folders: Sequence[Path | str]) -> Data:
    """All samples of these folders. Raises ConfigError, which names the files (the first of them) that are wrong."""
    dialogues: list[Dialogue] = []
    speechless: list[Speechless] = []
    problems: list[str] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            problems.append(f"there is no folder {folder}")
            continue
        manifests = sorted(folder.glob("*.jsonl"))
        if not manifests:
            problems.append(f"{folder} holds no .jsonl file that tells what is in it")
        for manifest in manifests:
            for where, line in _lines(manifest, problems):
                try:
                    if manifest.name == SPEECHLESS:
                        speechless.append(_speechless(folder, line))
                    else:
                        dialogues.append(_dialogue(folder, line))
                except ValueError as error:
                    problems.append(f"{where}: {error}")
    if not problems and not dialogues and not speechless:
        problems.append(f"no sample in {', '.join(map(str, folders))}")
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems[:MAX_LISTED])
        more = f"\n  ... and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
        raise ConfigError(f"the data cannot be trained with:{listed}{more}")
    return Data(tuple(dialogues), tuple(speechless))


def _lines(path: Path, problems: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines() would end lines within a text, too
    except (OSError, ValueError) as error:
        problems.append(f"{path} cannot be read: {error}")
        return
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        where = f"{path}, line {number}"
        try:
            line = json.loads(text)
        except ValueError as error:
            problems.append(f"{where} is no JSON: {error}")
            continue
        if isinstance(line, dict):
            yield where, line
        else:
            problems.append(f"{where} is no mapping")


def _speechless(folder: Path, line: dict[str, Any]) -> Speechless:
    texts = [line.get(key) for key in ("image", "prompt", "text")]
    if not all(isinstance(text, str) for text in texts) or not str(texts[2]).strip():
        raise ValueError('"image", "prompt" and a "text" that is not empty are expected')
    picture, prompt, text = map(str, texts)
    return Speechless(_picture(folder, picture), prompt, text)


def _dialogue(folder: Path, line: dict[str, Any]) -> Dialogue:
    if not isinstance(line.get("path"), str):
        raise ValueError('a "path" is expected')
    sound = folder / line["path"]
    seconds = _seconds(sound)
    beside = sound.with_suffix(".json")
    try:
        told = json.loads(beside.read_text(encoding="utf-8"))
        words = tuple(
            (str(word), _span(span, seconds)) for word, span, speaker in told["alignments"] if speaker == MAIN
        )
        pictures = [(_second(each["at"]), str(each["path"])) for each in told.get("images") or []]
        visual = told.get("visual")
        spans = None if visual is None else tuple(_span(span, seconds) for span in visual)
    except OSError as error:
        raise ValueError(f"{beside} with the words' times cannot be read: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{beside} is not as it is expected: {error!r}") from error
    shown = sorted((at, _picture(folder, path)) for at, path in pictures)
    return Dialogue(sound, seconds, tuple(sorted(words, key=lambda word: word[1])), tuple(shown), spans)


def _span(span: Any, seconds: float) -> Span:
    start, end = map(float, span)
    if not 0 <= start <= end <= seconds + 1:
        raise ValueError(f"{start} to {end} s is not within the {seconds:.1f} s of the sound")
    return start, end


def _second(value: Any) -> float:
    if not math.isfinite(second := float(value)):
        raise ValueError(f"{second} is no time")
    return second


def _seconds(path: Path) -> float:
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate, frames = file.getparams()[:4]
    except (OSError, EOFError, wave.Error) as error:
        raise ValueError(f"{path} cannot be read as a wav file of 16 bits: {error}") from error
    if (channels, width, rate) != (2, 2, SAMPLE_RATE):
        raise ValueError(
            f"{path} has {channels} channels of {8 * width} bits at {rate} Hz: two of 16 bits at {SAMPLE_RATE} Hz are "
            f"expected (ffmpeg -i IN -ar {SAMPLE_RATE} -sample_fmt s16 OUT.wav)"
        )
    if frames < SAMPLE_RATE / 2:
        raise ValueError(f"{path} is shorter than half a second")
    return float(frames / rate)


def _picture(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file() or not path.stat().st_size:
        raise ValueError(f"there is no picture {path}")
    return path
