"""Speech and gate of a trained model: it answers written questions about pictures of its own world, free-running.

Six questions in ten are about the picture, as in the generative model of talk.py; nothing but the prompts is
given. What it says, when, and how open its gate is in every frame, becomes the speech of a clip.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch

from moshivis_ros.conversation import SENTENCE_END
from moshivis_ros.errors import ConfigError
from moshivis_ros.evaluation.examination import look
from moshivis_ros.evaluation.free_running import Reply, Turn, converse
from moshivis_ros.evaluation.scoring import auc
from moshivis_ros.model.checkpoint import load_model, resolve
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.sampling import Sampling
from moshivis_ros.study.clips import cache_folder
from moshivis_ros.study.talk import Recording, Talk
from moshivis_ros.training import dialogues
from moshivis_ros.training.dialogues import Exchange
from moshivis_ros.training.pictures import pictures as tables
from moshivis_ros.training.pool import pool

CONVERSATIONS, TURNS = 48, 12
_SEEN = sum(weight for kind, weight in dialogues.WEIGHTS.items() if kind != "small talk")
WEIGHTS = {**dialogues.WEIGHTS, "small talk": _SEEN * 4 / 6}
CONTENT = {*dialogues.TOPICS, *dialogues.NUMBERS, "yes", "no", "nothing"}  # words that depend on what is seen


def record(name: str, seed: int, frames: int) -> Recording:
    """Conversations with a checkpoint (folder or name), each longer than ``frames``."""
    folder = resolve(name)
    config = ModelConfig.load(folder)
    model, tokenizer = load_model(folder, "cpu", torch.float32), Tokenizer.load(folder, config)
    siglip = config.siglip
    kept = cache_folder().parent / "tables.npz"
    pictures = pool(kept, CONVERSATIONS, 7, siglip.image_size, siglip.patch_size, tables)
    rng = random.Random(f"record {seed}")
    asked = [[dialogues.exchange(rng, view, WEIGHTS) for _ in range(TURNS)] for view in pictures.views]
    talks = [[Turn(one, tokens) for one in row] for row, tokens in zip(asked, look(model, pictures))]
    sampling = Sampling(text_temperature=config.text_temperature, audio_temperature=config.audio_temperature)
    replies = converse(model, tokenizer, talks, "written", None, sampling, seed)
    recorded = [follow(row, said, config.gate_low, config.gate_high) for row, said in zip(asked, replies)]
    if len(recorded[0].text) < frames:
        raise ConfigError(f"a recorded conversation has {len(recorded[0].text)} frames, a clip {frames}")
    gates: dict[bool, list[float]] = {True: [], False: []}
    for row, said in zip(asked, replies):
        for one, reply in zip(row, said):
            gates[one.seen] += reply.gates
    if not all(gates.values()):
        raise ConfigError(f"{name} did not answer: the study needs a trained model")
    return Recording(tuple(recorded), auc(gates[True], gates[False]))


def follow(asked: Sequence[Exchange], replies: Sequence[Reply], gate_low: float, gate_high: float) -> Talk:
    """Turns as one Talk. A phrase is a sentence; its first word that depends on the view is its content."""
    gate = np.concatenate([reply.gate for reply in replies])
    text, ends = np.zeros(len(gate), bool), np.zeros(len(gate), bool)
    phrases: list[tuple[int, int]] = []
    answers: list[int] = []
    at = 0
    for one, reply in zip(asked, replies):
        frames = [at + frame for frame in reply.frames]
        text[frames] = True
        content, answered = -1, False
        for k, piece in enumerate(reply.pieces):
            if content < 0 and piece.strip().lower() in CONTENT:
                content = k
                if one.seen and not answered:
                    answers.append(frames[k])
                answered = True
            over = piece.endswith(SENTENCE_END)
            ends[frames[k]] = over
            if over or k == len(frames) - 1:
                if one.seen and 0 <= content < k - 1:
                    phrases.append((frames[content + 1], frames[k]))
                content = -1
        at += len(reply.gate)
    return Talk(text, ends, gate, tuple(phrases), tuple(answers), gate_low, gate_high)
