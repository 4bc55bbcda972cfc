"""A checkpoint in several safetensors files, as Hugging Face writes large ones: NAME.index.json tells which they are."""

from __future__ import annotations

import json
from collections.abc import Callable, KeysView
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from moshivis_ros.errors import CheckpointError


def index_of(path: Path) -> Path:
    """Where the index of the shards of the file ``path`` would be."""
    return path.with_name(f"{path.name}.index.json")


def patterns(name: str) -> list[str]:
    """What to download of a repository whose file ``name`` may be in shards."""
    return [f"{name}.index.json", f"{Path(name).stem}-*-of-*{Path(name).suffix}"]


class Shards:
    """All of them as one file: what safetensors' safe_open gives, as far as weights.py needs it.

    ``open_one`` opens a shard. Raises CheckpointError for an index that is none, and names the shards that are missing.
    """

    def __init__(self, index: Path, open_one: Callable[[Path], Any]) -> None:
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            paths = [index.parent / Path(name).name for name in names]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{index} is not an index of safetensors files ({error!r}); download it again"
            ) from error
        missing = [path.name for path in paths if not path.is_file()]
        if missing or not paths:
            raise CheckpointError(
                f"{index} names files that are not beside it: {', '.join(missing) or 'none at all'}; download the checkpoint again"
            )
        self._open = ExitStack()
        self._files: dict[str, Any] = {}  # the shard of each tensor
        for path in paths:
            shard = self._open.enter_context(open_one(path))
            self._files |= dict.fromkeys(shard.keys(), shard)

    def __enter__(self) -> Shards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def keys(self) -> KeysView[str]:
        return self._files.keys()

    def get_slice(self, name: str) -> Any:
        return self._files[name].get_slice(name)

    def get_tensor(self, name: str) -> Tensor:
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor
