"""`moshivis look DATASET`: an HTML page of a data set's dialogues, with pictures, sound and the time of every word."""

from __future__ import annotations

import argparse
import html
import json
from pathlib import Path
from typing import Any

from moshivis_ros.errors import ConfigError
from moshivis_ros.training.make_dialogues import INDEX

PAGE = "index.html"
_STYLE = """body{font:15px/1.4 sans-serif;max-width:60em;margin:2em auto;color:#222}
section{display:flex;gap:1.5em;border-top:1px solid #ccc;padding:1em 0}
img{width:14em;image-rendering:pixelated}
p{margin:.2em 0}.user{color:#555}.model{font-weight:bold}small{color:#888;font-weight:normal}audio{width:100%}"""


def page(folder: Path, most: int) -> str:
    index = folder / INDEX
    if not index.is_file():
        raise ConfigError(f"{folder} has no {INDEX}: make a data set with moshivis make-dialogues")
    lines = index.read_text(encoding="utf-8").splitlines()
    body = "".join(_dialogue(folder, json.loads(line)) for line in lines[:most])
    return (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(folder.name)}</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(folder.name)}</h1><p>{len(lines)} dialogues; left channel the model, right the user.</p>{body}"
    )


def _dialogue(folder: Path, line: dict[str, Any]) -> str:
    alignments = json.loads((folder / line["path"]).with_suffix(".json").read_text(encoding="utf-8"))[
        "alignments"
    ]
    turns = "".join(
        f"<p class=user>{html.escape(turn['question'])} <small>{turn['kind']}</small></p>"
        f"<p class=model>{html.escape(turn['answer'])}</p>"
        for turn in line["turns"]
    )
    times = " ".join(f"{html.escape(word)}<sub>{start:.2f}</sub>" for word, (start, _), _ in alignments)
    return (
        f"<section><img src='{line['image']}' alt=''><div><audio controls preload=none src='{line['path']}'></audio>"
        f"{turns}<p><small>{line['path']}, {line['duration']:.1f} s. {times}</small></p></div></section>"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Makes an HTML page of a data set, to look at and to listen to."
    parser.add_argument("dataset", help="folder written by moshivis make-dialogues")
    parser.add_argument("--most", type=int, default=100, help="dialogues on the page (%(default)s)")


def run(args: argparse.Namespace) -> int:
    folder = Path(args.dataset)
    (folder / PAGE).write_text(page(folder, args.most), encoding="utf-8")
    print(f"open {folder / PAGE} in a browser")
    return 0
