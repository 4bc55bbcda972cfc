"""The rooms of the demos and scenarios: a table with things on it to talk about.

`python -m moshivis_ros.simulation.talk_room` writes them into the folder worlds of the current folder.
"""

from __future__ import annotations

import math
from pathlib import Path

from moshivis_ros.simulation.scene import Light, Pose, Robot, Room, Scene, Thing
from moshivis_ros.simulation.sdf import write_sdf

_HEIGHT = 0.72  # of the table


def _on_table(colour: str, kind: str, size: tuple[float, float, float], x: float, y: float) -> Thing:
    return Thing(f"{colour} {kind}", kind, colour, size, Pose(x, y, _HEIGHT + size[2] / 2))


_TABLE = Thing("table", "table", "brown", (0.8, 1.5, _HEIGHT), Pose(z=_HEIGHT / 2))
_LIGHTS = (Light("lamp", 0.0, 0.0, 2.4, 0.6), Light("window", -1.5, 2.0, 2.0, 0.35))
_ROOM = Room((6.0, 6.0, 2.6), floor="grey", walls="white")

TALK_ROOM = Scene(
    "talk_room",
    things=(
        _TABLE,
        _on_table("red", "ball", (0.2, 0.2, 0.2), -0.1, 0.38),
        _on_table("blue", "box", (0.22, 0.22, 0.22), 0.0, -0.1),
        _on_table("green", "bottle", (0.11, 0.11, 0.36), 0.1, -0.5),
        _on_table("yellow", "cup", (0.12, 0.12, 0.14), -0.2, 0.1),
        Thing("plant", "plant", "green", (0.6, 0.6, 1.1), Pose(2.2, 1.2, 0.55)),
        Thing("chair", "chair", "orange", (0.5, 0.5, 0.95), Pose(1.4, -1.3, 0.475)),
        Thing("pink chair", "chair", "pink", (0.5, 0.5, 0.95), Pose(-1.2, 2.2, 0.475, yaw=1.57)),
        Thing("purple cylinder", "cylinder", "purple", (0.5, 0.5, 0.7), Pose(-1.6, -2.2, 0.35)),
    ),
    lights=_LIGHTS,
    room=_ROOM,
)

# As near and as plain as the pictures that the builtin miniature has learned from (training/pictures.py).
TABLE_ROOM = Scene(
    "table_room",
    things=(
        Thing("table", "table", "brown", (0.9, 1.6, _HEIGHT), Pose(z=_HEIGHT / 2)),
        _on_table("red", "ball", (0.24, 0.24, 0.24), 0.0, 0.4),
        _on_table("blue", "cup", (0.2, 0.2, 0.21), 0.0, -0.38),
    ),
    lights=(Light("lamp", 0.0, 0.0, 2.4, 0.55), Light("window", -1.8, 2.0, 2.2, 0.28)),
    room=Room((8.4, 6.0, 2.6), floor="grey", walls="white"),
    robot=Robot(Pose(x=-1.42), mast=1.22, tilt=0.31),
)

# The same, and another table to the robot's left: who turns there sees other things (`make drive`).
TWO_TABLES = Scene(
    "two_tables",
    things=(
        *TABLE_ROOM.things,
        Thing("left table", "table", "brown", (0.9, 1.6, _HEIGHT), Pose(-1.42, 1.42, _HEIGHT / 2, yaw=math.pi / 2)),
        Thing("green bottle", "bottle", "green", (0.15, 0.15, 0.42), Pose(-1.42, 1.42, _HEIGHT + 0.21)),
    ),
    lights=(*TABLE_ROOM.lights, Light("left lamp", -1.42, 1.42, 2.4, 0.55)),
    room=Room((8.4, 11.2, 2.6), floor="grey", walls="white"),
    robot=TABLE_ROOM.robot,
)


def main() -> None:
    for room in (TALK_ROOM, TABLE_ROOM, TWO_TABLES):
        write_sdf(room, Path("worlds") / f"{room.name}.sdf")


if __name__ == "__main__":
    main()
