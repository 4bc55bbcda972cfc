"""A model that can be asked about pictures, in text or aloud, many questions at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moshivis_ros.evaluation.free_running import Reply, Turn, converse
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.image_encoder import preprocess
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.sampling import Sampling
from moshivis_ros.training import speakers, utterances
from moshivis_ros.training.utterances import Library, placed
from moshivis_ros.training.voices import Speech
from moshivis_ros.vision.encoded import picture

ANSWER = 100  # frames, 8 s


@dataclass(frozen=True)
class Asker:
    """A model that can be asked, in text or aloud."""

    model: Any
    tokenizer: Tokenizer
    config: ModelConfig
    mimi: Any
    sampling: Sampling
    seed: int
    batch: int

    @torch.no_grad()
    def look(self, file: Path) -> Tensor:
        """Encoder tokens [N, hidden] of a picture."""
        prefix = self.model.image_prefix
        pixels = preprocess(picture(file.read_bytes(), str(file)), self.config.siglip.image_size)
        tokens: Tensor = prefix.enc.model(pixels.to(prefix.norm_xa.alpha.device))[0]
        return tokens

    def library(self, sounds: dict[str, Speech]) -> Library:
        """Sounds as codec tokens, by name; in a room that is nearly quiet."""
        rng = random.Random(f"babillage {self.seed}")
        recorded = [placed(speakers.louder(speech, 0.5), rng, 1) for speech in sounds.values()]
        encoded = utterances.encode(self.mimi, recorded)
        return Library({name: [one] for name, one in zip(sounds, encoded)}, {}, self.silence(rng))

    def silence(self, rng: random.Random) -> Any:
        return utterances.silences(self.mimi, rng, speakers.NOISE_LEVELS[1:2])

    def ask(self, talks: Sequence[Sequence[Turn]], form: str, library: Library | None) -> list[list[Reply]]:
        """All talks at once; each turn is as long as the longest question and ANSWER."""
        asked = [turn.exchange.question for talk in talks for turn in talk if turn.exchange]
        if library is None:
            longest = max(len(self.tokenizer.encode(text)) for text in asked)
        else:
            longest = max(library.user[text][0].codes.shape[1] for text in asked)
        return converse(
            self.model,
            self.tokenizer,
            talks,
            form,
            library,
            self.sampling,
            self.seed,
            self.batch,
            longest + ANSWER,
        )
