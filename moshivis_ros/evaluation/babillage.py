"""kyutai's benchmark Babillage (arXiv 2503.15633) as it lies on a disk: spoken questions, and the originals they are about.

FOLDER/coco/test-*.parquet, ocrvqa/test-*.parquet, vqav2/validation-*.parquet     kyutai/Babillage, as downloaded
FOLDER/images/coco/, images/ocrvqa/                      the pictures, named with their image_id at the end (of any kind)
FOLDER/coco/captions_*.json                              COCO's own file of captions
FOLDER/vqav2/v2_mscoco_*_annotations.json                VQAv2's own file of answers
FOLDER/ocrvqa/answers.json                               {"sample_id": "answer", ...}
FOLDER/unrelated.jsonl                                   may be there: {"question", "answers"}, to be asked instead of ours
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from moshivis_ros.audio.files import read
from moshivis_ros.errors import ConfigError
from moshivis_ros.training import parquet
from moshivis_ros.training.voices import SAMPLE_RATE, Speech

SPLITS = {"coco": "test", "ocrvqa": "test", "vqav2": "validation"}
PICTURES = {"coco": "coco", "ocrvqa": "ocrvqa", "vqav2": "coco"}
COLUMNS = ("sample_id", "question_audio", "question_transcript")
PER_IMAGE = (
    1000  # VQAv2's question_id is the number of COCO's image times this, and the number of the question
)
# Asked about nothing that is seen; the words of which one makes an answer right.
UNRELATED = (
    ("What is the capital of France?", ("paris",)),
    ("How many days does a week have?", ("seven", "7")),
    ("What do bees make?", ("honey",)),
    ("Which planet do we live on?", ("earth",)),
    ("What is frozen water called?", ("ice",)),
    ("How much is two plus two?", ("four", "4")),
    ("Which animal says meow?", ("cat", "cats")),
    ("In which season does it snow most often?", ("winter",)),
    ("What do you call the father of my father?", ("grandfather", "grandpa")),
    ("Which month comes after March?", ("april",)),
    ("Who wrote Romeo and Juliet?", ("shakespeare",)),
    ("What is the opposite of hot?", ("cold",)),
    ("How many legs does a spider have?", ("eight", "8")),
    ("Which is the largest ocean?", ("pacific",)),
    ("What gas do people need to breathe?", ("oxygen", "air")),
    ("In which country are the pyramids of Giza?", ("egypt",)),
)


@dataclass(frozen=True)
class Sample:
    """A question of Babillage. references: captions of the picture, or answers to the question."""

    id: int
    question: str
    picture: Path
    references: tuple[str, ...]
    place: tuple[Path, int, int]  # file, row group, row

    def speech(self) -> Speech:
        """The question as it is asked, whatever it was written in. Raises AudioError."""
        file, group, row = self.place
        cell = parquet.column(file, group, "question_audio")[row].as_py()
        with tempfile.NamedTemporaryFile() as kept:
            kept.write(cell["bytes"] or b"")
            kept.flush()
            return Speech(read(kept.name, SAMPLE_RATE), ())


def tasks(folder: Path) -> list[str]:
    """Which of the three are there. Raises ConfigError where none is."""
    found = [task for task in SPLITS if (folder / task).is_dir()]
    if not found:
        raise ConfigError(f"{folder}: not Babillage: there is no folder {', '.join(SPLITS)} in it")
    return found


def samples(folder: Path, task: str) -> list[Sample]:
    """All questions of a task, with where its picture is and what is right. Raises ConfigError, naming what is missing."""
    files = sorted((folder / task).glob(f"{SPLITS[task]}-*.parquet"))
    if not files:
        raise ConfigError(
            f"{folder / task}: there is no {SPLITS[task]}-*.parquet: huggingface-cli download kyutai/Babillage --repo-type dataset"
        )
    pictures = _pictures(folder / "images" / PICTURES[task])
    references = _references(folder, task)
    found: list[Sample] = []
    without: dict[str, int] = {"picture": 0, "reference": 0}
    for file in files:
        for group, row, number, image, words in _rows(file, task):
            key = image if task == "coco" else number
            if image not in pictures or key not in references:
                without["picture" if image not in pictures else "reference"] += 1
                continue
            found.append(
                Sample(number, " ".join(words), pictures[image], references[key], (file, group, row))
            )
    if any(without.values()):
        print(
            f"{task}: {without['picture']} questions without a picture, {without['reference']} without a reference left out"
        )
    if not found:
        raise ConfigError(
            f"{folder}: of no question of {task} there is both a picture (images/{PICTURES[task]}, named with its number at the "
            f"end) and a reference"
        )
    return found


def unrelated(folder: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Questions about nothing that is seen, with their answers."""
    file = folder / "unrelated.jsonl"
    if not file.is_file():
        return list(UNRELATED)
    try:
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()]
        return [(str(line["question"]), tuple(map(str, line["answers"]))) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f'{file}: every line is {{"question": "...", "answers": ["..."]}} ({error!r})'
        ) from error


def _rows(file: Path, task: str) -> Iterator[tuple[int, int, int, int, list[str]]]:
    """(row group, row, sample_id, number of the image, words of the question)."""
    table = parquet.table(file)
    wanted = [*COLUMNS, *([] if task == "vqav2" else ["image_id"])]
    if missing := sorted(set(wanted) - set(table.schema_arrow.names)):
        raise ConfigError(f"{file}: not a table of Babillage: it has no column {', '.join(missing)}")
    wanted.remove("question_audio")
    for group in range(table.num_row_groups):
        columns = table.read_row_group(group, columns=wanted).to_pydict()
        for row, number in enumerate(columns["sample_id"]):
            image = number // PER_IMAGE if task == "vqav2" else columns["image_id"][row]
            yield group, row, number, image, columns["question_transcript"][row]


def _references(folder: Path, task: str) -> dict[int, tuple[str, ...]]:
    """coco: captions by image; else answers by question."""
    pattern = {"coco": "captions_*.json", "vqav2": "*_annotations.json", "ocrvqa": "answers.json"}[task]
    files = sorted((folder / task).glob(pattern))
    if not files:
        raise ConfigError(
            f"{folder / task}: there is no {pattern}, which says what is right: see docs/fine-tuning-data.md"
        )
    known: dict[int, list[str]] = {}
    for file in files:
        try:
            data = json.loads(file.read_text("utf-8"))
            if task == "coco":
                for line in data["annotations"]:
                    known.setdefault(int(line["image_id"]), []).append(line["caption"])
            elif task == "vqav2":
                for line in data["annotations"]:
                    known[int(line["question_id"])] = [answer["answer"] for answer in line["answers"]]
            else:
                known.update({int(k): [v] if isinstance(v, str) else list(v) for k, v in data.items()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{file}: damaged, or not as {task} has it ({error!r})") from error
    return {key: tuple(texts) for key, texts in known.items()}


@cache
def _pictures(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        raise ConfigError(f"there is no {folder}: Babillage has no pictures, they are the original's")
    numbered = ((re.search(r"(\d+)$", file.stem), file) for file in sorted(folder.iterdir()))
    return {int(number[1]): file for number, file in numbered if number}

