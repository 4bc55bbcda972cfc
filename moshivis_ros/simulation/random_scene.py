"""Rooms and scripts drawn at random: no two seeds look alike, and the same seed always looks the same."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

from moshivis_ros.simulation.scene import Change, Light, Pose, Robot, Room, Scene, Thing

TABLE_HEIGHT = 0.72
# kind: range of the (largest) width and of the height, in metres
_ON_TABLE = {
    "box": ((0.14, 0.26), (0.14, 0.30)),
    "ball": ((0.16, 0.28), (0.16, 0.28)),
    "cylinder": ((0.14, 0.22), (0.14, 0.30)),
    "bottle": ((0.11, 0.15), (0.30, 0.42)),
    "cup": ((0.13, 0.18), (0.14, 0.20)),
}
_IN_ROOM = {
    "plant": (0.6, 0.6, 1.2),
    "chair": (0.5, 0.5, 0.95),
    "box": (0.4, 0.5, 1.0),
    "cylinder": (0.4, 0.4, 0.6),
    "ball": (0.5, 0.5, 0.5),
}
_TALKED_ABOUT = ("red", "green", "blue", "yellow", "orange", "purple", "white", "black", "pink")
_PLACES = [(x, y) for x in (-0.2, 0.2) for y in (-0.6, -0.3, 0.0, 0.3, 0.6)]  # on the table, 0.3 m apart


def random_scene(seed: int, things: int | None = None) -> Scene:
    """A room with a table, `things` different things on it (3 to 5 if None) and furniture all around."""
    rng = random.Random(f"scene {seed}")
    looks = [(kind, colour) for kind in _ON_TABLE for colour in _TALKED_ABOUT]
    rng.shuffle(looks)
    places = rng.sample(_PLACES, things or rng.randint(3, 5))
    table = Thing("table", "table", "brown", (0.9, 1.6, TABLE_HEIGHT), Pose(z=TABLE_HEIGHT / 2))
    placed = [_on_table(rng, *look, place) for look, place in zip(looks, places)]
    furniture = []
    for k in range(10):
        angle = math.radians(-155 + 34 * k + rng.uniform(-9, 9))
        kind = rng.choice(list(_IN_ROOM))
        colour = rng.choice(_TALKED_ABOUT)
        away = rng.uniform(2.0, 2.4)
        size = _IN_ROOM[kind]
        # Around the robot, not the room: wherever it turns there is something to see.
        pose = Pose(-1.7 + away * math.cos(angle), away * math.sin(angle), size[2] / 2, yaw=angle)
        if abs(angle) > 0.55:
            furniture.append(Thing(f"{colour} {kind} {k}", kind, colour, size, pose))
    back = Thing("shelf", "box", rng.choice(("white", "brown", "grey")), (0.4, 1.2, rng.uniform(1.1, 1.7)))
    back = replace(back, pose=Pose(2.2, rng.uniform(-1.0, 1.0), back.size[2] / 2))
    lights = (
        Light("lamp", rng.uniform(-0.5, 0.5), rng.uniform(-1, 1), 2.4, rng.uniform(0.45, 0.65)),
        Light("window", rng.uniform(-2.5, -1), rng.choice((-2, 2)), 2.2, rng.uniform(0.2, 0.4)),
    )
    robot = Robot(Pose(-1.7 + rng.uniform(-0.15, 0.1), rng.uniform(-0.2, 0.2), yaw=rng.uniform(-0.08, 0.08)))
    room = Room((8.4, 6.0, 2.6), rng.choice(("grey", "brown", "grey")), rng.choice(("white", "skin", "grey")))
    return Scene(f"random {seed}", (table, *placed, *furniture, back), lights, room, robot)


def random_script(scene: Scene, seed: int, seconds: float, events: int) -> Scene:
    """The scene with `events` events, at least 2 s apart, that change what there is to see."""
    rng = random.Random(f"script {seed}")
    times = _spread(rng, events, seconds)
    for time in times:
        draw = rng.choices(list(_EVENTS), weights=list(_EVENTS.values()))[0]
        scene = draw(rng, scene, time)
    return scene


def _spread(
    rng: random.Random, count: int, seconds: float, apart: float = 2.0, start: float = 1.5
) -> list[float]:
    slack = max(0.0, seconds - start - apart * count)
    gaps = sorted(rng.uniform(0, slack) for _ in range(count))
    return [round(start + gap + apart * k, 2) for k, gap in enumerate(gaps)]


def _on_table(rng: random.Random, kind: str, colour: str, place: tuple[float, float]) -> Thing:
    widths, heights = _ON_TABLE[kind]
    width, height = rng.uniform(*widths), rng.uniform(*heights)
    height = width if kind == "ball" else height
    x, y = (value + rng.uniform(-0.04, 0.04) for value in place)
    pose = Pose(x, y, TABLE_HEIGHT + height / 2, yaw=rng.uniform(-0.6, 0.6))
    return Thing(f"{colour} {kind}", kind, colour, (width, width, height), pose)


def _small(scene: Scene, time: float) -> list[Thing]:
    now = scene.at(time)
    return [
        thing for thing in now.things if thing.visible and thing.kind in _ON_TABLE and thing.size[0] < 0.4
    ]


def _free_place(rng: random.Random, scene: Scene, time: float) -> tuple[float, float]:
    taken = [(thing.pose.x, thing.pose.y) for thing in _small(scene, time)]
    places = rng.sample(_PLACES, len(_PLACES))
    return max(places, key=lambda p: min((math.dist(p, t) for t in taken), default=9.0))


def _more(scene: Scene, *changes: Change, thing: Thing | None = None) -> Scene:
    things = (*scene.things, thing) if thing else scene.things
    return replace(scene, things=things, changes=(*scene.changes, *changes))


def _appear(rng: random.Random, scene: Scene, time: float) -> Scene:
    names = {thing.name for thing in scene.things}
    looks = [(k, c) for k in _ON_TABLE for c in _TALKED_ABOUT if f"{c} {k}" not in names]
    thing = _on_table(rng, *rng.choice(looks), _free_place(rng, scene, time))
    thing = replace(thing, visible=False)
    return _more(scene, Change(time, thing.name, "visible", True), thing=thing)


def _vanish(rng: random.Random, scene: Scene, time: float) -> Scene:
    things = _small(scene, time)
    if not things:
        return _appear(rng, scene, time)
    return _more(scene, Change(time, rng.choice(things).name, "visible", False))


def _move(rng: random.Random, scene: Scene, time: float) -> Scene:
    things = _small(scene, time)
    if not things:
        return _appear(rng, scene, time)
    thing = rng.choice(things)
    far = [p for p in _PLACES if abs(p[1] - thing.pose.y) > 1.3 * max(thing.size)]
    taken = [(t.pose.x, t.pose.y) for t in things if t.name != thing.name]
    x, y = max(far, key=lambda p: min((math.dist(p, t) for t in taken), default=9.0) + rng.uniform(0, 0.1))
    to = replace(thing.pose, x=x, y=y)
    return _more(scene, Change(time, thing.name, "pose", to, duration=rng.choice((0.0, 0.5, 1.0))))


def _repaint(rng: random.Random, scene: Scene, time: float) -> Scene:
    things = _small(scene, time)
    if not things:
        return _appear(rng, scene, time)
    thing = rng.choice(things)
    colour = rng.choice([colour for colour in _TALKED_ABOUT if colour != thing.colour])
    return _more(scene, Change(time, thing.name, "colour", colour))


def _turn(rng: random.Random, scene: Scene, time: float) -> Scene:
    """There if the robot looks at the table, back to the table if it does not."""
    pose = scene.at(time).robot.pose
    angle = rng.choice((-1, 1)) * math.radians(rng.uniform(35, 75))
    to = replace(pose, yaw=angle if abs(pose.yaw) < 0.3 else rng.uniform(-0.08, 0.08))
    return _more(scene, Change(time, "robot", "pose", to, duration=rng.uniform(1.0, 1.9)))


def _cut(rng: random.Random, scene: Scene, time: float) -> Scene:
    """As a turn, but from one frame to the next: another camera, or a robot carried elsewhere."""
    turned = _turn(rng, scene, time)
    return replace(scene, changes=(*scene.changes, replace(turned.changes[-1], duration=0.0)))


def _visitor(rng: random.Random, scene: Scene, time: float) -> Scene:
    """A person walks in between robot and table, stands there for a while or not, and leaves."""
    robot = scene.at(time).robot.pose
    side = rng.choice((-1, 1))
    ahead, aside = rng.uniform(1.0, 1.3), (-1.6 * side, 0.0, 1.6 * side)
    spots = [
        Pose(
            robot.x + ahead * math.cos(robot.yaw) - y * math.sin(robot.yaw),
            robot.y + ahead * math.sin(robot.yaw) + y * math.cos(robot.yaw),
            0.875,
        )
        for y in aside
    ]
    name = f"visitor {time}"
    person = Thing(name, "person", rng.choice(_TALKED_ABOUT), (0.35, 0.5, 1.75), spots[0], visible=False)
    stay = rng.choice((0.0, 1.5))
    step = rng.uniform(1.2, 1.8)
    return _more(
        scene,
        Change(time - 0.3, name, "visible", True),
        Change(time, name, "pose", spots[1], duration=step),
        Change(time + step + stay, name, "pose", spots[2], duration=step),
        thing=person,
    )


_EVENTS: dict[Callable[[random.Random, Scene, float], Scene], float] = {
    _appear: 5,
    _vanish: 4,
    _move: 4,
    _repaint: 3,
    _turn: 3,
    _cut: 2,
    _visitor: 2,
}
