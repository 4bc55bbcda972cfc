"""Training of the language model with its depformer and its gated cross-attention to pictures, in one stage.

`train` says what learns: everything; the backbone (the speech model, without pictures); or the adapters alone on a
frozen backbone (cross-attention, gates, image projection), which is how arXiv 2503.15633 trains them.
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from moshivis_ros.errors import ConfigError
from moshivis_ros.model.checkpoint import load_model, resolve, save_model
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.training import dialogues, image_stage, utterances
from moshivis_ros.training.forward import Sight, audio_logits, columns, kind_loss, targets, temporal
from moshivis_ros.training.pool import Pool, pool
from moshivis_ros.training.samples import ALL, Composer, Sample, Weights
from moshivis_ros.training.train import STATE, Settings, network_of
from moshivis_ros.training.wordpieces import make_tokenizer

SLOTS = 2  # pictures that one sample may show, one after the other


@dataclass(frozen=True)
class Options:
    model: str  # config.yaml of the network
    pictures: str
    count: int = 24000
    image_encoder: str = ""  # image_encoder.safetensors; none: that of `start`
    library: str = ""  # npz of spoken sentences; only written samples need none
    start: str = ""  # to go on from: out folder of an earlier stage, finished or not, or a checkpoint
    batch: int = 12  # samples of a step
    mixture: dict[str, float] = field(default_factory=lambda: {"written": 1})  # how likely each form is
    frames: int = 96  # of every sample
    train: str = "all"  # all, backbone, adapters
    gate_scale: float = 4.0  # learning rate of the gates against that of the rest
    audio_weight: float = 1.0
    ear_weight: float = 0.5  # of the loss on the user's words
    topic_weight: float = 0.5  # of the loss on what the question named
    gaze_weight: float = 0.5  # of the loss on what the upper half of the layers looks at
    gate_weight: float = 1.0  # of the gates outside answers about the picture: looking costs
    first_codebook: float = 4.0  # weight of codebook 1 against each of the others
    speech_frames: float = 0.5  # share of the frames with own speech that the depformer learns in a step
    silent_frames: float = 0.1  # and of those without
    blind: float = 0.1  # share of the samples without a picture
    general: float = 0.15  # share of the samples that begin with a general question about the picture
    swap: float = 0.35  # share of the samples whose picture changes between two turns
    quiet: float = 0.2  # share of the samples that begin with a long silence
    unknown: float = 0.0  # share of the turns of heard and spoken samples that are no question
    interrupted: float = 0.0  # share of the spoken answers into which the next question comes
    echo: float = 0.0  # share of the spoken samples in which it hears itself
    told: float = 0.0  # share of the turns of spoken samples that it is told to say
    weights: dict[str, float] = field(default_factory=dict)
    compile: bool = False  # half as fast again after minutes of compiling; wants a C++ compiler


class LMStage:
    def __init__(self, settings: Settings) -> None:
        self.options = options = Options(**settings.options)
        self.settings = settings
        self.config = ModelConfig.load(options.model)
        self.model = MoshiVis(self.config)
        initialise(self.model)
        # Only in training: says which word the user has just finished. It teaches to listen, which the answers alone
        # teach slowly.
        self.ear = nn.Linear(self.config.dim, self.config.text_card)
        # Only in training too: says what the question named, while the answer is given, from the middle layer on. The
        # upper layers can only look for a thing that they know the name of.
        self.topic = nn.Linear(self.config.dim, len(dialogues.TOPICS))
        self.network = nn.ModuleDict({"model": self.model, "ear": self.ear, "topic": self.topic})
        if options.start:
            start = Path(options.start)
            if not (start / STATE).exists():
                start = resolve(options.start)
            self.model.load_state_dict(model_of(start))
        if options.image_encoder:
            self.model.image_prefix.enc.model.load_state_dict(load_file(options.image_encoder))
        elif not options.start:
            raise ConfigError("the stage lm needs image_encoder, or start")
        self.model.to(settings.device)
        out = Path(settings.out)
        if options.start:  # tokens must mean what they meant
            shutil.copy(start / self.config.text_tokenizer, out)
        else:
            make_tokenizer(self.config, out)
        tokenizer = Tokenizer.load(out, self.config)
        library = utterances.load(options.library) if options.library else None
        self.composer = Composer(self.config, tokenizer.encode, library, Weights(**options.weights))
        siglip = self.config.siglip
        self.pool = pool(options.pictures, options.count, 1, siglip.image_size, siglip.patch_size)
        self.features = encode_pictures(self.model, self.pool, settings.bfloat16)
        _freeze(self.model, options.train)
        self.temporal = torch.compile(temporal, dynamic=False) if options.compile else temporal

    def groups(self) -> list[dict[str, Any]]:
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        gates = [p for name, p in named if ".gate." in name]
        flat = [p for name, p in named if ".gate." not in name and ("emb" in name or p.dim() != 2)]
        rest = [p for name, p in named if ".gate." not in name and not ("emb" in name or p.dim() != 2)]
        return [
            {"params": gates, "scale": self.options.gate_scale},
            {"params": flat, "weight_decay": 0.0},
            {"params": [*rest, *self.ear.parameters(), *self.topic.parameters()]},
        ]

    def losses(self, rng: random.Random, step: int, steps: int) -> dict[str, Tensor]:
        mixture = self.options.mixture
        forms = rng.choices(list(mixture), list(mixture.values()), k=self.options.batch)
        samples, pictures, exchanges = zip(*(self._sample(rng, form) for form in forms))
        device = self.settings.device
        tokens = torch.from_numpy(np.stack([s.tokens for s in samples])).to(device)
        weight = torch.from_numpy(np.stack([s.weight for s in samples])).to(device)
        with torch.autocast(device, torch.bfloat16, enabled=self.settings.bfloat16):
            sight = None if self.options.train == "backbone" else self._sight(samples, pictures, exchanges)
            out = self.temporal(self.model, columns(tokens, self.config), sight)
            each = F.cross_entropy(
                out.text_logits.float().flatten(0, 1), tokens[:, 0].flatten(), reduction="none"
            )
            told = torch.from_numpy(np.stack([s.told for s in samples])).to(device)
            each = torch.where(told, kind_loss(out.text_logits.float(), tokens[:, 0], self.config), each.view_as(weight))
            loss = text = (each * weight).sum() / weight.sum()
            shown = {"text": text.detach(), **_words(each.detach(), samples, forms)}
            heard = torch.from_numpy(np.stack([s.heard for s in samples])).to(device)
            if (heard >= 0).any():
                ear = F.cross_entropy(self.ear(out.hidden[heard >= 0]).float(), heard[heard >= 0])
                loss = loss + self.options.ear_weight * ear
                shown["ear"] = ear.detach()
            seen = torch.from_numpy(np.stack([s.seen == 1 for s in samples])).to(device)
            if seen.any():
                named = np.stack(
                    [np.take([e.topics for e in said], s.turn, 0) for s, said in zip(samples, exchanges)]
                )
                wanted = torch.from_numpy(named).to(device)[seen].float()
                scores = self.topic(out.middle[seen]).float()
                topic = F.binary_cross_entropy_with_logits(scores, wanted, reduction="none").sum(-1).mean()
                loss = loss + self.options.topic_weight * topic
                shown["topic"] = topic.detach()
            if sight is not None and sight.about is not None and (asked := sight.about.amax(-1) > 0).any():
                gaze = -out.gaze[:, self.config.num_layers // 2 :].mean(1)[asked].mean()
                loss = loss + self.options.gaze_weight * gaze
                shown["gaze"] = gaze.detach()
            if sight is not None:
                gate = out.gates.mean(1)[~seen].mean()
                loss = loss + self.options.gate_weight * gate
                shown["gate"] = gate.detach()
            if "spoken" in forms:
                audio = self._audio(samples, forms, tokens, out.hidden)
                loss = loss + self.options.audio_weight * audio
                shown["audio"] = audio.detach()
        return {"loss": loss, **shown}

    def finish(self, out: Path) -> None:
        self.save(out)

    def save(self, out: Path) -> None:
        """The network as model.safetensors and config.yaml, beside the tokenizer."""
        save_model(self.model, out)

    def _sample(
        self, rng: random.Random, form: str
    ) -> tuple[Sample, list[int | None], list[dialogues.Exchange]]:
        """A sample, and of each of its turns the picture (None: no picture) and what is said."""
        blind = rng.random() < self.options.blind
        swap = rng.random() < self.options.swap
        shown: list[int | None] = []
        exchanges: list[dialogues.Exchange] = []
        picture = None if blind else rng.randrange(len(self.pool))
        other = rng.randrange(len(self.pool))
        repeat = rng.random() < 0.3
        quiet = rng.random() < self.options.quiet
        general = rng.random() < self.options.general
        for turn in range(8):
            if swap and not blind and turn == 1:
                picture = other
            if repeat and turn == 1 and exchanges[0].seen and picture is not None:
                exchange = _again(rng, exchanges[0], self.pool.views[picture])
            elif general and turn == 0 and picture is not None:
                exchange = dialogues.describe(rng, self.pool.views[picture], False)
            else:
                exchange = self._exchange(rng, form, picture)
            shown.append(picture)
            exchanges.append(exchange)
        fitting = exchanges[: 1 if rng.random() < 0.2 else 8]  # one: a long silence follows
        options = self.options
        interrupted, echo = (options.interrupted, options.echo) if form == "spoken" else (0.0, 0.0)
        sample = self.composer.compose(rng, form, fitting, options.frames, quiet, interrupted, echo)
        return sample, shown, exchanges

    def _exchange(self, rng: random.Random, form: str, picture: int | None) -> dialogues.Exchange:
        if form == "spoken" and rng.random() < self.options.told:
            return dialogues.told(rng)
        if form != "written" and rng.random() < self.options.unknown:
            return dialogues.unknown(rng, False)
        if picture is None:
            return dialogues.exchange(rng, (), {"small talk": 1.0})
        return dialogues.exchange(rng, self.pool.views[picture])

    def _sight(
        self,
        samples: Sequence[Sample],
        pictures: Sequence[list[int | None]],
        exchanges: Sequence[list[dialogues.Exchange]],
    ) -> Sight:
        """What can be seen in every frame, at most SLOTS pictures a sample; and what the answers are about."""
        slots, which, on = [], [], []
        for sample, shown in zip(samples, pictures):
            there = list(dict.fromkeys(p for p in shown if p is not None))[:SLOTS] or [0]
            slots.append((there * SLOTS)[:SLOTS])
            turns = [there.index(p) if p in there else 0 for p in shown]
            which.append(np.take(turns, sample.turn))
            on.append(np.take([float(p is not None) for p in shown], sample.turn))
        device = self.settings.device
        features = self.features[torch.tensor(slots)].to(device)  # [B, SLOTS, N, hidden]
        source = self.model.image_prefix.norm_xa(self.model.image_prefix.proj_xa(features.flatten(1, 2)))
        k, v = self.model.llm.transformer.shared_cross_attention.keys_values(source)
        slot = torch.arange(SLOTS, device=device).repeat_interleave(features.shape[2])
        mask = torch.from_numpy(np.stack(which)).to(device)[:, None, :, None] == slot
        patches = self.pool.patches[np.array(slots)].reshape(len(slots), -1)  # [B, SLOTS * N]
        about = np.zeros((*mask.shape[::2], len(slot)), np.float32)
        for row, (sample, said) in enumerate(zip(samples, exchanges)):
            for turn in range(int(sample.turn.max()) + 1):
                frames = (sample.turn == turn) & (sample.seen == 1)
                for thing in set(sample.thing[frames].tolist()):
                    wanted = said[turn].about if thing == ALL else said[turn].about[thing : thing + 1]
                    about[row, frames & (sample.thing == thing)] = np.isin(patches[row], wanted)
        visible = torch.from_numpy(np.stack(on)).float().to(device)[..., None]
        return Sight(k, v, mask, visible, torch.from_numpy(about).to(device) * mask[:, 0])

    def _audio(
        self, samples: Sequence[Sample], forms: Sequence[str], tokens: Tensor, hidden: Tensor
    ) -> Tensor:
        """Cross-entropy of the own audio tokens where the model speaks, and in some of the silent frames."""
        spoken = torch.tensor([form == "spoken" for form in forms], device=hidden.device)[:, None]
        chosen = torch.from_numpy(np.stack([s.speaking for s in samples])).to(hidden.device)
        chosen = (
            chosen | (torch.rand(chosen.shape, device=hidden.device) < self.options.silent_frames)
        ) & spoken
        wanted = targets(tokens, self.config)[:, 1:].transpose(1, 2)[chosen]  # [M, dep_q]
        logits = audio_logits(self.model, hidden[chosen], tokens[:, 0][chosen], wanted.clamp(min=0))
        losses = F.cross_entropy(
            logits.float().flatten(0, 1), wanted.flatten(), ignore_index=-1, reduction="none"
        )
        importance = torch.ones(self.config.dep_q, device=hidden.device)
        importance[0] = self.options.first_codebook
        return (losses.view_as(wanted) * importance).sum(1).mean() / importance.sum()


class Open(nn.Module):
    """In the place of a gate: everything that the cross-attention brings gets in."""

    def forward(self, y: Tensor) -> Tensor:
        return torch.ones_like(y)


class UngatedStage(LMStage):
    """To see what the gates are for."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        remove_gates(self.model)


def remove_gates(model: MoshiVis) -> None:
    for layer in model.llm.transformer.layers:
        cast(Any, layer).cross_attention.gate = Open()


def model_of(out: Path | str) -> dict[str, Tensor]:
    """The MoshiVis network in the state file of this stage, or in a checkpoint folder."""
    if not (Path(out) / STATE).exists():
        return load_model(Path(out), "cpu", torch.float32).state_dict()
    return {name[len("model.") :]: t for name, t in network_of(out).items() if name.startswith("model.")}


def _words(losses: Tensor, samples: Sequence[Sample], forms: Sequence[str]) -> dict[str, Tensor]:
    """Mean text loss of the words of answers, by form."""
    words = torch.from_numpy(np.stack([s.weight >= 1 for s in samples])).to(losses.device)
    rows = {
        form: torch.tensor([f == form for f in forms], device=losses.device) for form in dict.fromkeys(forms)
    }
    return {form: losses[row][words[row]].mean() for form, row in rows.items()}


def _again(rng: random.Random, before: dialogues.Exchange, view: dialogues.View) -> dialogues.Exchange:
    """The question of before about a picture that may have changed; another one if it has no answer there."""
    for _ in range(30):
        one = dialogues.QUESTIONS[before.kind](rng, view, False)
        if one is not None and one.question == before.question:
            return one
    return dialogues.exchange(rng, view)


def initialise(model: MoshiVis) -> None:
    """Small normal weights; what ends a residual branch is smaller, by the depth."""
    config = model.config
    for name, p in model.named_parameters():
        if name.endswith("alpha"):
            nn.init.ones_(p)
        elif "image_prefix.enc" in name or name.endswith(".bias"):
            nn.init.zeros_(p) if p.dim() == 1 else nn.init.normal_(p, std=0.02)
        elif "emb" in name:
            nn.init.normal_(p, std=0.3 if "text_emb" in name else 0.1)
        else:
            std = p.shape[-1] ** -0.5
            last = "out_proj" in name or "linear_out" in name
            nn.init.normal_(p, std=std / math.sqrt(2 * config.num_layers) if last else std)


@torch.no_grad()
def encode_pictures(model: MoshiVis, pictures: Pool, bfloat16: bool, batch: int = 200) -> Tensor:
    """Tokens [n, N, hidden] bfloat16 of the frozen image encoder, before the projection."""
    parts = []
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        for start in range(0, len(pictures), batch):
            pixels = image_stage.augment(torch.from_numpy(pictures.pixels[start : start + batch]))
            parts.append(model.image_prefix.enc.model(pixels).bfloat16())
    return torch.cat(parts)


def _freeze(model: MoshiVis, train: str) -> None:
    if train not in ("all", "backbone", "adapters"):
        raise ConfigError(f"train: {train!r} is not one of all, backbone, adapters")
    for name, p in model.named_parameters():
        adapter = "cross" in name or (name.startswith("image_prefix.") and ".enc." not in name)
        frozen = ".enc." in name or (train == "adapters" and not adapter) or (train == "backbone" and adapter)
        p.requires_grad_(not frozen)
