"""Fill a module from a safetensors file: every tensor checked by name and shape, nothing ever unpickled."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from moshivis_ros.errors import CheckpointError
from moshivis_ros.model import shards
from moshivis_ros.model.device import free_memory

PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
MAX_LISTED = 10  # tensors named in one error
_TYPES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int8: "I8",
    torch.uint8: "U8",
}
_CONVERT = "convert the weights to safetensors where you trust their source"

M = TypeVar("M", bound=nn.Module)


@contextmanager
def unfilled() -> Iterator[None]:
    """Modules made here have no memory yet, and no numbers are drawn for it (on "meta", torch would load its compiler
    to do so, which takes longer than the loading of a small model). ``load_into`` gives them both.
    """
    with torch.device("meta"), _NothingDrawn():
        yield


class _NothingDrawn(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def load_into(
    module: M,
    path: Path,
    layout: Mapping[str, Tensor],
    device: torch.device | str,
    dtype: torch.dtype,
    extra_bytes: int = 0,
    shrink: Callable[[nn.Module], None] | None = None,
    wanted: Callable[[str], bool] = bool,
    amend: Callable[[str, Tensor], Tensor] | None = None,
) -> M:
    """Fill ``module`` (built on the meta device) from the safetensors file ``path``.

    ``layout`` gives the name and the shape of every tensor that the file must hold; floating-point tensors become
    ``dtype``, the others must have the layout's type. ``extra_bytes`` is what the module needs on a GPU beside
    its weights (less, where they shrink). ``shrink`` is called with each
    part of the module as soon as a tensor of it is filled, and may replace what is filled. What is not ``wanted`` (by its
    name) stays without memory. ``amend`` gets every tensor with its name before that, and gives the one to take. Raises
    CheckpointError.
    """
    with open_file(path) as file:
        check_layout(file, layout, path)
        layout = {name: t for name, t in layout.items() if wanted(name)}
        types = {name: dtype if t.is_floating_point() else t.dtype for name, t in layout.items()}
        weights = sum(t.numel() * types[name].itemsize for name, t in layout.items())
        check_fits(weights + extra_bytes, path, device)
        # copy_, not the mapped pages themselves: a file that is replaced, or evicted from memory, while the
        # model talks must not stop it.
        console = Console(stderr=True)
        bar = track(
            layout.items(),
            f"loading {path.name}",
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        tensors = (
            (name, _filled(file, name, torch.empty(expected.shape, dtype=types[name], device=device), path))
            for name, expected in bar
        )
        if amend is not None:
            tensors = ((name, amend(name, tensor)) for name, tensor in tensors)
        if shrink is None:
            module.load_state_dict(dict(tensors), strict=False, assign=True)
        else:
            for name, tensor in tensors:
                # The parent's parent: it may be the one that knows of several weights stored as one.
                above, *rest = name.rsplit(".", 2)
                part = module.get_submodule(above)
                part.load_state_dict({".".join(rest): tensor}, strict=False, assign=True)
                del tensor
                shrink(part)
    everything = chain(module.named_parameters(), module.named_buffers())
    left = [name for name, t in everything if t.is_meta and wanted(name)]
    if left:
        raise RuntimeError(f"no weights for {left}: a buffer outside the state dict must not be made on meta")
    return module.requires_grad_(False).eval()


def write(layout: Mapping[str, Tensor], path: Path, tensors: Iterable[Tensor] | None = None) -> None:
    """Write ``layout`` as a safetensors file, one tensor after the other: memory never holds a second copy of them all.

    (safetensors' own save_file makes that copy.) ``tensors``: what to write in place of its own tensors, in its order, so
    that they can be made one by one. Raises CheckpointError where there is no room.
    """
    header, end = {}, 0
    for name, tensor in layout.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # what follows shall be aligned
    try:
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for tensor in layout.values() if tensors is None else tensors:
                tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tofile(file)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be written ({error}): {end / 1e9:.1f} GB are needed; free some space, or choose another folder"
        ) from error


def stored_type(path: Path) -> torch.dtype:
    """The floating-point type that most of a checkpoint's tensors have. Raises CheckpointError."""
    with open_file(path) as file:
        found = Counter(file.get_slice(name).get_dtype() for name in file.keys())  # noqa: SIM118
    types = {text: dtype for dtype, text in _TYPES.items() if dtype.is_floating_point}
    return types.get(found.most_common(1)[0][0], torch.float32)


def open_file(path: Path) -> Any:
    if path.suffix in PICKLE_SUFFIXES:
        raise CheckpointError(
            f"{path.name}: pickle files can run code when read, so they never are; {_CONVERT}"
        )
    if not path.is_file() and shards.index_of(path).is_file():
        return shards.Shards(shards.index_of(path), open_file)
    if not path.is_file():
        pickles = [p.name for p in path.parent.glob("*") if p.suffix in PICKLE_SUFFIXES]
        beside = f" There is {pickles[0]}, but pickle files are never read: {_CONVERT}." if pickles else ""
        raise CheckpointError(
            f"there is no {path.name} in {path.parent}: download the checkpoint again.{beside}"
        )
    try:
        return safe_open(path, framework="pt")  # type: ignore[no-untyped-call]
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) is cut short, damaged or not a safetensors file: {error}; "
            "download it again (a git clone needs git-lfs)"
        ) from error


def check_layout(file: Any, layout: Mapping[str, Tensor], path: Path) -> None:
    """Raise CheckpointError unless ``file`` holds exactly the tensors of ``layout``."""
    found = set(file.keys())
    problems = list(_problems(file, found, layout))
    if not problems:
        return
    listed = "".join(f"\n  {problem}" for problem in problems[:MAX_LISTED])
    more = f"\n  ... and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
    hint = ""
    if not (path.parent / "config.yaml").exists():
        hint = (
            f"\n{path.parent} has no config.yaml, so this must be the released model: "
            "add the config.yaml that belongs to these weights"
        )
    raise CheckpointError(
        f"{path} does not hold the network that its configuration describes:{listed}{more}{hint}"
    )


def _problems(file: Any, found: set[str], layout: Mapping[str, Tensor]) -> Iterator[str]:
    for name, expected in layout.items():
        if name not in found:
            yield f"{name} {list(expected.shape)} is missing"
            continue
        part = file.get_slice(name)
        if part.get_shape() != list(expected.shape):
            yield f"{name} has the shape {part.get_shape()}, {list(expected.shape)} is expected"
        elif expected.is_floating_point():
            if part.get_dtype() not in ("F64", "F32", "F16", "BF16"):
                yield f"{name} is of type {part.get_dtype()}, a floating-point type is expected"
        elif part.get_dtype() != _TYPES[expected.dtype]:
            yield f"{name} is of type {part.get_dtype()}, {_TYPES[expected.dtype]} is expected"
    for name in sorted(found - layout.keys()):
        # The cross-attention is shared: files may repeat layer 0's tensors under the other layers.
        original = re.sub(r"\.layers\.\d+\.cross_attention\.mha\.", ".layers.0.cross_attention.mha.", name)
        if original not in found & layout.keys():
            yield f"{name} {file.get_slice(name).get_shape()} is unexpected"
        elif not torch.equal(file.get_tensor(name), file.get_tensor(original)):
            yield f"{name} differs from {original}, but all layers share one cross-attention"


def _filled(file: Any, name: str, tensor: Tensor, path: Path) -> Tensor:
    """``tensor`` with the values of the file. Raises CheckpointError for values that are not finite: they would talk."""
    tensor.copy_(file.get_tensor(name))
    # A NaN or an infinity leaves no sum finite, and a sum is ten times cheaper than isfinite and takes no memory.
    if tensor.is_floating_point() and not tensor.sum().isfinite():
        bad = tensor.numel() - int(tensor.isfinite().sum())
        if bad:  # and not just a sum that is too large for the type
            raise CheckpointError(
                f"{path}: {bad} of the {tensor.numel()} numbers of {name} are NaN or infinite as {tensor.dtype}: the "
                "weights are damaged; download them again, or load them with another dtype"
            )
    return tensor


def check_fits(needed: int, path: Path, device: torch.device | str) -> None:
    """Raise CheckpointError where that many bytes are not free on a GPU."""
    device = torch.device(device)
    if device.type != "cuda":
        return
    free, total = free_memory(device), torch.cuda.mem_get_info(device)[1]
    if needed > free:
        raise CheckpointError(
            f"{path.name} needs {needed / 1e9:.1f} GB on {device} (with all that a conversation takes), "
            f"but {free / 1e9:.1f} of {total / 1e9:.1f} GB are free: stop other programs that use the GPU, "
            "take a GPU with more memory, or load with device='cpu'"
        )
