"""Training of the image encoder: every token must know by itself what is in its patch, the how-manieth thing from the
left that is, and how many there are.

Heads on single tokens (not on a summary of the picture), because cross-attention reads single tokens: it can only
find "the ball" where one token says ball. And it takes averages: it could hardly count, so the tokens do.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from moshivis_ros.errors import CheckpointError
from moshivis_ros.model.checkpoint import load_model, resolve
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.image_encoder import Siglip, normalize
from moshivis_ros.training.dialogues import COLOURS, KINDS, MAX_THINGS
from moshivis_ros.training.pictures import BACKGROUND, pictures
from moshivis_ros.training.pool import Pool, pool
from moshivis_ros.training.rooms import rooms
from moshivis_ros.training.train import Settings

FILE = "image_encoder.safetensors"
_IGNORED = -100
_OF_THINGS = {"kind": KINDS, "colour": COLOURS, "rank": range(MAX_THINGS)}  # 0: background


@dataclass(frozen=True)
class Options:
    model: str  # config.yaml of the network that the encoder is for
    pictures: str  # npz file of tables and rooms, drawn if it is not there, as the next two
    test_pictures: str  # of tables
    test_rooms: str
    count: int = 24000
    test_count: int = 1500  # of each
    start: str = ""  # image encoder to go on from: image_encoder.safetensors, or that of a checkpoint
    batch: int = 32
    counts: float = 0.25  # weight of the counts in the loss
    wanted: float = 0.98  # accuracy on unseen tables, of kind and of colour, below which the stage fails
    wanted_rooms: float = 0.6  # the same for rooms, where things are a few pixels wide


class ImageStage:
    def __init__(self, settings: Settings) -> None:
        self.options = options = Options(**settings.options)
        self.bfloat16 = settings.bfloat16
        config = ModelConfig.load(options.model).siglip
        self.encoder = Siglip(config)
        for table in (self.encoder.embeddings.position_embedding,):
            nn.init.normal_(table.weight, std=0.1)
        if options.start:
            self.encoder.load_state_dict(_encoder_of(options.start))
        heads = {name: len(values) + 1 for name, values in _OF_THINGS.items()}
        heads |= {"centre": 2, "cell": config.grid**2}
        heads |= {f"count {name}": MAX_THINGS + 1 for name in ("thing", *KINDS)}
        self.network = nn.ModuleDict(
            {"encoder": self.encoder, **{name: nn.Linear(config.hidden_size, n) for name, n in heads.items()}}
        )
        size, patch = config.image_size, config.patch_size
        self.pool = pool(options.pictures, options.count, settings.seed + 1, size, patch)
        self.tests = {
            "tables": pool(options.test_pictures, options.test_count, settings.seed + 99, size, patch, pictures),
            "rooms": pool(options.test_rooms, options.test_count, settings.seed + 98, size, patch, rooms),
        }
        self.labels = _labels(self.pool)

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.network.parameters())}]

    def losses(self, rng: random.Random, step: int, steps: int) -> dict[str, Tensor]:
        chosen = rng.sample(range(len(self.pool)), self.options.batch)
        labels = {name: table[chosen] for name, table in self.labels.items()}
        pixels, labels = _mirrored(torch.from_numpy(self.pool.pixels[chosen]), labels)
        scores = self._scores(augment(pixels))
        losses = {name: _loss(scores[name], labels[name], name in (*_OF_THINGS, "centre")) for name in scores}
        count = torch.stack([loss for name, loss in losses.items() if name.startswith("count ")]).sum()
        loss = (
            losses["kind"]
            + losses["colour"]
            + losses["rank"]
            + losses["centre"]
            + 0.1 * losses["cell"]
            + self.options.counts * count
        )
        shown = {name: losses[name].detach() for name in (*_OF_THINGS, "centre", "cell")}
        return {"loss": loss, **shown, "count": count.detach()}

    def finish(self, out: Path) -> None:
        state = {name: tensor.contiguous() for name, tensor in self.encoder.state_dict().items()}
        save_file(state, out / FILE)
        found = {name: self.accuracy(test) for name, test in self.tests.items()}
        for name, values in found.items():
            print(f"{name}: {', '.join(f'{what} {value:.4f}' for what, value in values.items())}", flush=True)
        for name, wanted in (("tables", self.options.wanted), ("rooms", self.options.wanted_rooms)):
            if min(found[name]["kind"], found[name]["colour"]) < wanted:
                raise CheckpointError(f"the image encoder is not good enough ({name}: {found[name]}): train it longer")

    def accuracy(self, test: Pool) -> dict[str, float]:
        """On unseen pictures, kind, colour and rank of the token in the middle of each thing, the rest of all tokens."""
        labels = _labels(test)
        right: dict[str, list[float]] = {name: [] for name in labels}
        self.network.eval()
        with torch.no_grad():
            for start in range(0, len(test), 100):
                part = slice(start, start + 100)
                pixels = normalize(torch.from_numpy(test.pixels[part]).permute(0, 3, 1, 2))
                scores = self._scores(pixels)
                middle = labels["centre"][part] == 1
                for name in scores:
                    hit = (scores[name].argmax(-1) == labels[name][part]).float()
                    right[name] += (hit[middle] if name in _OF_THINGS else hit).flatten().tolist()
        self.network.train()
        return {name: float(np.mean(hits)) for name, hits in right.items()}

    def _scores(self, pixels: Tensor) -> dict[str, Tensor]:
        plain = sdpa_kernel(SDPBackend.MATH)  # torch's fused attention is slow backwards on a CPU
        with plain, torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.bfloat16):
            tokens = self.encoder(pixels)
        heads = [name for name in self.network if name != "encoder"]
        return {name: self.network[name](tokens.float()) for name in heads}


def _encoder_of(start: str) -> dict[str, Tensor]:
    """The encoder's weights in the file that this stage writes, or in a checkpoint."""
    if Path(start).is_file():
        return load_file(start)
    return load_model(resolve(start), "cpu", torch.float32).image_prefix.enc.model.state_dict()


def _loss(scores: Tensor, labels: Tensor, apart: bool) -> Tensor:
    """Cross-entropy over all tokens; ``apart``: the mean of that of the things and that of the background."""
    losses = F.cross_entropy(scores.flatten(0, 1), labels.flatten(), ignore_index=_IGNORED, reduction="none")
    if not apart:
        return losses.mean()
    thing, background = (labels > 0).flatten(), (labels == 0).flatten()
    return losses[thing].sum() / (2 * thing.sum().clamp(min=1)) + losses[background].mean() / 2


def _mirrored(pixels: Tensor, labels: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Every second picture [B, S, S, 3] the other way round, and its labels [B, N] with it."""
    pixels, half = pixels.clone(), slice(None, None, 2)
    pixels[half] = pixels[half].flip(2)
    grid = math.isqrt(labels["kind"].shape[1])
    turned = {name: labels[name].clone() for name in (*_OF_THINGS, "centre")}  # all others stay true
    for table in turned.values():
        table[half] = table[half].unflatten(1, (grid, grid)).flip(2).flatten(1)
    rank, things = turned["rank"][half], labels["count thing"][half]
    turned["rank"][half] = torch.where(rank > 0, things + 1 - rank, rank)
    return pixels, {**labels, **turned}


def augment(pixels: Tensor) -> Tensor:
    """Pictures uint8 [B, S, S, 3] -> pixel values [B, 3, S, S]: other exposures, other white balances, noise."""
    values = pixels.permute(0, 3, 1, 2).float()
    batch = len(values)
    gain = 1 + 0.25 * (torch.rand(batch, 1, 1, 1) - 0.5) + 0.1 * (torch.rand(batch, 3, 1, 1) - 0.5)
    values = values * gain + 20 * torch.rand(batch, 1, 1, 1) * (torch.rand_like(values) - 0.5)
    return (values.clamp(0, 255) / 255 - 0.5) / 0.5


def _labels(pictures: Pool) -> dict[str, Tensor]:
    """Of every token [n, grid * grid]: kind, colour and rank (0: background), whether it is a middle, its own place."""
    count, grid = pictures.patches.shape[:2]
    tables: dict[str, npt.NDArray[Any]] = {n: np.full((count, grid, grid), _IGNORED) for n in _OF_THINGS}
    for table in tables.values():
        table[pictures.patches == BACKGROUND] = 0
    centre = np.zeros((count, grid, grid), int)
    for n, (view, centres) in enumerate(zip(pictures.views, pictures.centres)):
        for k, (item, (y, x)) in enumerate(zip(view, centres)):
            mine = pictures.patches[n] == k
            mine[y, x] = True
            tables["kind"][n][mine] = 1 + KINDS.index(item.kind)
            tables["colour"][n][mine] = 1 + COLOURS.index(item.colour)
            tables["rank"][n][mine] = 1 + k
            centre[n, y, x] = 1
    cell = np.broadcast_to(np.arange(grid * grid), (count, grid * grid)).copy()
    tables |= {"centre": centre, "cell": cell}
    for name in ("thing", *KINDS):
        counts = [sum(name in ("thing", item.kind) for item in view) for view in pictures.views]
        tables[f"count {name}"] = np.repeat(np.array(counts)[:, None], grid * grid, 1)
    return {name: torch.from_numpy(table.reshape(count, -1)).long() for name, table in tables.items()}
