"""A scene as data: a room, lights, things with a kind and a colour, a camera robot, and what changes when.

Lengths in metres, angles in radians, times in seconds; x forward, y left, z up, as in ROS (REP 103). A Scene
is immutable; `scene.at(t)` is the scene as its script has left it at time t. Renderer, SDF writer, study and
tests all read this one description.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from moshivis_ros.errors import ConfigError

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.08, 0.06),
    "green": (0.10, 0.55, 0.12),
    "blue": (0.08, 0.18, 0.75),
    "yellow": (0.90, 0.78, 0.08),
    "orange": (0.92, 0.42, 0.04),
    "purple": (0.45, 0.12, 0.58),
    "white": (0.90, 0.90, 0.88),
    "black": (0.06, 0.06, 0.07),
    "grey": (0.50, 0.50, 0.50),
    "brown": (0.42, 0.26, 0.13),
    "pink": (0.92, 0.50, 0.62),
    "skin": (0.80, 0.60, 0.48),
}


@dataclass(frozen=True)
class Part:
    """One primitive of a kind of thing, in the unit cube around the thing's centre.

    shape: box, ball (an ellipsoid unless the thing is as wide as high) or cylinder (upright).
    size, centre: (x, y, z) as shares of the thing's size. colour: None takes the thing's own.
    """

    shape: str
    size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    colour: str | None = None


def _legs(height: float) -> tuple[Part, ...]:
    low = -0.5 + height / 2
    return tuple(Part("box", (0.06, 0.06, height), (x, y, low)) for x in (-0.44, 0.44) for y in (-0.44, 0.44))


KINDS: dict[str, tuple[Part, ...]] = {
    "box": (Part("box"),),
    "ball": (Part("ball"),),
    "cylinder": (Part("cylinder"),),
    "bottle": (
        Part("cylinder", (1.0, 1.0, 0.65), (0.0, 0.0, -0.175)),
        Part("cylinder", (0.35, 0.35, 0.35), (0.0, 0.0, 0.325)),
    ),
    "cup": (
        Part("cylinder", (0.8, 0.8, 1.0)),
        Part("box", (0.15, 0.4, 0.5), (0.0, -0.4, 0.0)),
    ),
    "table": (Part("box", (1.0, 1.0, 0.06), (0.0, 0.0, 0.47)), *_legs(0.94)),
    "chair": (
        Part("box", (1.0, 1.0, 0.06), (0.0, 0.0, 0.0)),
        Part("box", (0.08, 1.0, 0.5), (0.46, 0.0, 0.25)),
        *_legs(0.5),
    ),
    "plant": (
        Part("cylinder", (0.5, 0.5, 0.35), (0.0, 0.0, -0.325), "brown"),
        Part("ball", (1.0, 1.0, 0.7), (0.0, 0.0, 0.15)),
    ),
    "robot": (
        Part("box", (1.0, 1.0, 0.24), (0.0, 0.0, -0.38), "black"),
        Part("box", (0.75, 0.75, 0.4), (0.0, 0.0, -0.06)),
        Part("box", (0.5, 0.95, 0.28), (0.0, 0.0, 0.28)),
        Part("box", (0.1, 0.7, 0.12), (-0.25, 0.0, 0.28), "white"),
        Part("cylinder", (0.08, 0.08, 0.1), (0.0, 0.0, 0.45), "black"),
    ),
    "person": (
        Part("cylinder", (0.55, 0.55, 0.45), (0.0, 0.0, -0.275), "black"),
        Part("cylinder", (0.8, 1.0, 0.38), (0.0, 0.0, 0.14)),
        Part("ball", (0.5, 0.45, 0.15), (0.0, 0.0, 0.425), "skin"),
    ),
}


@dataclass(frozen=True)
class Pose:
    """Position and roll, pitch, yaw, as in SDF."""

    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    roll: float = 0.0
    pitch: float = 0.0
    yaw: float = 0.0

    def numbers(self) -> tuple[float, float, float, float, float, float]:
        return (self.x, self.y, self.z, self.roll, self.pitch, self.yaw)


@dataclass(frozen=True)
class Thing:
    """Something to talk about. pose: of its centre; size: (x, y, z) of the box around it."""

    name: str
    kind: str
    colour: str
    size: tuple[float, float, float]
    pose: Pose = Pose()
    visible: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"{self.name}: unknown kind {self.kind!r}; known are {', '.join(KINDS)}")
        if self.colour not in COLOURS:
            raise ConfigError(f"{self.name}: unknown colour {self.colour!r}; known are {', '.join(COLOURS)}")
        if not all(side > 0 for side in self.size):
            raise ConfigError(f"{self.name}: every side of size {self.size} must be above 0")


@dataclass(frozen=True)
class Room:
    """A floor and four walls around the origin. size: (x, y, z)."""

    size: tuple[float, float, float] = (6.0, 6.0, 2.6)
    floor: str = "grey"
    walls: str = "white"


@dataclass(frozen=True)
class Light:
    """A lamp that shines in all directions. brightness: 0..1."""

    name: str
    x: float = 0.0
    y: float = 0.0
    z: float = 2.4
    brightness: float = 0.7


WHEEL_RADIUS, TRACK = 0.1, 0.36  # of the two driven wheels, and between their middles, metres


@dataclass(frozen=True)
class Robot:
    """A differential drive with a camera on a mast.

    pose: of the base on the floor; mast: height of the camera above it; tilt: of the camera, downwards
    positive; field_of_view: horizontal.
    """

    pose: Pose = Pose(x=-1.7)
    mast: float = 1.15
    tilt: float = 0.22
    field_of_view: float = 1.05


@dataclass(frozen=True)
class Change:
    """At `time`, attribute `what` of `who` (a thing, a light or `robot`) becomes `to`.

    With a duration, numbers and poses go there in a straight line from `time` to `time + duration`.
    """

    time: float
    who: str
    what: str
    to: Any
    duration: float = 0.0


@dataclass(frozen=True)
class Scene:
    name: str
    things: tuple[Thing, ...] = ()
    lights: tuple[Light, ...] = (Light("lamp"),)
    room: Room = Room()
    robot: Robot = Robot()
    changes: tuple[Change, ...] = ()

    def __post_init__(self) -> None:
        names = [part.name for part in self._named()]
        twice = {name for name in names if names.count(name) > 1 or name == "robot"}
        if twice:
            raise ConfigError(f"scene {self.name}: names must be unique and not 'robot': {', '.join(twice)}")
        for change in self.changes:
            owner = self._find(change.who)
            if change.what not in {entry.name for entry in fields(owner)} - {"name", "kind", "size"}:
                raise ConfigError(f"scene {self.name}: {change.what!r} of {change.who} cannot be changed")

    def _named(self) -> tuple[Thing | Light, ...]:
        return (*self.things, *self.lights)

    def _find(self, who: str) -> Thing | Light | Robot:
        if who == "robot":
            return self.robot
        for part in self._named():
            if part.name == who:
                return part
        raise ConfigError(f"scene {self.name}: nothing is called {who!r}")

    def at(self, time: float) -> Scene:
        """The scene at this time, without a script of its own."""
        scene = replace(self, changes=())
        for change in sorted(self.changes, key=lambda change: change.time):
            if change.time > time:
                break
            done = 1.0 if change.duration <= 0 else min(1.0, (time - change.time) / change.duration)
            owner = scene._find(change.who)
            value = _between(getattr(owner, change.what), change.to, done)
            scene = scene._with(change.who, replace(owner, **{change.what: value}))
        return scene

    def with_robot_at(self, pose: Pose) -> Scene:
        """The scene with the robot's base somewhere else."""
        return replace(self, robot=replace(self.robot, pose=pose))

    def _with(self, who: str, part: Any) -> Scene:
        if who == "robot":
            return replace(self, robot=part)
        return replace(
            self,
            things=tuple(part if thing.name == who else thing for thing in self.things),
            lights=tuple(part if light.name == who else light for light in self.lights),
        )


def _between(start: Any, end: Any, share: float) -> Any:
    if share >= 1.0:
        return end
    if isinstance(start, Pose):
        return Pose(*(a + share * (b - a) for a, b in zip(start.numbers(), end.numbers())))
    if isinstance(start, (int, float)) and not isinstance(start, bool):
        return start + share * (end - start)
    return end


def camera_pose(robot: Robot) -> Pose:
    """Where the robot's camera is in the world (x axis: the direction it looks)."""
    base = robot.pose
    return Pose(base.x, base.y, base.z + robot.mast, 0.0, robot.tilt, base.yaw)


def chassis(robot: Robot) -> dict[str, Part]:
    """What the base carries, beside its wheels: sizes and centres in metres, as seen from the middle of the axle."""
    mast = robot.mast - 0.25
    return {
        "body": Part("box", (0.4, 0.28, 0.15), (0, 0, 0.14), "grey"),
        "mast": Part("box", (0.04, 0.04, mast), (-0.1, 0, 0.215 + mast / 2), "grey"),
    }


def driven(pose: Pose, forward: float, turning: float, seconds: float) -> Pose:
    """The base after `seconds` at `forward` m/s and `turning` rad/s (unicycle model, midpoint heading)."""
    heading = pose.yaw + turning * seconds / 2
    return replace(
        pose,
        x=pose.x + forward * seconds * math.cos(heading),
        y=pose.y + forward * seconds * math.sin(heading),
        yaw=pose.yaw + turning * seconds,
    )
