"""Find a checkpoint (a folder, or a Hugging Face repo), load its network, save one."""

from __future__ import annotations

import dataclasses
import errno
import re
import shutil
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
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.lm import MoshiVis, window_bytes
from moshivis_ros.model.quantize import Int4Linear, Int8Linear, Quantizer, RowsLinear
from moshivis_ros.model.weights import load_into, stored_type, write

BUILTIN = Path(__file__).resolve().parents[1] / "builtin"


def resolve(name_or_folder: str | Path, revision: str | None = None) -> Path:
    """The local folder of a checkpoint.

    ``builtin`` is the miniature in this package. A folder is returned as it is. A Hugging Face repo id
    (``owner/name``) is downloaded, or found in the hub's cache (HF_HOME; HF_HUB_OFFLINE=1 never asks the
    network), at ``revision``: a branch (default: main), a tag or a commit. Raises CheckpointError.
    """
    folder = BUILTIN if name_or_folder == "builtin" else Path(name_or_folder).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise CheckpointError(
                f"{folder} is a local folder: revision {revision!r} is for Hugging Face repos only"
            )
        return folder
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file: give the folder that holds it")
    repo = str(name_or_folder)
    if isinstance(name_or_folder, Path) or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", repo):
        raise CheckpointError(
            f"there is no folder {folder}: give a checkpoint folder or a Hugging Face repo id (owner/name)"
        )
    try:
        return _download(repo, revision)
    except (OSError, HFValidationError) as error:  # every error of the hub is an OSError, the network's too
        raise CheckpointError(f"there is no folder {repo}, and {_explain(error, repo, revision)}") from error


def load_model(
    folder: Path | str,
    device: torch.device | str,
    dtype: torch.dtype,
    quantize: str | None = None,
    kv_cache: str | None = None,
) -> MoshiVis:
    """The network of a checkpoint folder, in evaluation mode, without gradients.

    Weights go one by one from the memory-mapped file to ``device`` and ``dtype``, and become smaller there
    with ``quantize`` (int8, int4), unless the file holds them so already (see quantize_checkpoint): beside the
    model, memory holds one tensor at most. Raises CheckpointError, and ConfigError for config.yaml.
    """
    folder = Path(folder)
    config = ModelConfig.load(folder)
    if config.quantize and quantize not in (None, config.quantize):
        raise ConfigError(
            f"{folder} holds {config.quantize} weights already: load it without quantize={quantize!r}, or quantize "
            "the original"
        )
    with torch.device("meta"):
        model = MoshiVis(config)
    # The attention window (see Stream) is allocated later, but a model without room for it is of no use.
    needed = window_bytes(config, dtype, kv_cache)
    shrink = None
    if form := config.quantize or quantize:
        quantizer = Quantizer(model, form)
        if config.quantize:
            quantizer.expect()
        else:
            needed -= quantizer.saved_bytes(dtype)
        shrink = quantizer.shrink
    return load_into(model, folder / config.model, model.state_dict(), device, dtype, needed, shrink)


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
    folder, out = Path(folder), Path(out).expanduser()
    config = ModelConfig.load(folder)
    if config.quantize:
        raise ConfigError(f"{folder} holds {config.quantize} weights already: quantize the original")
    if out.is_file() or (out.exists() and any(out.iterdir())):
        raise CheckpointError(f"{out} is not an empty folder: choose another")
    with torch.device("meta"):
        model = MoshiVis(config)
    path = folder / config.model
    quantizer = Quantizer(model, form)
    load_into(model, path, model.state_dict(), "cpu", stored_type(path), shrink=quantizer.store)
    model.config = dataclasses.replace(config, quantize=form)
    save_model(model, out)
    for file in (folder / config.mimi_codec, folder / config.text_tokenizer):
        if file.is_file():
            shutil.copy(file, out)


def _download(repo: str, revision: str | None) -> Path:
    released = _files(ModelConfig.preset("moshika-vis"))
    patterns = ["config.yaml", *released]
    folder = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    files = _files(ModelConfig.load(folder))
    if files != released:
        snapshot_download(repo, revision=revision, allow_patterns=files)
    for name in files:
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{repo} lacks {name}: it is no MoshiVis checkpoint, or its download was cut off; "
                "in that case try again with a network connection"
            )
    return folder


def _files(config: ModelConfig) -> list[str]:
    return [config.model, config.mimi_codec, config.text_tokenizer]


def _explain(error: Exception, repo: str, revision: str | None) -> str:
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
