"""Pictures to train on, as a camera on a driving robot takes them: things on tables and floors among furniture.

Furniture and walls have colours that are asked for, too, so that a colour alone names nothing. What the lamps, the
camera or another renderer would make of a picture is done to it afterwards, in whole-picture operations.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from moshivis_ros.simulation.scene import Light, Pose, Robot, Room, Scene, Thing
from moshivis_ros.training.dialogues import COLOURS, KINDS, MAX_THINGS
from moshivis_ros.training.pictures import (
    HEIGHT,
    TABLE,
    WIDTH,
    Picture,
    QuickRenderer,
    looked_at,
    shrunk,
)

# kind: range of width and of height, metres
_SMALL = {
    "ball": ((0.16, 0.28), (0.16, 0.28)),
    "box": ((0.14, 0.28), (0.14, 0.30)),
    "bottle": ((0.10, 0.16), (0.28, 0.46)),
    "cup": ((0.11, 0.22), (0.13, 0.24)),
    "cylinder": ((0.10, 0.16), (0.24, 0.36)),  # higher than a cup whose handle is on the other side
}
_LARGE = {
    "ball": ((0.4, 0.55), (0.4, 0.55)),
    "box": ((0.35, 0.55), (0.4, 1.0)),
    "cylinder": ((0.35, 0.55), (0.5, 0.9)),
    "chair": ((0.45, 0.55), (0.85, 1.0)),
    "plant": ((0.45, 0.65), (1.0, 1.3)),
    "person": ((0.4, 0.5), (1.6, 1.85)),
}
_FURNITURE = ("chair", "chair", "plant", "plant", "cylinder", "cylinder", "person")
_PLAIN = ("white", "white", "grey", "grey", "brown", "brown", "skin", "skin", "pink", "black")
_LIFE = 20  # pictures of one room: another one costs as much as a picture
_MARGIN = 0.22  # metres from the middle of the robot to what it would bump into
_NEAR, FAR = 0.7, 2.5  # metres from the robot to what it looks at


def rooms(seed: int, size: int, patch: int) -> Iterator[Picture]:
    """Endless different pictures."""
    rng = random.Random(f"rooms {seed}")
    while True:
        room = furnished(rng)
        renderer = QuickRenderer(room, WIDTH, HEIGHT)
        with renderer:
            for _ in range(_LIFE):
                least = rng.choice((0, 1, 1, 2, 2, 3))  # things in the view: by chance there would be few
                scene, found = room, None
                while found is None or len(found.view) < least:
                    scene = arrange(rng, room)
                    found = looked_at(renderer, scene, named(scene.things), size // patch)
                renderer.ambient = rng.uniform(0.25, 0.9)
                renderer.throw_shadows(rng.randint(0, len(scene.lights)))
                yield Picture(shrunk(photographed(rng, renderer.image(scene)), size), *found)


def named(things: Sequence[Thing]) -> list[Thing]:
    """Those of the things that have a name in a View."""
    return [t for t in things if t.visible and t.kind in KINDS and t.colour in COLOURS]


def furnished(rng: random.Random) -> Scene:
    """A room with all that may stand in it, none of it visible yet."""
    tables = [("table", (rng.uniform(0.7, 1.0), rng.uniform(1.2, 1.7), TABLE)) for _ in range(2)]
    large = [(kind, _size(rng, _LARGE[kind])) for kind in (*_FURNITURE, "box", "box", "ball")]
    small = [(kind, _size(rng, _SMALL[kind])) for kind in _SMALL for _ in range(MAX_THINGS)]
    shelf = ("box", (0.4, rng.uniform(0.8, 1.4), rng.uniform(1.1, 1.7)))
    stock = {"table": tables, "large": large, "small": small, "shelf": [shelf]}
    lights = (
        Light("lamp", rng.uniform(-1, 1), rng.uniform(-1, 1), 2.4),
        Light("window", rng.uniform(-2.5, -1), rng.choice((-2, 2)), 2.1),
        Light("floor lamp", rng.uniform(1, 2.5), rng.uniform(-2.5, 2.5), rng.uniform(1.5, 2.2)),
    )
    return Scene(
        "training",
        tuple(
            Thing(f"{group} {k}", kind, "white", size, visible=False)
            for group, things in stock.items()
            for k, (kind, size) in enumerate(things)
        ),
        lights,
        Room((rng.uniform(5.5, 9.0), rng.uniform(5.5, 9.0), 2.6), _colour(rng, 0.15), _colour(rng, 0.15)),
        Robot(field_of_view=rng.uniform(0.95, 1.15)),
    )


def _size(rng: random.Random, ranges: tuple[tuple[float, float], tuple[float, float]]) -> tuple[float, float, float]:
    width, height = (rng.uniform(*span) for span in ranges)
    return (width, width, height)


def _colour(rng: random.Random, asked: float) -> str:
    """One of those that are asked for, with this probability, or another."""
    return rng.choice(COLOURS if rng.random() < asked else _PLAIN)


def arrange(rng: random.Random, room: Scene) -> Scene:
    """The room with other things in it, other light and the robot elsewhere."""
    groups: dict[str, list[Thing]] = {"table": [], "large": [], "small": [], "shelf": []}
    for thing in rng.sample(room.things, len(room.things)):
        groups[thing.name.split()[0]].append(thing)
    put: list[Thing] = []
    first, second = groups["table"]
    standing = [first, *(thing for thing in (second, *groups["shelf"]) if rng.random() < 0.3)]
    standing += [thing for thing in groups["large"] if rng.random() < (0.1 if thing.kind in KINDS else 0.5)]
    for thing in standing:
        put += _standing(rng, room, thing, put)
    tables = [thing for thing in put if thing.kind == "table"]
    for thing in _chosen(rng, groups["small"]):
        on_floor = rng.random() < 0.12
        put += _standing(rng, room, thing, put) if on_floor else _lying(rng, rng.choice(tables), thing, put)
    pose = None
    while pose is None:
        pose = looking_about(rng, room.room, put)
    tilt = rng.uniform(0.17, 0.27) if rng.random() < 0.5 else rng.uniform(0.0, 0.5)
    robot = replace(room.robot, pose=pose, mast=rng.uniform(1.0, 1.3), tilt=tilt)
    placed = {thing.name: thing for thing in put}
    main, *others = room.lights
    lights = [replace(main, brightness=rng.uniform(0.45, 0.85))]
    lights += [replace(light, brightness=max(0.0, rng.uniform(-0.3, 0.5))) for light in others]
    things = tuple(placed.get(thing.name, thing) for thing in room.things)
    return replace(room, things=things, lights=tuple(lights), robot=robot)


def _chosen(rng: random.Random, small: Sequence[Thing]) -> list[Thing]:
    """Small things of random kinds, or mostly of one: else two or three of a kind would be rare."""
    count = rng.choices(range(MAX_THINGS + 2), weights=(1, 2, 3, 5, 8, 5))[0]
    favourite = rng.choice(KINDS) if rng.random() < 0.4 else ""
    likely = [thing for thing in small if thing.kind == favourite]
    rest = [thing for thing in small if thing.kind in KINDS and thing.kind != favourite]
    others = [thing for thing in small if thing.kind not in KINDS]
    keep = rng.randint(0, len(likely))
    return [*(likely[:keep] + rest)[:count], *others[: rng.choice((0, 0, 1))]]


def _standing(rng: random.Random, room: Scene, thing: Thing, put: Sequence[Thing]) -> list[Thing]:
    """The thing on the floor where nothing else is; nothing if there is no such place."""
    margin = max(thing.size[:2]) / 2
    for _ in range(10):
        x, y = (rng.uniform(margin - side / 2, side / 2 - margin) for side in room.room.size[:2])
        if _free(put, x, y, margin):
            return [_put(rng, thing, x, y, 0.0)]
    return []


def _lying(rng: random.Random, table: Thing, thing: Thing, put: Sequence[Thing]) -> list[Thing]:
    """The same on a table."""
    margin = thing.size[0] / 2
    cos, sin = math.cos(table.pose.yaw), math.sin(table.pose.yaw)
    for _ in range(10):
        ahead, left = (rng.uniform(margin - side / 2, side / 2 - margin) for side in table.size[:2])
        x, y = table.pose.x + ahead * cos - left * sin, table.pose.y + ahead * sin + left * cos
        if _free([other for other in put if other.kind != "table"], x, y, margin):
            return [_put(rng, thing, x, y, table.size[2])]
    return []


def _put(rng: random.Random, thing: Thing, x: float, y: float, floor: float) -> Thing:
    if thing.name.startswith("shelf"):
        colour = rng.choice(("white", "brown", "grey"))
    elif thing.kind == "table":
        colour = "brown" if rng.random() < 0.5 else _colour(rng, 0.3)
    elif thing.kind == "plant" and rng.random() < 0.6:
        colour = "green"
    else:
        colour = _colour(rng, 1.0 if thing.kind in KINDS else 0.75)
    pose = Pose(x, y, floor + thing.size[2] / 2, yaw=rng.uniform(-math.pi, math.pi))
    return replace(thing, colour=colour, pose=pose, visible=True)


def _free(things: Sequence[Thing], x: float, y: float, margin: float) -> bool:
    """Nothing of these is within ``margin`` metres of a point of the floor plan."""
    for thing in things:
        dx, dy = x - thing.pose.x, y - thing.pose.y
        cos, sin = math.cos(thing.pose.yaw), math.sin(thing.pose.yaw)
        ahead, left = abs(dx * cos + dy * sin), abs(dy * cos - dx * sin)
        if ahead < thing.size[0] / 2 + margin and left < thing.size[1] / 2 + margin:
            return False
    return True


def looking_about(rng: random.Random, room: Room, things: Sequence[Thing]) -> Pose | None:
    """Where a robot stands that looks about at one of the things, mostly at one to talk about.

    None: it would stand in something.
    """
    target = rng.choice((rng.random() < 0.7 and named(things)) or things)
    away, bearing = rng.uniform(_NEAR, FAR), rng.uniform(-math.pi, math.pi)
    x, y = target.pose.x - away * math.cos(bearing), target.pose.y - away * math.sin(bearing)
    inside = all(abs(at) < side / 2 - _MARGIN for at, side in zip((x, y), room.size))
    return Pose(x, y, yaw=bearing + rng.gauss(0, 0.2)) if inside and _free(things, x, y, _MARGIN) else None


def photographed(rng: random.Random, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The picture [height, width, 3] with another exposure and white balance, blurred, noisy, and as JPEG.

    A gamma below 1 is what a renderer makes of it that takes colours as linear light: pale. So bright that up to 40 %
    of it is white, or so dark that a good third of the light is gone; brighter, orange would be yellow.
    """
    gamma = rng.uniform(0.45, 1.0) if rng.random() < 0.4 else rng.uniform(0.9, 1.2)
    if rng.random() < 0.3:
        gain = 1 / max(0.1, float(np.quantile(image[::4, ::4], rng.uniform(0.6, 1.0))) / 255) ** gamma
    else:
        gain = rng.uniform(0.6, 1.4)
    balance = np.array([rng.uniform(0.93, 1.07) for _ in range(3)])
    levels = min(gain, 1.6) * balance * (np.arange(256)[:, None] / 255) ** gamma
    shown = cv2.LUT(image, (255 * levels).clip(0, 255).astype(np.uint8)[None])
    if rng.random() < 0.3:
        shown = cv2.GaussianBlur(shown, (0, 0), rng.uniform(0.3, 1.4))
    if rng.random() < 0.15:  # it turns meanwhile
        shown = cv2.blur(shown, (rng.randint(3, 9), 1))
    noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(image.shape, np.float32)
    noisy = (shown + rng.uniform(0, 14) * noise).clip(0, 255).astype(np.uint8)
    _, packed = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, rng.randint(30, 95)])
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
