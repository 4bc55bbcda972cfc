"""The released model in its quantised forms, loaded as they are: MLX's q4 and q8, and ggml's q8_0 as candle wrote it.

Their files hold the network of the ordinary checkpoint under other names, and every weight in levels, scales and offsets
(see packed.py). Names and layouts are those of kyuteye_mlx and kyuteye_rs of kyutai-labs/moshivis.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from moshivis_ros.errors import CheckpointError
from moshivis_ros.model.config import ModelConfig, NormForm
from moshivis_ros.model.cost import WORKING, beside_weights, needed_beside
from moshivis_ros.model.device import free_memory
from moshivis_ros.model.gguf_file import GgufFile
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.mlx_file import MlxFile, is_mlx
from moshivis_ros.model.packed import Packed, PackedEmbedding, PackedLinear, by_halves
from moshivis_ros.model.weights import MAX_LISTED, check_fits, unfilled

# Repos, and their files with the bits a weight takes, the best first.
REPOS = {
    "kyutai/moshika-vis-mlx": {"model.q8.safetensors": 8.5, "model.q4.safetensors": 5.0},
    "kyutai/moshika-vis-candle-q8": {"model.q8_0.gguf": 8.5},
}
FILES = dict(chain.from_iterable(files.items() for files in REPOS.values()))
# Both programs take the mean square in every norm (the original: the variance in depformer and image prefix).
NORM: NormForm = "real_rms_norm_f32"


class QuantizedFile(Protocol):
    """A file of weights, mapped: nothing is read before it is copied.

    Its levels of 4 bits are two neighbours in a byte, the left one in the low half; a matrix of 8 bits may have its groups
    as a third dimension.
    """

    names: set[str]  # of all tensors

    def parts(self, module: str, parameter: str) -> list[str]:
        """The tensors that hold a parameter of one of our modules, whether or not they are there."""
        ...

    def read(self, names: list[str], columns: int) -> Tensor | Packed:
        """What they hold; ``columns`` of a row. Raises ValueError where that is no such parameter."""
        ...


def is_released(path: Path) -> bool:
    """Is this file in one of these forms, rather than in the ordinary one?"""
    return path.suffix == ".gguf" or is_mlx(path)


def load(
    path: Path,
    config: ModelConfig,
    device: torch.device | str,
    dtype: torch.dtype,
    kv_cache: str | None,
    wanted: Callable[[str], bool] = bool,
) -> MoshiVis:
    """The network of such a file, in evaluation mode, without gradients.

    Levels, scales and offsets stay as they are, on ``device``; what is not quantised becomes ``dtype``. Memory holds the
    model and one tensor at most. What is not ``wanted`` (by its name) stays without memory. Without a config.yaml beside it, the file is taken for the released model. Raises
    CheckpointError, and MissingDependencyError for a GGUF file without the gguf library.
    """
    if not (path.parent / "config.yaml").exists():
        config = dataclasses.replace(config, norm=NORM, norm_xa=NORM)
    with unfilled():
        model = MoshiVis(config)
    file: QuantizedFile = GgufFile(path) if path.suffix == ".gguf" else MlxFile(path)
    found = _find(model, file, path)
    size = sum(_bytes(value, dtype) for value in found.values())
    check_fits(size + needed_beside(path, config, dtype, kv_cache), path, device)
    for name, value in found.items():
        if wanted(name):
            _put(model, name, value, device, dtype)
    return model.requires_grad_(False).eval()


def choose(files: list[str], device: torch.device | str, kv_cache: str | None) -> str:
    """Of these files of the released model the best that the free memory of ``device`` holds, or the smallest."""
    device = torch.device(device)
    cuda = device.type == "cuda"
    config, dtype = ModelConfig.preset("moshika-vis"), torch.bfloat16 if cuda else torch.float32
    with unfilled():
        model = MoshiVis(config)
    encoder = sum(weight.numel() for weight in model.image_prefix.parameters())
    packed = sum(weight.numel() for weight in model.parameters()) - encoder
    beside = encoder * dtype.itemsize + sum(beside_weights(config, dtype, kv_cache, MIMI).values()) + WORKING
    room = free_memory(device)
    best_first = sorted(files, key=lambda file: -FILES[file])
    return next((file for file in best_first if packed * FILES[file] / 8 + beside <= room), best_first[-1])


MIMI = 385_000_000  # bytes of the released one's file


def _find(model: MoshiVis, file: QuantizedFile, path: Path) -> dict[str, Tensor | Packed]:
    """Every parameter of ``model`` with what the file holds for it. Raises CheckpointError unless that is all there is."""
    found: dict[str, Tensor | Packed] = {}
    used: set[str] = set()
    problems: list[str] = []
    for name, expected in model.named_parameters():
        module, _, parameter = name.rpartition(".")
        parts = file.parts(module, parameter)
        used.update(parts)
        if parts[0] not in file.names:
            problems.append(f"{parts[0]} {list(expected.shape)} is missing")
            continue
        try:
            value = file.read(parts, expected.shape[-1])
            rows = value.levels.shape[:1] if isinstance(value, Packed) else value.squeeze().shape
            wanted = expected.shape[:1] if isinstance(value, Packed) else expected.squeeze().shape
            if rows != wanted:
                raise ValueError(f"has the shape {list(rows)}, {list(expected.shape)} is expected")
            if isinstance(value, Tensor) and not value.is_floating_point():
                raise ValueError(f"is of type {value.dtype}, a floating-point type is expected")
        except ValueError as error:
            problems.append(f"{parts[0]} {error}")
            continue
        found[name] = value
    problems.extend(_left(file, used))
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems[:MAX_LISTED])
        more = f"\n  ... and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
        raise CheckpointError(
            f"{path} does not hold the network that its configuration describes:{listed}{more}"
        )
    return found


def _left(file: QuantizedFile, used: set[str]) -> Iterator[str]:
    """What is wrong with the tensors that nothing asked for.

    Both programs keep the depformer's norms once for every codebook, and MLX writes much of the one cross-attention again
    under every layer: those must be what the first of them is.
    """
    for name in sorted(file.names - used):
        original = re.sub(r"^(depformer\.(?:slices\.)?)\d+(\..*\.norm\d\.)", r"\g<1>0\2", name)
        original = re.sub(r"^(transformer\.layers\.)\d+(\.cross_attention\.(?!gate))", r"\g<1>0\2", original)
        if original == name or original not in used:
            yield f"{name} is unexpected"
        elif not torch.equal(*(_raw(file, part) for part in (name, original))):
            yield f"{name} differs from {original}, but the network has that only once"


def _raw(file: QuantizedFile, name: str) -> Tensor:
    value = file.read([name], 0)
    return value.levels if isinstance(value, Packed) else value


def _bytes(value: Tensor | Packed, dtype: torch.dtype) -> int:
    if isinstance(value, Tensor):
        return value.numel() * dtype.itemsize
    return sum(part.numel() * part.element_size() for part in value if part is not None)


def _put(
    model: MoshiVis, name: str, value: Tensor | Packed, device: torch.device | str, dtype: torch.dtype
) -> None:
    """Put one parameter into the model; where it is packed, with a module in place that takes it so."""
    module, _, parameter = name.rpartition(".")
    old = model.get_submodule(module)

    # copied, not mapped: a file that is replaced while the model talks must not stop it
    def copy(tensor: Tensor, type_: torch.dtype) -> Tensor:
        return torch.empty(tensor.shape, dtype=type_, device=device).copy_(tensor)

    if isinstance(old, PackedLinear):  # its bias: the weight came before
        assert isinstance(value, Tensor)
        old.bias = copy(value, dtype)
    elif isinstance(value, Tensor):
        shape = old.get_parameter(parameter).shape
        setattr(old, parameter, nn.Parameter(copy(value.reshape(shape), dtype), requires_grad=False))
    else:
        columns = old.get_parameter(parameter).shape[-1]
        offsets = None if value.offsets is None else copy(value.offsets, value.offsets.dtype)
        levels = copy(value.levels, value.levels.dtype).flatten(1)
        if levels.shape[1] < columns:
            levels = by_halves(levels, value.scales.shape[1])
        packed = Packed(levels, copy(value.scales, value.scales.dtype), offsets)
        table = isinstance(old, nn.Embedding)
        new = PackedEmbedding(packed, columns) if table else PackedLinear(packed, columns)
        above, _, attribute = module.rpartition(".")
        setattr(model.get_submodule(above), attribute, new)
