"""The part of a page that asks a checkpoint: pictures, questions and answers aloud, the gate of every word."""

from __future__ import annotations

import html
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moshivis_ros.audio.files import write
from moshivis_ros.errors import ConfigError
from moshivis_ros.evaluation.dialogue_test import KIND_ORDER
from moshivis_ros.evaluation.examination import look, mimi_of
from moshivis_ros.evaluation.free_running import Reply, Turn, converse
from moshivis_ros.evaluation.intelligibility import mimi_sound
from moshivis_ros.evaluation.scoring import questions, score
from moshivis_ros.model.checkpoint import load_model
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.sampling import Sampling
from moshivis_ros.training import utterances
from moshivis_ros.training.dialogues import Exchange
from moshivis_ros.training.pictures import pictures as tables
from moshivis_ros.training.pool import pool
from moshivis_ros.training.utterances import Utterance

STYLE = """.right{color:#186a2b}.wrong{color:#b3261e}
.word{display:inline-flex;flex-direction:column;align-items:center;margin-right:.5em}.word i{width:1em;height:2em}"""
_SEED = 5


def body(folder: Path, out: Path, pictures: Path, count: int) -> str:
    """HTML of ``count`` held-out questions that the checkpoint is asked; pictures and sound are written to ``out``."""
    config = ModelConfig.load(folder)
    seen = pool(pictures, 1500, 99, config.siglip.image_size, config.siglip.patch_size, tables)
    if (size := seen.pixels.shape[1]) != config.siglip.image_size:
        raise ConfigError(
            f"{pictures} has pictures of {size} pixels, {folder} sees {config.siglip.image_size}: name another file, "
            "it is drawn if it is not there"
        )
    model = load_model(folder, "cpu", torch.float32)
    mimi = mimi_of(folder, config)
    each = -(-count // len(KIND_ORDER))
    asked = questions(random.Random(f"look {_SEED}"), seen, each, KIND_ORDER)
    asked = [one for k in range(each) for one in asked[k::each]][:count]  # of every kind one, then another
    chosen = [n for _, n in asked]
    shown = replace(seen, pixels=seen.pixels[chosen], views=tuple(seen.views[n] for n in chosen))
    said = dict.fromkeys((exchange.question for exchange, _ in asked), 1)
    library = utterances.build(mimi, said, {}, _SEED, held_out=True)
    talks = [[Turn(exchange, tokens)] for (exchange, _), tokens in zip(asked, look(model, shown))]
    replies = converse(model, Tokenizer.load(folder, config), talks, "spoken", library, Sampling(), _SEED)
    parts, right = [], 0
    for k, ((exchange, _), (reply,)) in enumerate(zip(asked, replies)):
        ok = score(exchange, reply.text).right
        right += ok
        _picture(out / f"{k:02}.png", shown.pixels[k])
        _sound(out / f"{k:02}.wav", mimi, reply, library.user[exchange.question][0])
        parts.append(_question(f"{k:02}", exchange, reply, ok, config))
    return (
        f"<p>{right} of {count} answers are right: unseen pictures, phrasings and voice. Left channel the model, right "
        f"the user, both as the codec has them. Bars: the gate, {config.gate_low:g} to {config.gate_high:g}.</p>"
        + "".join(parts)
    )


def _question(name: str, exchange: Exchange, reply: Reply, right: bool, config: ModelConfig) -> str:
    words: list[tuple[str, list[float]]] = []
    for piece, gate in zip(reply.pieces, reply.gates):
        if piece.startswith(" ") or not words:
            words.append(("", []))
        words[-1] = words[-1][0] + piece.strip(), [*words[-1][1], gate]
    bars = "".join(_bar(word, float(np.mean(gates)), config) for word, gates in words) or "nothing"
    mark = "<b class=right>&#10003;</b>" if right else "<b class=wrong>&#10007;</b>"
    return (
        f"<section><img src='{name}.png' alt=''><div><audio controls preload=metadata src='{name}.wav'></audio>"
        f"<p class=user>{html.escape(exchange.question)} <small>{exchange.kind}</small></p>"
        f"<p>{mark} {bars}</p><p><small>true: {html.escape(exchange.answer)}</small></p></div></section>"
    )


def _bar(word: str, gate: float, config: ModelConfig) -> str:
    share = min(1.0, max(0.0, (gate - config.gate_low) / (config.gate_high - config.gate_low)))
    return (
        f"<span class=word><small>{gate:.2f}</small><i style='background:linear-gradient(0deg,#d80 {100 * share:.0f}%,#eee 0)'></i>"
        f"<b>{html.escape(word)}</b></span>"
    )


def _picture(path: Path, pixels: Any) -> None:
    import cv2

    cv2.imwrite(str(path), pixels[..., ::-1])


def _sound(path: Path, mimi: Any, reply: Reply, question: Utterance) -> None:
    """The whole turn."""
    own = reply.audio[:, (reply.audio >= 0).all(0)]  # the last frames are not complete
    model, user = (
        mimi_sound(mimi, torch.from_numpy(codes)[None].long())[0] for codes in (own, question.codes)
    )
    stereo = np.zeros((max(len(model), len(user)), 2), np.float32)
    stereo[: len(model), 0], stereo[: len(user), 1] = model, user
    write(path, stereo)
