"""Pictures to train on: a table with nothing to four things on it, and what is in every patch of the picture.

Drawn by the simulation's renderer with small shadows and without its antialiasing (300 pictures a second on one
core); shrinking them to the encoder's size smooths the edges.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from moshivis_ros.model.image_encoder import resize
from moshivis_ros.simulation.render import Renderer
from moshivis_ros.simulation.scene import Light, Pose, Robot, Room, Scene, Thing, camera_pose
from moshivis_ros.training.dialogues import COLOURS, KINDS, MAX_THINGS, PLACES, Item, View

TABLE = 0.72  # metres high
WIDTH, HEIGHT = 224, 168  # pixels drawn
# kind: range of width and of height, metres
_SIZES = {
    "ball": ((0.20, 0.27), (0.20, 0.27)),
    "box": ((0.20, 0.27), (0.18, 0.30)),
    "bottle": ((0.13, 0.16), (0.38, 0.48)),
    "cup": ((0.18, 0.22), (0.18, 0.24)),
    "robot": ((0.22, 0.27), (0.34, 0.42)),  # which the miniature never sees: moshivis_ros/kitchen
}
_APART = 0.31  # metres, sideways, so that nothing hides behind something
_EDGES = (0.37, 0.63)  # shares of the width where left, middle and right meet
_CLEAR = 0.035  # nothing stands closer to such an edge: nobody could say which it is
_HALF_LIVES = 150  # pictures of one room with one stock of things
BACKGROUND, UNCLEAR = -1, -2


@dataclass(frozen=True)
class Picture:
    """pixels: uint8 [size, size, 3] RGB. patches: [grid, grid] index into view, BACKGROUND or UNCLEAR.

    centres: (row, column) of the patch in which the middle of each thing of the view is.
    """

    pixels: npt.NDArray[np.uint8]
    view: View
    patches: npt.NDArray[np.int8]
    centres: tuple[tuple[int, int], ...]


def pictures(seed: int, size: int, patch: int, kinds: Sequence[str] = KINDS) -> Iterator[Picture]:
    """Endless different pictures of things of these kinds."""
    rng = random.Random(f"pictures {seed}")
    grid = size // patch
    while True:
        room = _room(rng, kinds)
        renderer = _QuickRenderer(room, WIDTH, HEIGHT)
        with renderer:
            for _ in range(_HALF_LIVES):
                scene, shown = arrange(rng, room, kinds)
                picture = _look(renderer, scene, shown, size, grid)
                if picture is not None:
                    yield picture


def _room(rng: random.Random, kinds: Sequence[str]) -> Scene:
    """A room, a table and a stock of things in different sizes, none of them visible yet."""
    stock = []
    for kind in kinds:
        widths, heights = _SIZES[kind]
        for k in range(MAX_THINGS):
            width = rng.uniform(*widths)
            height = width if kind == "ball" else rng.uniform(*heights)
            stock.append(Thing(f"{kind} {k}", kind, "red", (width, width, height), visible=False))
    table = Thing("table", "table", "brown", (rng.uniform(0.8, 1.0), 1.6, TABLE), Pose(z=TABLE / 2))
    shelf = Thing(
        "shelf",
        "box",
        rng.choice(("white", "brown", "grey")),
        (0.4, rng.uniform(0.8, 1.4), rng.uniform(1.1, 1.7)),
        Pose(2.2, rng.uniform(-1.2, 1.2), 0.7),
        visible=rng.random() < 0.6,
    )
    lights = (
        Light("lamp", rng.uniform(-0.6, 0.5), rng.uniform(-1, 1), 2.4),
        Light("window", rng.uniform(-2.5, -1), rng.choice((-2, 2)), 2.2),
    )
    walls = rng.choice(("white", "skin", "grey"))
    return Scene(
        "training",
        (table, *stock, shelf),
        lights,
        Room((8.4, 6.0, 2.6), rng.choice(("grey", "brown")), walls),
    )


def arrange(
    rng: random.Random, room: Scene, kinds: Sequence[str] = KINDS
) -> tuple[Scene, tuple[Thing, ...]]:
    """A scene in ``room``, and the things that are on the table."""
    robot = Robot(
        Pose(rng.uniform(-1.55, -1.3), rng.uniform(-0.12, 0.12), yaw=rng.uniform(-0.06, 0.06)),
        mast=rng.uniform(1.1, 1.35),
        tilt=rng.uniform(0.22, 0.40),
    )
    eye = camera_pose(robot)
    count = rng.choices(range(MAX_THINGS + 1), weights=(1, 3, 3, 3, 2))[0]
    places: list[float] = []
    while len(places) < count:
        y = rng.uniform(-0.64, 0.64)
        share = across(eye, robot.field_of_view, 0.0, y)
        if all(abs(share - edge) > _CLEAR + 0.01 for edge in _EDGES) and 0.06 < share < 0.94:
            if all(abs(y - other) > _APART for other in places):
                places.append(y)
            elif rng.random() < 0.1:
                places = []
    same = rng.random() < 0.4  # otherwise two or three of a kind would be rare
    chosen = [rng.choice(kinds)] * count if same else rng.choices(kinds, k=count)
    if same and count and rng.random() < 0.5:
        chosen[rng.randrange(count)] = rng.choice(kinds)
    stock = {kind: [t for t in room.things if t.name.startswith(kind + " ")] for kind in kinds}
    for things in stock.values():
        rng.shuffle(things)
    shown = []
    for kind, y in zip(chosen, places):
        thing = stock[kind].pop()
        pose = Pose(rng.uniform(-0.18, 0.18), y, TABLE + thing.size[2] / 2, yaw=rng.uniform(-0.6, 0.6))
        shown.append(replace(thing, colour=rng.choice(COLOURS), pose=pose, visible=True))
    names = {thing.name: thing for thing in shown}
    lights = tuple(
        replace(light, brightness=rng.uniform(*span))
        for light, span in zip(room.lights, ((0.4, 0.7), (0.15, 0.4)))
    )
    all_things = tuple(names.get(thing.name, thing) for thing in room.things)
    return replace(room, things=all_things, robot=robot, lights=lights), tuple(shown)


def across(eye: Pose, field_of_view: float, x: float, y: float) -> float:
    """Where a point of the table is in the picture: 0 (left edge) to 1."""
    dx, dy = x - eye.x, y - eye.y
    ahead = dx * math.cos(eye.yaw) + dy * math.sin(eye.yaw)
    left = -dx * math.sin(eye.yaw) + dy * math.cos(eye.yaw)
    return 0.5 - left / (2 * ahead * math.cos(eye.pitch) * math.tan(field_of_view / 2))


class _QuickRenderer(Renderer):
    def __init__(self, scene: Scene, width: int, height: int) -> None:
        super().__init__(scene, width, height)
        self._renderer.close()
        self._model.vis.quality.shadowsize = 512
        self._model.vis.quality.offsamples = 0
        self._renderer = type(self._renderer)(self._model, height, width)

    def owners(self, scene: Scene, shown: tuple[Thing, ...]) -> npt.NDArray[np.int8]:
        """Which of ``shown`` each pixel shows: [height, width] index, BACKGROUND elsewhere."""
        self._renderer.enable_segmentation_rendering()
        self._renderer.update_scene(self._data, "camera")
        ids = np.array(self._renderer.render())[:, :, 0]
        table = np.full(self._model.ngeom + 1, BACKGROUND, np.int8)
        for k, thing in enumerate(shown):
            table[self._geoms[thing.name]] = k
        owners: npt.NDArray[np.int8] = table[ids]
        return owners


def _look(
    renderer: _QuickRenderer, scene: Scene, shown: tuple[Thing, ...], size: int, grid: int
) -> Picture | None:
    """The picture, or None if one of the things is hardly to be seen or stands on an edge of a place."""
    image = renderer.image(scene)
    owners = renderer.owners(scene, shown)
    middles = []
    for k in range(len(shown)):
        rows, columns = np.nonzero(owners == k)
        if len(rows) < 0.0022 * owners.size:
            return None
        middles.append((rows.mean() / HEIGHT, columns.mean() / WIDTH))
        if any(abs(middles[-1][1] - edge) < _CLEAR for edge in _EDGES):
            return None
    order = sorted(range(len(shown)), key=lambda k: middles[k][1])
    view = tuple(
        Item(shown[k].kind, shown[k].colour, PLACES[sum(middles[k][1] > edge for edge in _EDGES)])
        for k in order
    )
    cells = owners.reshape(grid, HEIGHT // grid, grid, WIDTH // grid).swapaxes(1, 2).reshape(grid, grid, -1)
    shares = np.stack([(cells == k).mean(-1) for k in order], -1) if order else np.zeros((grid, grid, 1))
    best = shares.argmax(-1).astype(np.int8)
    patches = np.where(shares.max(-1) > 0.25, best, np.where(shares.max(-1) < 0.04, BACKGROUND, UNCLEAR))
    small = resize(torch.from_numpy(image).permute(2, 0, 1), size).permute(1, 2, 0).numpy()
    centres = tuple((int(middles[k][0] * grid), int(middles[k][1] * grid)) for k in order)
    return Picture(small, view, patches.astype(np.int8), centres)


@dataclass(frozen=True)
class Pool:
    """Many pictures in memory. pixels: uint8 [n, size, size, 3]; patches: int8 [n, grid, grid]."""

    pixels: npt.NDArray[np.uint8]
    patches: npt.NDArray[np.int8]
    views: tuple[View, ...]
    centres: tuple[tuple[tuple[int, int], ...], ...]

    def __len__(self) -> int:
        return len(self.views)


def pool(path: Path | str, count: int, seed: int, size: int, patch: int) -> Pool:
    """``count`` pictures, drawn once and kept in the file ``path`` (npz)."""
    path = Path(path)
    if not path.exists():
        source = pictures(seed, size, patch)
        drawn = [next(source) for _ in range(count)]
        path.parent.mkdir(parents=True, exist_ok=True)
        table = np.full((count, MAX_THINGS, 5), -1, np.int8)
        for n, picture in enumerate(drawn):
            for k, (item, centre) in enumerate(zip(picture.view, picture.centres)):
                names = KINDS.index(item.kind), COLOURS.index(item.colour), PLACES.index(item.place)
                table[n, k] = (*names, *centre)
        np.savez(
            path,
            pixels=np.stack([p.pixels for p in drawn]),
            patches=np.stack([p.patches for p in drawn]),
            things=table,
        )
    with np.load(path) as file:
        pixels, patches, things = file["pixels"][:count], file["patches"][:count], file["things"][:count]
    rows = [[tuple(int(v) for v in row) for row in table if row[0] >= 0] for table in things]
    views = tuple(tuple(Item(KINDS[k], COLOURS[c], PLACES[p]) for k, c, p, _, _ in row) for row in rows)
    centres = tuple(tuple((y, x) for _, _, _, y, x in row) for row in rows)
    return Pool(pixels, patches, views, centres)
