"""A small Babillage of our own: simulated pictures, questions aloud, in the files of the benchmark and of its originals."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow
from pyarrow import parquet

from moshivis_ros.audio.files import write
from moshivis_ros.audio.resample import resample
from moshivis_ros.training import dialogues, speakers
from moshivis_ros.training.pictures import pictures as tables
from moshivis_ros.training.pool import pool
from moshivis_ros.training.voices import EspeakVoice


def small(folder: Path, pictures: int = 6) -> Path:
    """Of each picture a caption to be said, the place and the colour of something."""
    views = pool(folder / "drawn.npz", 40, 7, 112, 14, tables)
    rng = random.Random(3)
    rows: dict[str, list[dict[str, Any]]] = {"coco": [], "ocrvqa": [], "vqav2": []}
    captions, people, places = [], [], {}
    (folder / "images" / "coco").mkdir(parents=True)
    (folder / "images" / "ocrvqa").mkdir()
    number = 0
    for k in range(40):
        view = views.views[k]
        where, colour = (dialogues.QUESTIONS[kind](rng, view, True) for kind in ("place", "colour"))
        if where is None or colour is None or len(colour.keys) > 1:
            continue
        number += 1
        image = 100 + number
        for name in (f"coco/COCO_val2014_{image:012}.jpg", f"ocrvqa/{image}.png"):
            cv2.imwrite(str(folder / "images" / name), views.pixels[k][..., ::-1])
        rows["coco"].append(_row(folder, number, image, rng.choice(dialogues.DESCRIBE.test)))
        captions += [{"image_id": image, "caption": text} for text in _captions(view)]
        rows["ocrvqa"].append(_row(folder, number, image, where.question))
        places[str(number)] = where.answer
        question = image * 1000 + 1
        rows["vqav2"].append(_row(folder, question, None, colour.question))
        answers = [colour.keys[0]] * 8 + ["grey", "white"]
        people.append({"question_id": question, "answers": [{"answer": one} for one in answers]})
        if number == pictures:
            break
    for task, split in (("coco", "test"), ("ocrvqa", "test"), ("vqav2", "validation")):
        (folder / task).mkdir(exist_ok=True)
        parquet.write_table(
            pyarrow.Table.from_pylist(rows[task]),
            folder / task / f"{split}-00000-of-00001.parquet",
            row_group_size=4,
        )
    (folder / "coco" / "captions_val2014.json").write_text(json.dumps({"annotations": captions}))
    (folder / "vqav2" / "v2_mscoco_val2014_annotations.json").write_text(json.dumps({"annotations": people}))
    (folder / "ocrvqa" / "answers.json").write_text(json.dumps(places))
    talk = [
        (one.question, one.answer) for one in (dialogues.small_talk(rng, (), True) for _ in range(4)) if one
    ]
    lines = [
        json.dumps({"question": question, "answers": [answer]}) for question, answer in dict(talk).items()
    ]
    (folder / "unrelated.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def _row(folder: Path, number: int, image: int | None, question: str) -> dict[str, Any]:
    speech = speakers.louder(EspeakVoice(speakers.HELD_OUT_USER).say(question), 0.5)
    file = folder / "spoken.wav"
    write(file, resample(speech.pcm, 24000, 16000), 16000)  # not the network's rate
    times = [[word.start, word.end] for word in speech.words]
    row: dict[str, Any] = {"sample_id": number}
    if image is not None:
        row["image_id"] = image
    return row | {
        "question_audio": {"bytes": file.read_bytes(), "path": None},
        "question_transcript": question.split(),
        "question_alignment": times,
    }


def _captions(view: dialogues.View) -> list[str]:
    """The same thing said by five people."""
    names = [f"a {item.colour} {item.kind} {item.place}" for item in view] or ["nothing at all"]
    things = " and ".join(names)
    return [
        dialogues.description(view),
        f"There is {things}.",
        f"On a table there is {things}.",
        f"I see {things}.",
        f"A table with {things} on it.",
    ]


def tone(seconds: float, low: float, high: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A sound with harmonics whose pitch goes from low to high (hertz), 24 kHz."""
    pitch = np.geomspace(low, high, round(seconds * 24000))
    phase = 2 * np.pi * np.cumsum(pitch) / 24000
    return np.asarray(sum(np.sin(k * phase) / k for k in range(1, 6)) * 0.2, np.float32)
