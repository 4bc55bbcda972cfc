"""From samples of a folder to batches of tokens: what is drawn depends on the seed and the number of the step only.

A dialogue becomes the 17 streams of the model: a word's pieces stand in the text stream from the frame in which it begins,
after the end-of-padding token where there was padding. A sample without sound holds no token (-1) in any audio stream; its
prompt stands in the text stream, one piece a frame and without loss; the end-of-padding token begins the answer, and follows
a word wherever the next one does not come at once.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from moshivis_ros.errors import ConfigError
from moshivis_ros.model.codec import FRAME_SIZE, SAMPLE_RATE
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.training.folder import MAX_LISTED, Data, Dialogue, Speechless
from moshivis_ros.training.prepared import Prepared

NOTHING = -1
RATE = SAMPLE_RATE / FRAME_SIZE  # frames a second
TAIL = 6  # frames of silence after an answer without sound
BREAK = 0.3  # share of the words of an answer without sound before which a frame is left free


class Sample(NamedTuple):
    tokens: Tensor  # [1 + n_q, T] int64
    weight: Tensor  # [T] of the text loss
    shown: Tensor  # [T] int64, which of its pictures is seen, -1: none
    visual: Tensor  # [T] int64, 1 in answers about the picture, 0 elsewhere, -1: not counted
    pictures: list[Path]
    spoken: bool


class Batch(NamedTuple):
    """Samples of one length: tokens [B, 1 + n_q, T], weight, shown and visual [B, T], pictures [B, S, N, hidden], spoken [B]
    bool, heard [M]: places in B * T with own sound.
    """

    tokens: Tensor
    weight: Tensor
    shown: Tensor
    visual: Tensor
    pictures: Tensor
    spoken: Tensor
    heard: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(part.to(device, non_blocking=True) for part in self))


class Limits(NamedTuple):
    """Of a sample: frames of a dialogue and of one without sound, pictures; the weight of padding in the text loss; and by how
    many frames a word's text comes before its sound.
    """

    spoken: int
    speechless: int
    pictures: int
    padding: float
    ahead: int = 0


class Batches:
    """``share``: of samples without sound. ``encode``: text to pieces. Raises ConfigError where a form has no samples, or one is too long."""

    def __init__(
        self,
        config: ModelConfig,
        encode: Callable[[str], list[int]],
        data: Data,
        prepared: Prepared,
        share: float,
        limits: Limits,
        seed: int,
    ) -> None:
        if (share > 0 and not data.speechless) or (share < 1 and not data.dialogues):
            lacking, only = ("speechless samples", 0) if not data.speechless else ("dialogues", 1)
            raise ConfigError(
                f"speechless is {share}, but the data hold no {lacking}: add some, or set it to {only}"
            )
        self.config, self.data, self.prepared = config, data, prepared
        self.share, self.limits, self.seed = share, limits, seed
        texts = [text for each in data.speechless for text in (each.prompt, each.text)]
        texts += [word for dialogue in data.dialogues for word, _ in dialogue.words]
        self._pieces = {word: encode(word) for text in texts for word in text.split()}
        silent = {config.padding_token_id, config.end_of_text_padding_id}
        unknown = [word for word, pieces in self._pieces.items() if not pieces or silent & set(pieces)]
        if unknown:
            raise ConfigError(
                f"the model's tokenizer has no pieces for {len(unknown)} words of the data ({', '.join(unknown[:MAX_LISTED])}): "
                "write them otherwise"
            )
        for each in data.speechless:  # too long ones are refused now
            self._written(random.Random(0), each)

    def encode(self, text: str) -> list[int]:
        return [piece for word in text.split() for piece in self._pieces[word]]

    def draw(self, step: int, count: int, rank: int = 0, world: int = 1, parts: int = 1) -> list[Batch]:
        """Of the ``count`` samples of a step those of process ``rank`` of ``world``, in ``parts`` batches.

        Whoever takes them, and in however many parts, the samples are the same.
        """
        drawn = [self._draw(random.Random(f"{self.seed} {step} {each}")) for each in range(count)]
        drawn.sort(key=lambda one: one[0])  # like lengths together: little is filled up
        samples = [build() for _, build in drawn[rank::world]]
        size = math.ceil(len(samples) / parts)
        return [self._batch(samples[first : first + size]) for first in range(0, len(samples), size)]

    def _draw(self, rng: random.Random) -> tuple[int, Callable[[], Sample]]:
        """Frames of a sample, and how to make it."""
        if rng.random() < self.share:
            written = self._written(rng, rng.choice(self.data.speechless))
            return len(written.weight), lambda: written
        return self._dialogue(rng)

    def spoken(self, seed: int) -> Batch | None:
        """One part of a dialogue, the same for the same seed; None where all samples are without sound."""
        if not self.data.dialogues:
            return None
        return self._batch([self._dialogue(random.Random(seed))[1]()])

    def _dialogue(self, rng: random.Random) -> tuple[int, Callable[[], Sample]]:
        dialogue = rng.choice(self.data.dialogues)
        total = dialogue.frames
        start = rng.randrange(max(1, total - self.limits.spoken + 1))
        stop = min(total, start + self.limits.spoken)
        times = [round(at * RATE) for at, _ in dialogue.pictures]
        first = max(0, bisect_right(times, start) - 1)
        if first + self.limits.pictures < len(times):  # the next one would be too many
            stop = max(start + 1, min(stop, times[first + self.limits.pictures]))
        return stop - start, lambda: self._spoken(dialogue, start, stop, first)

    def _written(self, rng: random.Random, sample: Speechless) -> Sample:
        config = self.config
        prompt = self.encode(sample.prompt)
        begin = 1 + len(prompt) + rng.randint(1, 3)
        pieces = [config.padding_token_id] * begin
        pieces[1 : 1 + len(prompt)] = prompt
        pieces[-1] = config.end_of_text_padding_id
        for number, word in enumerate(sample.text.split()):
            if number and rng.random() < BREAK:
                pieces.append(config.end_of_text_padding_id)
            pieces += self.encode(word)
        end = len(pieces)
        pieces += [config.padding_token_id] * TAIL
        if len(pieces) > self.limits.speechless:
            raise ConfigError(
                f"the sample about {sample.picture} takes {len(pieces)} frames, {self.limits.speechless} are allowed: "
                "shorten it, or raise speechless_frames"
            )
        tokens = torch.full((1 + config.n_q, len(pieces)), NOTHING)
        tokens[0] = torch.tensor(pieces)
        weight = self._weights(tokens[0])
        weight[: begin - 1] = 0
        visual = torch.full((len(pieces),), -1)
        visual[begin:end] = 1
        return Sample(tokens, weight, torch.zeros_like(visual), visual, [sample.picture], False)

    def _spoken(self, dialogue: Dialogue, start: int, stop: int, first: int) -> Sample:
        """Its frames from ``start`` to ``stop``; ``first``: number of the picture that is seen at the beginning."""
        codes = self.prepared.sound(dialogue.sound)
        half, own, total = codes.shape[0] // 2, self.config.dep_q, codes.shape[1]
        tokens = torch.full((1 + self.config.n_q, total), NOTHING)
        tokens[0] = self._text(dialogue, total)
        tokens[1 : 1 + own] = codes[:own]
        tokens[1 + own :] = codes[half : half + self.config.user_q]
        times = [round(at * RATE) for at, _ in dialogue.pictures]
        shown = torch.full((total,), -1)
        for number, at in enumerate(times):
            shown[max(0, at) :] = number - first
        said = [span for _, span in dialogue.words] if dialogue.visual is None else dialogue.visual
        visual = torch.where(shown < 0, -1, 0)
        for begin, end in said:
            inside = slice(int(begin * RATE), math.ceil(end * RATE))
            visual[inside] = torch.where(shown[inside] < 0, -1, 1)
        window = slice(start, stop)
        pictures = [path for at, (_, path) in zip(times, dialogue.pictures) if at < stop][first:]
        weight = self._weights(tokens[0])
        return Sample(tokens[:, window], weight[window], shown[window], visual[window], pictures, True)

    def _text(self, dialogue: Dialogue, frames: int) -> Tensor:
        text = torch.full((frames,), self.config.padding_token_id)
        free = 0
        for word, (start, _) in dialogue.words:
            pieces = self.encode(word)
            at = max(free, int(start * RATE) - self.limits.ahead)
            pieces = pieces[: max(0, frames - at)]
            if at > free and pieces:
                text[at - 1] = self.config.end_of_text_padding_id
            text[at : at + len(pieces)] = torch.tensor(pieces, dtype=text.dtype)
            free = at + len(pieces)
        return text

    def _weights(self, text: Tensor) -> Tensor:
        silent = (text == self.config.padding_token_id) | (text == self.config.end_of_text_padding_id)
        return torch.where(silent, self.limits.padding, 1.0)

    def _batch(self, samples: list[Sample]) -> Batch:
        frames = max(len(sample.weight) for sample in samples)
        slots = max(1, *(len(sample.pictures) for sample in samples))
        siglip = self.config.siglip
        empty = torch.zeros(self.config.image_tokens(), siglip.hidden_size, dtype=self.prepared.dtype)

        def filled(tensors: list[Tensor], value: float) -> Tensor:
            return torch.stack(
                [torch.nn.functional.pad(t, (0, frames - t.shape[-1]), value=value) for t in tensors]
            )

        pictures = [
            torch.stack([*map(self.prepared.picture, s.pictures), *[empty] * (slots - len(s.pictures))])
            for s in samples
        ]
        tokens = filled([sample.tokens for sample in samples], NOTHING)
        tokens[:, 0].masked_fill_(tokens[:, 0] == NOTHING, self.config.padding_token_id)
        return Batch(
            tokens,
            filled([sample.weight for sample in samples], 0),
            filled([sample.shown for sample in samples], -1),
            filled([sample.visual for sample in samples], -1),
            torch.stack(pictures),
            torch.tensor([sample.spoken for sample in samples]),
            (tokens[:, 1] != NOTHING).flatten().nonzero()[:, 0],
        )
