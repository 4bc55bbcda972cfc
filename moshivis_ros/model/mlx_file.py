"""Weights as kyuteye_mlx (kyutai-labs/moshivis) writes them: one safetensors file under its own names.

A quantised matrix is three tensors: weight (levels of 4 or 8 bits in words of 32, the first in the lowest bits), scales and
biases (one of each for a group of 32 or 64 columns): weight = level * scale + bias.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from moshivis_ros.model.packed import Packed
from moshivis_ros.model.weights import open_file

NAMES = (
    (r"^llm\.(.*\.gate\.alpha)\.", r"\1.layers."),
    (r"^llm\.", ""),
    (r"^audio_emb\.", "audio_embs."),
    (r"^depformer_text_emb$", "depformer_emb.-1"),
    (r"^depformer_in\.(\d+)", r"depformer.slices.\1.linear_in"),
    (r"^audio_linears\.(\d+)", r"depformer.slices.\1.linear_out"),
    (r"^depformer\.layers\.(\d+)\.(norm\d)", r"depformer.slices.0.transformer.layers.\1.\2"),
    (
        r"^depformer\.layers\.(\d+)\.(self_attn\.\w+|gating)\.(\d+)",
        r"depformer.slices.\3.transformer.layers.\1.\2",
    ),
    (r"^image_prefix\.enc\.", "img_embedder."),
    (r"^image_prefix\.", "transformer.image_prefix."),
)


def is_mlx(path: Path) -> bool:
    """Does this file hold such weights? Raises CheckpointError for one that cannot be read."""
    with open_file(path) as file:
        return any(name.startswith("depformer.slices.") for name in file.keys())  # noqa: SIM118


class MlxFile:
    """See released.QuantizedFile."""

    def __init__(self, path: Path) -> None:
        self._file = open_file(path)
        self.names = set(self._file.keys())

    def parts(self, module: str, parameter: str) -> list[str]:
        for ours, theirs in NAMES:
            module = re.sub(ours, theirs, module)
        module = re.sub(r"^depformer_emb\.(-?\d+)", lambda m: f"depformer.slices.{int(m[1]) + 1}.emb", module)
        if parameter == "alpha":
            parameter = "weight"
        names = [f"{module}.{part}" for part in (parameter, "scales", "biases")]
        return names if parameter == "weight" and names[1] in self.names else names[:1]

    def read(self, names: list[str], columns: int) -> Tensor | Packed:
        tensors = [self._file.get_tensor(name) for name in names]
        if len(tensors) == 1:
            return tensors[0]  # type: ignore[no-any-return]
        words, scales, offsets = tensors
        bits = 32 * words.shape[1] / columns
        if words.dtype != torch.uint32 or bits not in (4, 8) or scales.shape != offsets.shape:
            raise ValueError(
                f"{list(words.shape)} {words.dtype} is no matrix of 4 or 8 bits and {columns} columns"
            )
        return Packed(words.view(torch.uint8), scales, offsets)
