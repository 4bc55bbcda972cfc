"""`moshivis look FOLDER`: an HTML page to look at and to listen to. What the folder is decides what is on it.

A data set: its dialogues with pictures, sound and the time of every word. A stage of training: how far it is and a
chart of every loss. A checkpoint: what it answers to questions about pictures, with sound and gates.
"""

from __future__ import annotations

import argparse
import html
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from moshivis_ros.errors import ConfigError
from moshivis_ros.evaluation import look_checkpoint, look_training
from moshivis_ros.model.checkpoint import BUILTIN
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.training.make_dialogues import INDEX, REJECTED

PAGE = "index.html"
_STYLE = """body{font:15px/1.4 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}
section{display:flex;gap:1.5em;border-top:1px solid #ccc;padding:1em 0}section>div{flex:1}section>.seen{flex:0 0 14em}figure{margin:0}
img{width:14em;align-self:start;image-rendering:pixelated}
p{margin:.2em 0}.user{color:#555}.model{font-weight:bold}small{color:#888;font-weight:normal}audio{width:100%}"""


def page(folder: Path, out: Path, args: argparse.Namespace) -> str:
    """The page of ``folder``, as it will stand in the folder ``out``. Raises ConfigError if there is nothing to show."""
    if (folder / INDEX).is_file():
        body = _dialogues(folder, os.path.relpath(folder, out), args.most)
    elif (folder / look_training.LOG).is_file():
        body = look_training.body(folder, os.path.relpath(folder, out))
    elif (folder / ModelConfig.load(folder).model).is_file():
        body = look_checkpoint.body(folder, out, Path(args.pictures), args.questions)
    else:
        raise ConfigError(
            f"{folder} is nothing to look at: give a data set of moshivis make-dialogues ({INDEX}), the out folder of "
            f"moshivis train ({look_training.LOG}) or a checkpoint (config.yaml and model.safetensors)"
        )
    name = html.escape(folder.resolve().name)
    return (
        f"<!doctype html><meta charset=utf-8><title>{name}</title>"
        f"<style>{_STYLE}{look_training.STYLE}{look_checkpoint.STYLE}</style><h1>{name}</h1>{body}"
    )


def _dialogues(folder: Path, place: str, most: int) -> str:
    """place: of the folder, as seen from the page."""
    lines = (folder / INDEX).read_text(encoding="utf-8").splitlines()
    body = "".join(
        _dialogue(folder, html.escape(place, quote=True), json.loads(line)) for line in lines[:most]
    )
    return f"<p>{len(lines)} dialogues; left channel the model, right the user.{_rejected(folder)}</p>{body}"


def _rejected(folder: Path) -> str:
    """How many could not be made, and why."""
    log = folder / REJECTED
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    reasons = Counter(json.loads(line)["reason"] for line in lines)
    told = ", ".join(f"{html.escape(reason)} {count}" for reason, count in reasons.most_common())
    return f" {len(lines)} more were left out: {told}." if lines else ""


def _dialogue(folder: Path, place: str, line: dict[str, Any]) -> str:
    beside = json.loads((folder / line["path"]).with_suffix(".json").read_text(encoding="utf-8"))
    alignments = beside["alignments"]
    seen = beside.get("images") or [{"path": line["image"], "at": 0.0}] if "image" in line else []
    images = "".join(
        f"<figure><img src='{place}/{html.escape(image['path'], quote=True)}' alt=''>"
        f"<small>from {image['at']:.1f} s</small></figure>"
        for image in seen
    )
    turns = "".join(
        f"<p class=user>{html.escape(turn['question'])} <small>{turn['kind']}</small></p>"
        f"<p class=model>{html.escape(turn['answer'])}</p>"
        for turn in line.get("turns", ())
    )
    times = " ".join(f"{html.escape(word)}<sub>{start:.2f}</sub>" for word, (start, _), _ in alignments)
    return (
        f"<section><div class=seen>{images}</div><div>"
        f"<audio controls preload=none src='{place}/{line['path']}'></audio>"
        f"{turns}<p><small>{line['path']}, {line['duration']:.1f} s. {times}</small></p></div></section>"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Makes an HTML page of a data set, of a stage of training or of a checkpoint: dialogues, losses, or answers to "
        "questions about pictures, with sound."
    )
    parser.add_argument(
        "folder",
        help="written by moshivis make-dialogues, moshivis train, or a checkpoint (builtin: the miniature)",
    )
    parser.add_argument("--out", help="folder of the page (default: the folder itself)")
    parser.add_argument("--most", type=int, default=100, help="dialogues of a data set (%(default)s)")
    parser.add_argument("--questions", type=int, default=12, help="for a checkpoint (%(default)s)")
    parser.add_argument(
        "--pictures",
        default="build/builtin/pictures/test.npz",
        help="npz of pictures for a checkpoint, drawn if it is not there (%(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    folder = BUILTIN if args.folder == "builtin" else Path(args.folder)
    if folder == BUILTIN and not args.out:
        raise ConfigError(
            "the miniature is part of the package: say with --out where its page is to be written"
        )
    out = Path(args.out or folder)
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}")
    out.mkdir(parents=True, exist_ok=True)
    (out / PAGE).write_text(page(folder, out, args), encoding="utf-8")
    print(f"open {out / PAGE} in a browser")
    return 0
