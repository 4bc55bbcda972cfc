"""Walls and things in MuJoCo's own format, for what draws them and for what runs into them."""

from __future__ import annotations

import ctypes.util
import math
import os
from contextlib import suppress
from typing import Any

from moshivis_ros.errors import MissingDependencyError
from moshivis_ros.simulation.scene import COLOURS, KINDS, Pose, Room, Thing

# MuJoCo's names of our shapes.
_GEOMS = {"box": "box", "ball": "ellipsoid", "cylinder": "cylinder"}


def load_mujoco() -> Any:
    """The module. Raises MissingDependencyError. Chooses an OpenGL without a screen where none is chosen."""
    if "MUJOCO_GL" not in os.environ and "DISPLAY" not in os.environ:
        os.environ["MUJOCO_GL"] = "egl" if ctypes.util.find_library("EGL") else "osmesa"
    # Software OpenGL and Triton each bring an LLVM. Triton's must be loaded first, or it ends the process when it is.
    with suppress(ImportError):
        import triton  # noqa: F401
    try:
        import mujoco
    except ImportError as error:
        raise MissingDependencyError("simulation needs MuJoCo: pip install mujoco") from error
    return mujoco


def walls_xml(room: Room) -> str:
    x, y, z = (side / 2 for side in room.size)
    sides = ((x, 0, 0.02, y), (-x, 0, 0.02, y), (0, y, x, 0.02), (0, -y, x, 0.02))
    return "".join(
        box_xml((half_x, half_y, z), (middle_x, middle_y, z), room.walls)
        for middle_x, middle_y, half_x, half_y in sides
    )


def thing_xml(thing: Thing) -> str:
    """A mocap body: it is where it is put, and pushed by nothing."""
    geoms = []
    for k, part in enumerate(KINDS[thing.kind]):
        x, y, z = (side * share / 2 for side, share in zip(thing.size, part.size))
        half = (x, z) if part.shape == "cylinder" else (x, y, z)
        centre = tuple(side * share for side, share in zip(thing.size, part.centre))
        geoms.append(
            f'<geom name="{thing.name}/{k}" type="{_GEOMS[part.shape]}" size="{numbers(half)}"'
            f' pos="{numbers(centre)}"/>'
        )
    return f'<body name="{thing.name}" mocap="true">{"".join(geoms)}</body>'


def box_xml(half: tuple[float, ...], centre: tuple[float, ...], colour: str) -> str:
    rgba = numbers((*COLOURS[colour], 1.0))
    return f'<geom type="box" size="{numbers(half)}" pos="{numbers(centre)}" rgba="{rgba}"/>'


def quaternion(pose: Pose) -> tuple[float, float, float, float]:
    (cr, sr), (cp, sp), (cy, sy) = (
        (math.cos(a / 2), math.sin(a / 2)) for a in (pose.roll, pose.pitch, pose.yaw)
    )
    return (
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    )


def numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.6g}" for value in values)
