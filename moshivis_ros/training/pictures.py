"""Pictures to train on: a table with nothing to four things on it, and what is in every patch of the picture.

Drawn by the simulation's renderer with small shadows and without its antialiasing (300 pictures a second on one
core); shrinking them to the encoder's size smooths the edges.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

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
LEAST_AREA, LEAST_SHARE = 0.0016, 0.5  # of the picture, and of its silhouette, that a thing must show to count
_TRACE = 0.0004  # of the picture: what shows less cannot be told from noise
_LIFE = 150  # pictures of one room with one stock of things
BACKGROUND, UNCLEAR = -1, -2


class Sighting(NamedTuple):
    """patches: [grid, grid] index into view, BACKGROUND or UNCLEAR.

    centres: (row, column) of the patch in which the middle of each thing of the view is.
    """

    view: View
    patches: npt.NDArray[np.int8]
    centres: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Picture:
    """pixels: uint8 [size, size, 3] RGB. The rest as in Sighting."""

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
        with QuickRenderer(room, WIDTH, HEIGHT) as renderer:
            for _ in range(_LIFE):
                scene, shown = arrange(rng, room, kinds)
                if (found := looked_at(renderer, scene, shown, grid)) is not None:
                    yield Picture(shrunk(renderer.image(scene), size), *found)


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


class QuickRenderer(Renderer):
    """With small shadows and without antialiasing."""

    def __init__(self, scene: Scene, width: int, height: int) -> None:
        super().__init__(scene, width, height)
        self._renderer.close()
        self._model.vis.quality.shadowsize = 512
        self._model.vis.quality.offsamples = 0
        self._renderer = type(self._renderer)(self._model, height, width)

    def throw_shadows(self, lamps: int) -> None:
        """Only the first so many lamps do from now on."""
        self._model.light_castshadow[:] = np.arange(self._model.nlight) < lamps


def looked_at(renderer: Renderer, scene: Scene, named: Sequence[Thing], grid: int) -> Sighting | None:
    """What is to be said of ``named``, everything in the scene that has a name in a View; None: nobody could tell.

    A thing is in the view if it covers LEAST_AREA and LEAST_SHARE of it is to be seen. If less is, but more than
    a trace, it is neither there nor not. The same where one stands between two places, and of more than MAX_THINGS.
    """
    owners = renderer.owners(scene, named)
    pixels = np.bincount(owners[owners >= 0], minlength=len(named))
    middles: dict[int, tuple[float, float]] = {}  # index into named: (row, column), as shares
    for k in np.flatnonzero(pixels > _TRACE * owners.size).tolist():
        if pixels[k] < max(LEAST_AREA * owners.size, LEAST_SHARE * renderer.silhouette(scene, named[k])):
            return None
        rows, columns = np.nonzero(owners == k)
        middles[k] = rows.mean() / owners.shape[0], columns.mean() / owners.shape[1]
        if any(abs(middles[k][1] - edge) < _CLEAR for edge in _EDGES):
            return None
    if len(middles) > MAX_THINGS:
        return None
    order = sorted(middles, key=lambda k: middles[k][1])
    view = tuple(
        Item(named[k].kind, named[k].colour, PLACES[sum(middles[k][1] > edge for edge in _EDGES)]) for k in order
    )
    height, width = (side // grid for side in owners.shape)
    cells = owners.reshape(grid, height, grid, width).swapaxes(1, 2).reshape(grid, grid, -1)
    shares = np.stack([*((cells == k).mean(-1) for k in order), (cells >= 0).mean(-1)], -1)
    best = shares[..., :-1].argmax(-1) if order else np.zeros((grid, grid))
    clear = shares[..., :-1].max(-1, initial=0) > 0.25
    patches = np.where(clear, best, np.where(shares[..., -1] < 0.04, BACKGROUND, UNCLEAR)).astype(np.int8)
    centres = tuple((int(middles[k][0] * grid), int(middles[k][1] * grid)) for k in order)
    return Sighting(view, patches, centres)


def shrunk(image: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """As the encoder gets it: uint8 [size, size, 3]."""
    small: npt.NDArray[np.uint8] = resize(torch.from_numpy(image).permute(2, 0, 1), size).permute(1, 2, 0).numpy()
    return small
