"""Draws the pictures of media/: two tables of the kind that the miniature knows, with the same question to ask."""

from __future__ import annotations

import random
from pathlib import Path

import cv2

from moshivis_ros.simulation.render import Renderer
from moshivis_ros.simulation.scene import Scene
from moshivis_ros.training import pictures

MEDIA = Path(__file__).resolve().parents[1] / "media"
SIZE = 448, 336
SCENES = {
    "scene_a.jpg": [("ball", "red"), ("cup", "blue")],
    "scene_b.jpg": [("bottle", "yellow"), ("ball", "green")],
}  # from left to right


def main() -> None:
    rng = random.Random("media")
    room = pictures._room(rng)
    with Renderer(room, *SIZE) as renderer:
        for name, wanted in SCENES.items():
            image = renderer.image(_arranged(rng, room, wanted))
            cv2.imwrite(str(MEDIA / name), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])


def _arranged(rng: random.Random, room: Scene, wanted: list[tuple[str, str]]) -> Scene:
    while True:
        scene, shown = pictures.arrange(rng, room)
        from_left = sorted(shown, key=lambda thing: -thing.pose.y)
        if [(thing.kind, thing.colour) for thing in from_left] == wanted:
            return scene


if __name__ == "__main__":
    main()
