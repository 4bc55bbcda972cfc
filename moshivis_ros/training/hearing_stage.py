"""Teach the encoder of a trained codec to write the speech of anybody in the tokens that it has for espeak-ng's.

The codebooks and the decoder stay as they are, so the robot's voice does too, and a language model that has learned these
tokens can go on with them. What a token of codebook 1 means is counted once: how often it stood for which phonemes in
espeak's speech. The loss is that a phoneme spoken by another voice, somewhere, gets a token that means it; and that
undisturbed espeak speech is written as before.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from moshivis_ros.model.checkpoint import resolve
from moshivis_ros.model.codec import FRAME_SIZE, SAMPLE_RATE, build_mimi, released_layout
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.weights import load_into
from moshivis_ros.training import acoustics, codec_stage, make_takes, speakers
from moshivis_ros.training.codec_stage import HEARD_AT, OTHER_SENTENCES
from moshivis_ros.training.people import FliteVoice, trimmed
from moshivis_ros.training.train import Settings
from moshivis_ros.training.utterances import FLITE_USER
from moshivis_ros.training.voices import EspeakVoice, Sound, Speech


@dataclass(frozen=True)
class Options:
    model: str  # config.yaml of the network that the codec is for
    start: str  # checkpoint with the codec
    takes: str  # folder of make_takes
    batch: int = 6
    seconds: float = 1.6
    same: float = 0.35  # share of the crops that are espeak's, undisturbed, to be written as before
    counted: int = 500  # utterances by which the meaning of the tokens is counted
    spoken: int = 400  # utterances of espeak, and of flite
    same_weight: float = 8.0
    near_weight: float = 0.3  # of the distance to the chosen token


class HearingStage:
    def __init__(self, settings: Settings) -> None:
        self.options = options = Options(**settings.options)
        self.config = ModelConfig.load(options.model)
        with torch.device("meta"):
            mimi = build_mimi(self.config)
        path = resolve(options.start) / self.config.mimi_codec
        self.mimi = load_into(mimi, path, released_layout(mimi.state_dict()), "cpu", torch.float32)
        self.before = copy.deepcopy(self.mimi).requires_grad_(False).eval()
        for name, parameter in self.mimi.named_parameters():
            parameter.requires_grad_(name.startswith(("encoder", "downsample")))
        self.network: nn.Module = self.mimi
        rng = random.Random(f"hearing {settings.seed}")
        counted = codec_stage.corpus(rng, options.counted)
        symbols = sorted({symbol for speech in counted for symbol, _ in speech.phonemes})
        self.symbols = {symbol: 1 + k for k, symbol in enumerate(symbols)}  # 0: silence
        self.meaning, self.nearest = self._count(counted)
        self.espeak = counted[: options.spoken]
        self.people = [
            aligned(text, take) for text, all_ in make_takes.load(options.takes).items() for take in all_
        ]
        self.flite = [self._flite(rng) for _ in range(options.spoken)]
        print(f"{len(self.espeak)} utterances of espeak, {len(self.flite)} of flite, ", end="")
        print(f"{len(self.people)} takes, {len(symbols)} phonemes", flush=True)

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": [p for p in self.network.parameters() if p.requires_grad]}]

    def losses(self, rng: random.Random, step: int, steps: int) -> dict[str, Tensor]:
        frames = round(self.options.seconds * SAMPLE_RATE / FRAME_SIZE)
        same = [rng.random() < self.options.same for _ in range(self.options.batch)]
        same[0] = True
        crops, labels = zip(*(self._crop(rng, frames, one) for one in same))
        pcm = torch.from_numpy(np.stack(crops))[:, None]
        latent = latents(self.mimi, pcm)
        rows = torch.tensor(same)
        with torch.no_grad():
            wanted = latents(self.before, pcm[rows])
        kept = (latent[rows] - wanted).square().mean() / wanted.var()
        distances = self._distances(self.mimi, latent)  # [B, T, 512]
        scores = (-distances / self.nearest).log_softmax(-1)
        label = torch.tensor(labels)  # [B, T, 2]
        means = torch.stack([self.meaning[k][label[..., k]] for k in range(len(HEARD_AT))]).sum(0)
        guess = -(scores + means).logsumexp(-1)
        near = distances.amin(-1).mean() / self.nearest
        phoneme = guess.mean()
        loss = phoneme + self.options.same_weight * kept + self.options.near_weight * near
        shown = {"phoneme": phoneme.detach(), "kept": kept.detach(), "near": near.detach()}
        spoken = (label > 0) & ~rows[:, None, None]
        if spoken.any():
            chosen = self.meaning[:, :, distances.detach().argmin(-1)].argmax(1)  # [2, B, T]
            shown["right"] = (chosen.permute(1, 2, 0) == label)[spoken].float().mean()
        return {"loss": loss, **shown}

    def finish(self, out: Path) -> None:
        self.mimi.eval()
        state = {n: t.contiguous() for n, t in released_layout(self.mimi.state_dict()).items()}
        save_file(state, out / self.config.mimi_codec)

    def _count(self, speeches: list[Speech]) -> tuple[Tensor, Tensor]:
        """Log of the share of each phoneme in what each token stands for [2, phonemes, tokens], and the mean squared
        distance of a latent vector to its token."""
        assert self.config.mimi is not None
        tokens = self.config.mimi["quantizer"]["bins"]
        counts = torch.full((len(HEARD_AT), len(self.symbols) + 1, tokens), 0.02)
        nearest = []
        for speech in speeches:
            frames = len(speech.pcm) // FRAME_SIZE
            pcm = torch.from_numpy(speech.pcm[: frames * FRAME_SIZE])[None, None]
            with torch.no_grad():
                distances = self._distances(self.before, latents(self.before, pcm))[0]
            nearest.append(distances.amin(-1).mean())
            for label, token in zip(self._labels(speech, 0, frames), distances.argmin(-1).tolist()):
                for k, phoneme in enumerate(label):
                    counts[k, phoneme, token] += 1
        return (counts / counts.sum(1, keepdim=True)).log(), torch.stack(nearest).mean()

    @staticmethod
    def _distances(mimi: Any, latent: Tensor) -> Tensor:
        first = mimi.quantizer.rvq_first
        vectors = first.input_proj(latent).transpose(1, 2)
        return torch.cdist(vectors, first.vq.layers[0].embedding[None]).square()

    def _flite(self, rng: random.Random) -> Speech:
        text = rng.choice(OTHER_SENTENCES) if rng.random() < 0.3 else rng.choice(make_takes.asked())
        voice = FliteVoice(FLITE_USER, rng.uniform(0.85, 1.2))
        return speakers.louder(aligned(text, voice.say(text)), 0.6)

    def _crop(self, rng: random.Random, frames: int, same: bool) -> tuple[Sound, list[list[int]]]:
        if same:
            speech, level = rng.choice(self.espeak), 0.0
        else:
            level = speakers.LOUDER_LEVELS[acoustics.level(rng)]
            source = rng.choices((self.people, self.flite, self.espeak), (5, 3, 2))[0] or self.flite
            speech = acoustics.heard(rng, rng.choice(source), level)
        length = frames * FRAME_SIZE
        start = rng.randint(-length // 2, max(1, len(speech.pcm) - length // 3))
        pcm = speakers.noise(rng, length, level)
        low, high = max(0, start), min(len(speech.pcm), start + length)
        pcm[low - start : high - start] += speech.pcm[low:high]
        return pcm, self._labels(speech, start, frames)

    def _labels(self, speech: Speech, start: int, frames: int) -> list[list[int]]:
        begins = np.array([begin for _, begin in speech.phonemes])
        times = [
            [(start + (t + part) * FRAME_SIZE) / SAMPLE_RATE for part in HEARD_AT] for t in range(frames)
        ]
        places = np.searchsorted(begins, times, side="right") - 1
        return [
            [
                self.symbols.get(speech.phonemes[k][0], 0) if k >= 0 and at < speech.seconds else 0
                for k, at in zip(row, when)
            ]
            for row, when in zip(places, times)
        ]


def latents(mimi: Any, pcm: Tensor) -> Tensor:
    """What is quantised of sound [B, 1, n]: [B, D, T]."""
    from moshi.utils.compile import no_compile

    with no_compile():
        latent = mimi.encoder(pcm)
        (latent,) = mimi.encoder_transformer(latent)
        found: Tensor = mimi._to_framerate(latent)
    return found


def aligned(text: str, speech: Speech) -> Speech:
    """``speech`` with the phonemes that espeak has for ``text``, each word stretched to the time that it has here."""
    model = trimmed(EspeakVoice("en-us").say(text))  # or the last word would end in silence
    theirs = [word.start for word in model.words] + [model.words[-1].end]
    ours = [word.start for word in speech.words] + [speech.words[-1].end]
    times = np.interp([begin for _, begin in model.phonemes], theirs, ours)
    symbols = [symbol for symbol, _ in model.phonemes]
    return Speech(speech.pcm, speech.words, tuple(zip(symbols, times.tolist())))
