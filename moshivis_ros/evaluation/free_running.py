"""Conversations with the network alone, many at a time: it hears or reads a question and goes on by itself.

Nothing is teacher-forced but a written prompt's own words. The step is that of `model.stream`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moshivis_ros.model.lm import MoshiVis, reported_gate
from moshivis_ros.model.sampling import sample
from moshivis_ros.model.stream import Stream
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.sampling import Sampling
from moshivis_ros.training.dialogues import Exchange
from moshivis_ros.training.samples import NOTHING
from moshivis_ros.training.utterances import Library, Utterance

PROMPT, WRITTEN_ANSWER = 14, 30  # frames for a written prompt and for the answer to it
QUESTION, ANSWER = 42, 62  # frames for a spoken one
TURN = QUESTION + ANSWER
START = 4  # frames before the first question


@dataclass(frozen=True)
class Turn:
    """A question (None: silence as long as one and its answer), and the picture [N, hidden] (encoder tokens) that is
    shown from its beginning; None: none."""

    exchange: Exchange | None
    picture: Tensor | None


@dataclass(frozen=True)
class Reply:
    """pieces: of the text that was answered. gates: reported gate of the frame of each. delay: frames from the end of
    the question to the first word (None: no word). audio: own codes [dep_q, T] of the turn, empty without sound.
    early: words before the question was over. frames: of the turn, in which the pieces came; gate: of all T frames."""

    pieces: tuple[str, ...]
    gates: tuple[float, ...]
    delay: int | None
    audio: npt.NDArray[np.int64]
    early: int
    frames: tuple[int, ...]
    gate: npt.NDArray[np.float32]

    @property
    def text(self) -> str:
        return "".join(self.pieces).strip()


@torch.no_grad()
def converse(
    model: MoshiVis,
    tokenizer: Tokenizer,
    conversations: Sequence[Sequence[Turn]],
    form: str,
    library: Library | None,
    sampling: Sampling,
    seed: int = 0,
    batch: int = 64,
    length: int | None = None,
) -> list[list[Reply]]:
    """Replies to all turns. form: written, heard or spoken (see training.samples); the last two need a library.
    length: frames of a turn, where they are not the usual ones."""
    replies: list[list[Reply]] = []
    for start in range(0, len(conversations), batch):
        part = conversations[start : start + batch]
        replies += _converse(model, tokenizer, part, form, library, sampling, seed + start, length)
    return replies


def _converse(
    model: MoshiVis,
    tokenizer: Tokenizer,
    conversations: Sequence[Sequence[Turn]],
    form: str,
    library: Library | None,
    sampling: Sampling,
    seed: int,
    length: int | None,
) -> list[list[Reply]]:
    config, device = model.config, next(model.parameters()).device
    rng = random.Random(seed)
    count, turns = len(conversations), max(len(turns) for turns in conversations)
    length = length or ((PROMPT + WRITTEN_ANSWER) if form == "written" else TURN)
    forced, user, ends = _inputs(rng, tokenizer, conversations, form, library, length, config.user_q)
    forced, user = forced.to(device), user.to(device)
    frames = forced.shape[1]
    stream = Stream(model, batch_size=count)
    stream.set_sampling(sampling, seed)
    race = (
        -torch.empty(frames, 1 + config.dep_q, count, 250)
        .exponential_(generator=torch.Generator().manual_seed(seed))
        .log()
    )
    race = race.to(device).masked_fill(stream.outside[:, None], -torch.inf)
    text_out = np.zeros((count, frames), np.int64)
    gate_out = np.zeros((count, frames), np.float32)
    audio_out = np.full((count, config.dep_q, frames), NOTHING, np.int64)
    absent = torch.full((count, config.dep_q), NOTHING, device=device)
    for t in range(frames):
        if t == 0 or (t - START) % length == 0 and t > START:
            turn = 0 if t == 0 else (t - START) // length
            shown = _show(model, stream, [c[min(turn, len(c) - 1)].picture for c in conversations])
        # Aligned frame t of the user is heard in the step after it: see training.forward.columns.
        column = stream.write_user(user[:, :, t - 1] if t else torch.full_like(user[:, :, 0], NOTHING))
        hidden, logits, gates = stream.temporal(column)
        text = sample(logits, stream.temperature[0], race[t, 0])
        text = torch.where(forced[:, t] >= 0, forced[:, t], text)
        audio = absent
        if form == "spoken":
            choose = partial(_choose, stream.temperature[1], race[t, 1:])
            audio = stream.depformer(hidden, text, choose)
        stream.write_own(text, audio)
        stream.steps += 1
        text_out[:, t] = torch.where(forced[:, t] >= 0, config.padding_token_id, text).cpu().numpy()
        gate_out[:, t] = (reported_gate(gates) * shown).float().cpu().numpy()
        for k, late in enumerate(config.delays[1 : 1 + config.dep_q]):
            if t >= late:
                audio_out[:, k, t - late] = audio[:, k].cpu().numpy()
    silent = {config.padding_token_id, config.end_of_text_padding_id}
    replies = []
    for row in range(count):
        said = []
        for turn in range(turns):
            begin = START + turn * length
            decoder, pieces, gates_of_pieces, said_in, early = tokenizer.decoder(), [], [], [], 0
            for t in range(begin, begin + length):
                if (token := int(text_out[row, t])) not in silent:
                    pieces.append(decoder.push(token) or "")
                    gates_of_pieces.append(float(gate_out[row, t]))
                    said_in.append(t - begin)
                    early += t < ends[row, turn]
            delay = begin + said_in[0] - int(ends[row, turn]) if said_in else None
            sound, gate = audio_out[row, :, begin : begin + length], gate_out[row, begin : begin + length]
            said.append(
                Reply(tuple(pieces), tuple(gates_of_pieces), delay, sound, early, tuple(said_in), gate)
            )
        replies.append(said)
    return replies


def _choose(temperature: Tensor, race: Tensor, codebook: int, logits: Tensor) -> Tensor:
    return sample(logits, temperature, race[codebook])


def _inputs(
    rng: random.Random,
    tokenizer: Tokenizer,
    conversations: Sequence[Sequence[Turn]],
    form: str,
    library: Library | None,
    length: int,
    user_q: int,
) -> tuple[Tensor, Tensor, npt.NDArray[np.int64]]:
    """Forced text [B, T] (-1: free), user codes [B, K, T], and the frame in which every question ends [B, turns]."""
    turns = max(len(turns) for turns in conversations)
    frames = START + turns * length
    forced = np.full((len(conversations), frames), NOTHING, np.int64)
    user = np.full((len(conversations), user_q, frames), NOTHING, np.int64)
    ends = np.zeros((len(conversations), turns), np.int64)
    for row, conversation in enumerate(conversations):
        if form != "written":
            assert library is not None
            noise = rng.randrange(len(library.silence))
            silence = np.tile(library.silence[noise], (1, 1 + frames // library.silence[noise].shape[1]))
            user[row] = silence[:, :frames]
        for turn, one in enumerate(conversation):
            at = START + turn * length
            ends[row, turn] = at
            if one.exchange is None:
                continue
            if form == "written":
                prompt = tokenizer.encode(one.exchange.question)
                forced[row, at : at + len(prompt)] = prompt
                ends[row, turn] = at + len(prompt)
            else:
                assert library is not None
                known = library.user[one.exchange.question]
                said: Utterance = rng.choice([u for u in known if u.noise == noise] or known)
                codes = said.codes[:, :length]
                user[row, :, at : at + codes.shape[1]] = codes
                ends[row, turn] = at + round(said.end)
    return torch.from_numpy(forced), torch.from_numpy(user), ends


def _show(model: MoshiVis, stream: Stream, pictures: list[Tensor | None]) -> Tensor:
    """Put the pictures into the image cache; returns 1 where there is one [B].

    All conversations of a batch look or none does: who has no picture is an error to mix with who has.
    """
    there = [picture for picture in pictures if picture is not None]
    device = next(model.parameters()).device
    if not there:
        stream.set_image(None)
        return torch.zeros(len(pictures), device=device)
    if len(there) != len(pictures):
        raise ValueError("conversations with and without a picture cannot be in one batch")
    prefix = model.image_prefix
    source = prefix.norm_xa(prefix.proj_xa(torch.stack(there).to(prefix.norm_xa.alpha)))
    stream.set_image(model.llm.transformer.shared_cross_attention.keys_values(source))
    return torch.ones(len(pictures), device=device)
