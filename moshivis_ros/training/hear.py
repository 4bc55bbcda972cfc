"""A sample of the training to listen to: the user's sound of a dialogue goes in, the model says what it says by now.

Frame by frame through the code of the training itself (forward.py), whatever types its weights are in: all of the sequence so
far is computed for each frame, which costs about as much as a step of training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moshivis_ros.audio import files
from moshivis_ros.model.codec import build_mimi, released_layout
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.model.weights import load_into, unfilled
from moshivis_ros.outputs import make_folder
from moshivis_ros.sampling import Sampling
from moshivis_ros.training.batches import NOTHING, Batch
from moshivis_ros.training.forward import audio_logits, columns, temporal
from moshivis_ros.training.learner import Learner

FOLDER = "heard"
SEED = 0
TOP = Sampling()


class Ear:
    """Writes heard/STEP.wav (left the model, right the user) and STEP.json ({"text", "wanted"}) into the folder of a run."""

    def __init__(self, out: Path, checkpoint: Path, config: ModelConfig, tokenizer: Tokenizer) -> None:
        self._folder, self._checkpoint, self._config, self._tokenizer = out / FOLDER, checkpoint, config, tokenizer
        self._mimi: Any = None

    def hear(self, learner: Learner, batch: Batch, step: int) -> None:
        """``batch``: one spoken sample, on the device. Raises OutputError."""
        said = speak(learner, batch)
        sound = torch.stack([self._sound(said[1 : 1 + self._config.dep_q]), self._sound(batch.tokens[0, 1 + self._config.dep_q :])])
        make_folder(self._folder)
        files.write(self._folder / f"{step:06}.wav", sound.T.numpy())
        told = {"text": self._text(said[0]), "wanted": self._text(batch.tokens[0, 0])}
        (self._folder / f"{step:06}.json").write_text(json.dumps(told), encoding="utf-8")

    def _sound(self, codes: Tensor) -> Tensor:
        """Codes [K, T] -> float32 [T * 1920], on the CPU, where the training needs no memory."""
        if self._mimi is None:
            with unfilled():
                self._mimi = build_mimi(self._config)
            layout = released_layout(self._mimi.state_dict())
            load_into(self._mimi, self._checkpoint.parent / self._config.mimi_codec, layout, "cpu", torch.float32)
        from moshi.utils.compile import no_compile, no_cuda_graph

        with torch.no_grad(), no_compile(), no_cuda_graph():
            sound: Tensor = self._mimi.decode(codes.cpu().clamp(min=0)[None])
        return sound[0, 0]

    def _text(self, pieces: Tensor) -> str:
        decoder = self._tokenizer.decoder()
        return "".join(decoder.push(int(piece)) or "" for piece in pieces if piece >= 0).strip()


@torch.no_grad()
def speak(learner: Learner, batch: Batch) -> Tensor:
    """What the model says while it hears the user of ``batch`` and sees its pictures: tokens [1 + dep_q, T], NOTHING where
    the delayed streams have none yet. Words as the checkpoint's temperatures have it, by noise of a fixed seed.
    """
    model, config = learner.model, learner.model.config
    own, frames = 1 + config.dep_q, batch.tokens.shape[2]
    tokens = batch.tokens[:1].clone()
    tokens[:, :own] = NOTHING
    device = tokens.device
    noise = torch.Generator(device).manual_seed(SEED)
    with torch.autocast(device.type, torch.bfloat16, enabled=learner.autocast):
        seen = learner.sight(batch)
        for t in range(frames):
            mask = None if seen.mask is None else seen.mask[:, :, : t + 1]
            sight = seen._replace(mask=mask, on=seen.on[:, : t + 1])
            hidden = temporal(model, columns(tokens[:, :, : t + 1], config), sight, lean=True)
            tokens[0, 0, t] = text = _draw(hidden.text_logits[0, -1], config.text_temperature, TOP.text_top_k, noise)
            said = torch.zeros(1, config.dep_q, dtype=torch.int64, device=device)
            for k, late in enumerate(config.delays[1:own]):
                logits = audio_logits(model, hidden.hidden[:, -1], text[None], said, lean=True)
                said[0, k] = _draw(logits[0, k], config.audio_temperature, TOP.audio_top_k, noise)
                if t >= late:
                    tokens[0, 1 + k, t - late] = said[0, k]
    return tokens[0, :own]


def _draw(logits: Tensor, temperature: float, top_k: int, noise: torch.Generator) -> Tensor:
    if temperature == 0:
        return logits.argmax()
    values, tokens = logits.float().topk(min(top_k, logits.shape[-1]))
    shares = (values / temperature).softmax(-1)
    return tokens[torch.multinomial(shares, 1, generator=noise)[0]]
