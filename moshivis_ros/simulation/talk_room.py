"""The room of the demos and scenarios: a table with things on it to talk about.

`python -m moshivis_ros.simulation.talk_room` writes worlds/talk_room.sdf, and with --media the pictures of
media/, into the current folder.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from moshivis_ros.simulation.scene import Light, Pose, Room, Scene, Thing
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

_SECOND_VIEW = replace(
    TALK_ROOM,
    name="second_view",
    things=(
        _TABLE,
        _on_table("green", "box", (0.2, 0.2, 0.3), 0.05, 0.4),
        _on_table("yellow", "ball", (0.26, 0.26, 0.26), -0.1, 0.0),
        _on_table("pink", "cylinder", (0.18, 0.18, 0.24), 0.0, -0.42),
        Thing("person", "person", "blue", (0.4, 0.5, 1.75), Pose(1.7, -0.9, 0.875)),
        Thing("shelf", "box", "white", (0.4, 1.2, 1.6), Pose(2.7, 1.2, 0.8)),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="talk_room", description=__doc__)
    parser.add_argument("--media", action="store_true", help="also draw media/scene_a.jpg and scene_b.jpg")
    Path("worlds").mkdir(exist_ok=True)
    write_sdf(TALK_ROOM, Path("worlds/talk_room.sdf"))
    if parser.parse_args().media:
        _draw(TALK_ROOM, Path("media/scene_a.jpg"))
        _draw(_SECOND_VIEW, Path("media/scene_b.jpg"))


def _draw(scene: Scene, path: Path) -> None:
    import cv2

    from moshivis_ros.simulation.render import Renderer

    with Renderer(scene) as renderer:
        image = renderer.image(scene)
    cv2.imwrite(str(path), image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])


if __name__ == "__main__":
    main()
