"""A small folder of samples as training/folder.py reads it: noise for sound, one colour a picture."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import cv2
import numpy as np

ANSWERS = {"red": "I see a red ball", "blue": "There is a blue cup", "green": "A green box"}
COLOURS = {"red": (0, 0, 255), "blue": (255, 0, 0), "green": (0, 255, 0)}


def write_wav(path: Path, seconds: float, rate: int = 24000, channels: int = 2, seed: int = 0) -> None:
    noise = np.random.default_rng(seed).normal(0, 3000, (round(seconds * rate), channels))
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes(noise.astype("<i2").tobytes())


def write_folder(folder: Path, dialogues: int = 3, seconds: float = 4.0) -> Path:
    (folder / "pictures").mkdir(parents=True)
    for name, colour in COLOURS.items():
        cv2.imwrite(str(folder / "pictures" / f"{name}.png"), np.full((40, 60, 3), colour, np.uint8))
    lines = []
    for number in range(dialogues):
        write_wav(folder / f"{number}.wav", seconds, seed=number)
        words = ANSWERS["red"].split()
        spoken = [[word, [1 + 0.3 * k, 1.25 + 0.3 * k], "SPEAKER_MAIN"] for k, word in enumerate(words)]
        spoken.append(["what", [0.2, 0.5], "SPEAKER_USER"])
        images = [{"path": "pictures/red.png", "at": 0.0}, {"path": "pictures/blue.png", "at": 2.8}]
        told = {"alignments": spoken, "images": images[: 1 + number % 2]}
        (folder / f"{number}.json").write_text(json.dumps(told))
        lines.append({"path": f"{number}.wav", "duration": seconds})
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    speechless = [
        {"image": f"pictures/{name}.png", "prompt": "What do you see?", "text": text}
        for name, text in ANSWERS.items()
    ]
    (folder / "speechless.jsonl").write_text("".join(json.dumps(line) + "\n" for line in speechless))
    return folder
