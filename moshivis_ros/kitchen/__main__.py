"""From pictures of a thing that the miniature never saw to a miniature that knows it: adapters alone learn.

Every step is a command that you would use with pictures of your own, and is printed. It goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import shlex
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from moshivis_ros import cli
from moshivis_ros.errors import CheckpointError
from moshivis_ros.kitchen import endpoint, exam, questions
from moshivis_ros.model.checkpoint import resolve
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.training import dialogues

CONFIG = Path(__file__).parents[1] / "training" / "configs" / "adapters_miniature.yaml"
PHOTOS, OTHERS = 400, 200  # pictures to learn from; dialogues about known things
WITH_ROBOT = 0.75  # share of the pictures
PER_KIND = 40  # questions of each kind
LEAST = 85.0  # percent of the questions about robots that are answered right afterwards
MOST_LOST = 3.0  # points, of all other questions


def photograph(folder: Path, count: int, config: ModelConfig) -> None:
    """A folder of pictures with captions, as one has of one's own kitchen."""
    import cv2

    if (folder / "metadata.jsonl").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for k, picture in enumerate(exam.drawn(1, count, config, WITH_ROBOT)):
        cv2.imwrite(str(folder / f"{k:04}.png"), picture.pixels[..., ::-1])
        lines.append(json.dumps({"file_name": f"{k:04}.png", "caption": dialogues.description(picture.view)}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def moshivis(*command: str) -> None:
    print(f"\n$ moshivis {shlex.join(command)}", flush=True)
    if code := cli.main(command):
        raise SystemExit(code)


def run() -> int:
    torch.set_num_threads(1)
    settings: dict[str, Any] = yaml.safe_load(CONFIG.read_text("utf-8"))
    model, (learned, others) = settings["options"]["model"], map(Path, settings["options"]["data"])
    out, photos = Path(settings["out"]), learned.parent / "photos"
    began = time.monotonic()
    print(f"{PHOTOS} pictures, {100 * WITH_ROBOT:.0f} % of them with a {questions.NEW}: {photos}", flush=True)
    photograph(photos, PHOTOS, ModelConfig.load(resolve(model)))
    with endpoint.serve() as url:
        moshivis(
            "make-dialogues", str(learned), "--images", str(photos), "--endpoint", url, "--model", "templates",
            "--kinds", *endpoint.KINDS, "--voice", "miniature",
        )  # fmt: skip
    if not (others / "dialogues.jsonl").is_file():
        moshivis("make-dialogues", str(others), "--count", str(OTHERS), "--seed", "2")
    moshivis("train", str(CONFIG))
    before = exam.examine(model, None, PER_KIND)
    after = exam.examine(model, str(out), PER_KIND)
    print(f"\n{exam.table(before, after)}\n\n{(time.monotonic() - began) / 60:.0f} minutes", flush=True)
    print(f"Talk with it: moshivis chat --adapters {out}, or ros2 launch moshivis_ros talk.launch.py adapters:={out.resolve()}")
    poor = [form for form in exam.FORMS if exam.share(after.robots[form]) < LEAST]
    poor += [
        form
        for form in exam.FORMS
        if exam.share(after.others[form]) < exam.share(before.others[form]) - MOST_LOST
    ]
    if poor:
        raise CheckpointError(
            f"not what was wanted ({LEAST:g} % about robots, {MOST_LOST:g} points lost elsewhere): {', '.join(poor)}"
        )
    return 0


if __name__ == "__main__":
    argparse.ArgumentParser("python -m moshivis_ros.kitchen", description=__doc__).parse_args()
    raise SystemExit(cli.told(run))
