"""Find a checkpoint (a folder, or a Hugging Face repo), load its network, save one."""

from __future__ import annotations

import dataclasses
import errno
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from moshivis_ros.errors import CheckpointError, ConfigError
from moshivis_ros.model import released, shards
from moshivis_ros.model.adapters import Adapters
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.cost import needed_beside
from moshivis_ros.model.gguf_file import vision_file
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.quantize import Int4Linear, Int8Linear, Quantizer, RowsLinear
from moshivis_ros.model.weights import check_layout, load_into, open_file, stored_type, unfilled, write

BUILTIN = Path(__file__).resolve().parents[1] / "builtin"


def resolve(
    name_or_folder: str | Path,
    revision: str | None = None,
    device: torch.device | str = "cpu",
    kv_cache: str | None = None,
) -> Path:
    """The local folder of a checkpoint, or the file in it that holds the weights, where it is one of several.

    ``builtin`` is the miniature in this package. A folder is returned as it is. A Hugging Face repo id
    (``owner/name``) is downloaded, or found in the hub's cache (HF_HOME; HF_HUB_OFFLINE=1 never asks the
    network), at ``revision``: a branch (default: main), a tag or a commit. A file of either may be named
    (``owner/name/model.q4.safetensors``); where there are only quantised ones of the released model, and none is named,
    it is the best that fits the free memory of ``device``. Raises CheckpointError.
    """
    folder = BUILTIN if name_or_folder == "builtin" else Path(name_or_folder).expanduser()
    if folder.exists():
        if revision is not None:
            raise CheckpointError(f"{folder} is local: revision {revision!r} is for Hugging Face repos only")
        return _weights_of(folder, device, kv_cache)
    repo, file = str(name_or_folder), None
    if named := re.fullmatch(r"([^/]+/[^/]+)/([^/]+\.(?:safetensors|gguf))", repo):
        repo, file = named.groups()
    elif repo in released.REPOS:
        file = released.choose(list(released.REPOS[repo]), device, kv_cache)
    if isinstance(name_or_folder, Path) or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", repo):
        raise CheckpointError(
            f"there is no folder {folder}: give a checkpoint folder or a Hugging Face repo id (owner/name)"
        )
    try:
        return _download(repo, revision, file)
    except (OSError, HFValidationError) as error:  # every error of the hub is an OSError, the network's too
        raise CheckpointError(f"there is no folder {repo}, and {explain(error, repo, revision)}") from error


def _weights_of(path: Path, device: torch.device | str, kv_cache: str | None) -> Path:
    """The folder, or the file with its weights, if they have a name of their own."""
    if path.is_file():
        if path.suffix not in (".safetensors", ".gguf"):
            raise CheckpointError(f"{path} is no file of weights: give the folder that holds it")
        return path
    files = [name for name in released.FILES if (path / name).is_file()]
    if not files or (path / ModelConfig.load(path).model).exists():
        return path
    return path / released.choose(files, device, kv_cache)


def load_model(
    folder: Path | str,
    device: torch.device | str,
    dtype: torch.dtype,
    quantize: str | None = None,
    kv_cache: str | None = None,
    wanted: Callable[[str], bool] = bool,
    adapters: Path | str | None = None,
) -> MoshiVis:
    """The network of a checkpoint folder, or of the file of one, in evaluation mode, without gradients.

    Weights go one by one from the memory-mapped file to ``device`` and ``dtype``, and become smaller there
    with ``quantize`` (int8, int4), unless the file holds them so already (see quantize_checkpoint, and released.py): beside
    the model, memory holds one tensor at most. What is not ``wanted`` (by its name) stays without memory. ``adapters``: folder
    of trained ones to put in. Raises CheckpointError, and ConfigError for config.yaml.
    """
    config, path = _configuration(folder)
    trained = None if adapters is None else _adapters(adapters, config, path)
    if released.is_released(path):
        if quantize is not None:
            raise ConfigError(
                f"{path.name} is quantised already, and loaded as it is: leave quantize={quantize!r} out"
            )
        return released.load(path, config, device, dtype, kv_cache, wanted)
    if config.quantize and quantize not in (None, config.quantize):
        raise ConfigError(
            f"{folder} holds {config.quantize} weights already: load it without quantize={quantize!r}, or quantize "
            "the original"
        )
    with unfilled():
        model = MoshiVis(config)
    # Allocated later, but a model without room for it is of no use.
    needed = needed_beside(path, config, dtype, kv_cache)
    shrink = None
    if form := config.quantize or quantize:
        quantizer = Quantizer(model, form)
        if config.quantize:
            quantizer.expect()
        else:
            needed -= quantizer.saved_bytes(dtype)
        shrink = quantizer.shrink
    amend = None if trained is None else trained.put
    load_into(model, path, model.state_dict(), device, dtype, needed, shrink, wanted, amend)
    if shrink is not None:
        shrink(model)  # what is no part of another one
    return model


def save_model(model: MoshiVis, folder: Path | str) -> None:
    """Write the weights, under the released names, and config.yaml to ``folder`` (created if need be).

    Raises CheckpointError for a model that was made smaller: see quantize_checkpoint.
    """
    if any(isinstance(module, (RowsLinear, Int8Linear, Int4Linear)) for module in model.modules()):
        raise CheckpointError(
            "quantised weights are packed for their device: `moshivis quantize` saves such ones"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save(folder)
    write(model.state_dict(), folder / model.config.model)


def quantize_checkpoint(folder: Path | str, out: Path | str, form: str) -> None:
    """Write the checkpoint ``folder`` to the new folder ``out``, with int8 or int4 weights (see quantize.Quantizer).

    What is not quantised keeps the file's type. Memory holds the quantised model and one tensor at most. Raises
    CheckpointError, and ConfigError for another form and for weights that are quantised already.
    """
    out = Path(out).expanduser()
    config, path = _configuration(folder)
    if released.is_released(path):
        raise ConfigError(
            f"{path.name} is quantised already: it is loaded as it is, and smaller ones are made of the original"
        )
    if config.quantize:
        raise ConfigError(f"{folder} holds {config.quantize} weights already: quantize the original")
    if out.is_file() or (out.exists() and any(out.iterdir())):
        raise CheckpointError(f"{out} is not an empty folder: choose another")
    with unfilled():
        model = MoshiVis(config)
    quantizer = Quantizer(model, form)
    load_into(model, path, model.state_dict(), "cpu", stored_type(path), shrink=quantizer.store)
    quantizer.store(model)  # what is no part of another one
    model.config = dataclasses.replace(config, quantize=form)
    save_model(model, out)
    for file in (path.parent / config.mimi_codec, path.parent / config.text_tokenizer):
        if file.is_file():
            shutil.copy(file, out)


def merge_adapters(folder: Path | str, adapters: Path | str, out: Path | str) -> None:
    """Write the checkpoint ``folder`` with trained ``adapters`` in it to the new folder ``out``: the released layout again.

    Weights keep their type; memory holds one tensor, and the adapters. Raises CheckpointError and ConfigError.
    """
    out = Path(out).expanduser()
    config, path = _configuration(folder)
    trained = _adapters(adapters, config, path)
    if out.is_file() or (out.exists() and any(out.iterdir())):
        raise CheckpointError(f"{out} is not an empty folder: choose another")
    with unfilled():
        layout = MoshiVis(config).state_dict()
    dtype = stored_type(path)
    with open_file(path) as file:
        check_layout(file, layout, path)
        out.mkdir(parents=True, exist_ok=True)
        tensors = (trained.put(name, file.get_tensor(name).to(dtype, copy=True)) for name in layout)
        write({name: tensor.to(dtype) for name, tensor in layout.items()}, out / config.model, tensors)
    config.save(out)
    for beside in (path.parent / config.mimi_codec, path.parent / config.text_tokenizer):
        if beside.is_file():
            shutil.copy(beside, out)


def _adapters(folder: Path | str, config: ModelConfig, path: Path) -> Adapters:
    """Trained ones that fit the checkpoint of this configuration and this file."""
    if config.quantize or released.is_released(path):
        raise ConfigError(
            f"{path} holds quantised weights, and adapters go into the original ones: take those (they can be quantised while "
            "they are loaded)"
        )
    adapters = Adapters.load(folder)
    with unfilled():
        adapters.check(MoshiVis(config).state_dict())
    return adapters


def _configuration(path: Path | str) -> tuple[ModelConfig, Path]:
    """Of a folder, or of a file in one: its configuration, and the file of weights."""
    path = Path(path)
    folder = path.parent if path.is_file() else path
    config = ModelConfig.load(folder)
    return config, path if path.is_file() else folder / config.model


def _download(repo: str, revision: str | None, file: str | None) -> Path:
    """The folder, or ``file`` in it."""
    usual = _files(ModelConfig.preset("moshika-vis"), file)
    patterns = ["config.yaml", *usual, *shards.patterns(usual[0])]
    folder = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    files = _files(ModelConfig.load(folder), file)
    if files != usual:
        snapshot_download(repo, revision=revision, allow_patterns=[*files, *shards.patterns(files[0])])
    if shards.index_of(folder / files[0]).is_file():
        del files[0]  # its shards are checked where they are opened
    for name in files:
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{repo} lacks {name}: it is no MoshiVis checkpoint, or its download was cut off; "
                "in that case try again with a network connection"
            )
    return folder / file if file else folder


def _files(config: ModelConfig, file: str | None) -> list[str]:
    file = file or config.model
    beside = [vision_file(file)] if file.endswith(".gguf") else []
    return [file, *beside, config.mimi_codec, config.text_tokenizer]


def explain(error: Exception, repo: str, revision: str | None) -> str:
    """What went wrong between us and the hub, and the remedy."""
    if isinstance(error, GatedRepoError):
        return f"{repo} is gated: accept its terms at https://huggingface.co/{repo}, then run `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"no Hugging Face repo {repo!r} either: check the spelling; for a private one run `hf auth login`"
        )
    if isinstance(error, HFValidationError):
        return f"it is no Hugging Face repo id (owner/name): {error}"
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}: give one of its branches, tags or commits"
    if isinstance(error, LocalEntryNotFoundError) and constants.HF_HUB_OFFLINE:
        return f"{repo} is not in the cache: unset HF_HUB_OFFLINE once to download its files"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{constants.HF_HUB_CACHE} has no space left for {repo}: free some, or set HF_HOME elsewhere"
    return (
        f"{repo} cannot be downloaded and is not in the cache ({error.__cause__ or error}): "
        "check the network and try again, or give a local checkpoint folder"
    )
