"""Weights as kyuteye_rs (kyutai-labs/moshivis) reads them: a GGUF file under candle's names, the image encoder beside it.

A q8_0 matrix is in blocks of 32 columns: a scale (float16) and 32 levels (int8), weight = level * scale. The file itself is
read by the gguf library.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from moshivis_ros.errors import CheckpointError, MissingDependencyError
from moshivis_ros.model.packed import Packed
from moshivis_ros.model.weights import open_file

NAMES = (
    (r"^llm\.", ""),
    (r"^audio_emb\.", "emb."),
    (r"^depformer_text_emb$", "depformer_emb.-1"),
    (r"^depformer_in\.(\d+)", r"depformer.\1.linear_in"),
    (r"^audio_linears\.(\d+)", r"depformer.\1.linear_out"),
    (r"^depformer\.layers\.(\d+)\.(norm\d)", r"depformer.0.transformer.layers.\1.\2"),
    (r"^depformer\.layers\.(\d+)\.(self_attn\.\w+|gating)\.(\d+)", r"depformer.\3.transformer.layers.\1.\2"),
)
# Stored without a level ".weight" of their own.
BARE = (
    (r"self_attn\.in_proj\.weight$", "self_attn.in_proj_weight"),
    (r"cross_attention\.mha\.(q|kv)_proj\.weight$", r"cross_attention.in_proj_weight_\1"),
    (r"cross_attention\.mha\.", "cross_attention."),
)
BLOCK = 32
PLAIN = {"F32": np.float32, "F16": np.float16}


class GgufFile:
    """See released.QuantizedFile."""

    def __init__(self, path: Path) -> None:
        try:
            import gguf
        except ImportError as error:
            raise MissingDependencyError(
                f"{path.name} is read by the gguf library: pip install gguf"
            ) from error
        try:
            reader = gguf.GGUFReader(path, "c")  # a private map: torch wants memory that could be written
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise CheckpointError(
                f"{path} is missing, cut short, damaged or not a GGUF file ({error}): download it again"
            ) from error
        # The file has the image encoder too, quantised; like the original we take the exact one beside it.
        self._tensors = {t.name: t for t in reader.tensors if not t.name.startswith("image_prefix.")}
        self._vision = open_file(path.parent / vision_file(path.name))
        self.names = {*self._tensors, *self._vision.keys()}

    def parts(self, module: str, parameter: str) -> list[str]:
        for ours, theirs in NAMES:
            module = re.sub(ours, theirs, module)
        name = re.sub(
            r"^depformer_emb\.(-?\d+)", lambda m: f"depformer.{int(m[1]) + 1}.emb", f"{module}.{parameter}"
        )
        for ours, theirs in BARE:
            name = re.sub(ours, theirs, name)
        return [name]

    def read(self, names: list[str], columns: int) -> Tensor | Packed:
        (name,) = names
        if name not in self._tensors:
            return self._vision.get_tensor(name)  # type: ignore[no-any-return]
        tensor = self._tensors[name]
        kind = tensor.tensor_type.name
        shape = [int(size) for size in reversed(tensor.shape)]
        raw = np.asarray(tensor.data)
        if kind == "Q8_0":
            if shape[-1] != columns:
                raise ValueError(f"has the shape {shape}, {columns} columns are expected")
            blocks = raw.view(np.uint8).reshape(shape[0], -1, BLOCK + 2)
            scales, levels = blocks[..., :2].view(np.float16)[..., 0], blocks[..., 2:].view(np.int8)
            return Packed(torch.from_numpy(levels), torch.from_numpy(scales), None)
        if kind == "BF16":
            return torch.from_numpy(raw.view(np.int16)).view(torch.bfloat16).reshape(shape)
        if kind in PLAIN:
            return torch.from_numpy(raw.view(PLAIN[kind])).reshape(shape)
        raise ValueError(f"is of type {kind}: only Q8_0, BF16, F16 and F32 are supported")


def vision_file(gguf_file: str) -> str:
    """The name of the file beside a GGUF file that holds the image encoder as it is: model.q8_0.gguf, say."""
    return gguf_file.rsplit(".", 2)[0] + "_vision_tower_unquant.safetensors"
