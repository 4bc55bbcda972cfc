"""Many pictures in memory, drawn once and kept in a file: half bare tables, half rooms, unless told otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from moshivis_ros.errors import ConfigError
from moshivis_ros.training.dialogues import COLOURS, KINDS, MAX_THINGS, PLACES, Item, View
from moshivis_ros.training.pictures import Picture, pictures
from moshivis_ros.training.rooms import rooms

Source = Callable[[int, int, int], Iterator[Picture]]
"""Endless pictures for a seed, a size and a patch, both in pixels."""
PART = 1500  # pictures of one file while it is drawn: so many are lost at most when it is stopped
_SEEDS = 1000  # from one part's seed to the next one's


@dataclass(frozen=True)
class Pool:
    """pixels: uint8 [n, size, size, 3]; patches: int8 [n, grid, grid]; the rest as in Picture, n times."""

    pixels: npt.NDArray[np.uint8]
    patches: npt.NDArray[np.int8]
    views: tuple[View, ...]
    centres: tuple[tuple[tuple[int, int], ...], ...]

    def __len__(self) -> int:
        return len(self.views)


def mixed(seed: int, size: int, patch: int) -> Iterator[Picture]:
    """A table, a room, a table, ..."""
    for both in zip(pictures(seed, size, patch), rooms(seed, size, patch)):
        yield from both


def pool(path: Path | str, count: int, seed: int, size: int, patch: int, source: Source = mixed) -> Pool:
    """``count`` pictures, drawn once and kept in the file ``path`` (npz); fewer from a file that holds fewer.

    A drawing that was stopped goes on with the part that it was at. Raises ConfigError: the file has pictures of another size.
    """
    path = Path(path)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = [path.with_suffix(f".part{k}.npz") for k in range(math.ceil(count / PART))]
        for k, part in enumerate(parts):
            if not part.exists():
                wanted = min(PART, count - k * PART)
                drawing = partial(track, total=wanted, console=Console(stderr=True), transient=True)
                drawn = islice(source(seed + k * _SEEDS, size, patch), wanted)
                _write(part, _tables(drawing(drawn, f"{path.name}, part {k + 1} of {len(parts)}")))
        files = [dict(np.load(part)) for part in parts]
        _write(path, {name: np.concatenate([file[name] for file in files]) for name in files[0]})
        for part in parts:
            part.unlink()
    with np.load(path) as file:
        pixels, patches, things = file["pixels"][:count], file["patches"][:count], file["things"][:count]
    there, needed = (pixels.shape[1], patches.shape[1]), (size, size // patch)
    if there != needed:
        told = " where ".join(f"{side} x {side} pixels in {grid} x {grid} patches" for side, grid in (there, needed))
        raise ConfigError(f"{path} has pictures of {told} are wanted: delete it, and they are drawn again")
    rows = [[tuple(int(v) for v in row) for row in table if row[0] >= 0] for table in things]
    views = tuple(tuple(Item(KINDS[k], COLOURS[c], PLACES[p]) for k, c, p, _, _ in row) for row in rows)
    centres = tuple(tuple((y, x) for _, _, _, y, x in row) for row in rows)
    return Pool(pixels, patches, views, centres)


def _tables(drawn: Iterable[Picture]) -> dict[str, npt.NDArray[np.generic]]:
    """What the file holds. things: [n, MAX_THINGS, 5] kind, colour, place, row and column of the middle, -1: none."""
    kept = list(drawn)
    things = np.full((len(kept), MAX_THINGS, 5), -1, np.int8)
    for n, picture in enumerate(kept):
        for k, (item, centre) in enumerate(zip(picture.view, picture.centres)):
            names = KINDS.index(item.kind), COLOURS.index(item.colour), PLACES.index(item.place)
            things[n, k] = (*names, *centre)
    pixels, patches = np.stack([p.pixels for p in kept]), np.stack([p.patches for p in kept])
    return {"pixels": pixels, "patches": patches, "things": things}


def _write(path: Path, tables: dict[str, npt.NDArray[np.generic]]) -> None:
    begun = path.with_suffix(".begun.npz")
    np.savez(begun, **tables)  # type: ignore[arg-type]
    begun.replace(path)  # whole, or not there
