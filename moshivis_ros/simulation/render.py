"""Pictures of a scene, and what can be seen in them, by MuJoCo without a screen.

Needs `pip install mujoco` and a software OpenGL: apt package libegl1 or libosmesa6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moshivis_ros.simulation.mjcf import box_xml, load_mujoco, numbers, quaternion, thing_xml, walls_xml
from moshivis_ros.simulation.scene import COLOURS, KINDS, Light, Part, Pose, Scene, Thing, camera_pose

_LAMPS = 4  # of every scene's lights, as many as OpenGL's fixed pipeline takes beside MuJoCo's own


@dataclass(frozen=True)
class Seen:
    """One thing in the picture.

    share: of its silhouette that is in the picture and not hidden behind something else, 0..1.
    area: of the picture that it covers, 0..1. x, y: its middle, 0..1 from the left and from the top.
    world: where its centre is on the floor plan, and size: its largest side, in metres.
    """

    name: str
    kind: str
    colour: str
    share: float
    area: float
    x: float
    y: float
    world: tuple[float, float]
    size: float


class Renderer:
    """Draws one scene at any time of its script: things may move, appear, change colour; none may be new.

    Belongs to the thread that made it. Use as a context manager, or close() it.
    """

    ambient = 0.5  # light from everywhere, as a share of the brightest lamp's

    def __init__(self, scene: Scene, width: int = 640, height: int = 480) -> None:
        mujoco = load_mujoco()
        self.width, self.height = width, height
        self._model = mujoco.MjModel.from_xml_string(_mjcf(scene, width, height))
        self._data = mujoco.MjData(self._model)
        self._renderer = mujoco.Renderer(self._model, height, width)
        self._forward = mujoco.mj_forward
        self._geoms = {thing.name: self._geoms_of(thing) for thing in scene.things}

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._renderer.close()

    def image(self, scene: Scene) -> npt.NDArray[np.uint8]:
        """What the robot's camera sees: uint8 [height, width, 3] RGB. Pass scene.at(t)."""
        self._place(scene)
        self._renderer.disable_segmentation_rendering()
        self._renderer.update_scene(self._data, "camera")
        return np.array(self._renderer.render())

    def owners(self, scene: Scene, things: Sequence[Thing]) -> npt.NDArray[np.int16]:
        """Which of ``things`` each pixel shows: [height, width] index, -1 elsewhere. Pass scene.at(t)."""
        self._place(scene)
        self._renderer.enable_segmentation_rendering()
        self._renderer.update_scene(self._data, "camera")
        ids = np.array(self._renderer.render())[:, :, 0]  # geom ids, -1: background
        table = np.full(self._model.ngeom + 1, -1, np.int16)
        for k, thing in enumerate(things):
            table[self._geoms[thing.name]] = k
        owners: npt.NDArray[np.int16] = table[ids]
        return owners

    def seen(self, scene: Scene) -> tuple[Seen, ...]:
        """The things in the picture, the largest first. Pass scene.at(t)."""
        things = [thing for thing in scene.things if thing.visible]
        owners = self.owners(scene, things)
        found = []
        for k, thing in enumerate(things):
            rows, columns = np.nonzero(owners == k)
            if pixels := len(rows):
                found.append(
                    Seen(
                        thing.name,
                        thing.kind,
                        thing.colour,
                        share=pixels / max(pixels, self.silhouette(scene, thing)),
                        area=pixels / owners.size,
                        x=float(columns.mean() + 0.5) / self.width,
                        y=float(rows.mean() + 0.5) / self.height,
                        world=(thing.pose.x, thing.pose.y),
                        size=max(thing.size),
                    )
                )
        return tuple(sorted(found, key=lambda seen: -seen.area))

    def _geoms_of(self, thing: Thing) -> list[int]:
        return [self._model.geom(f"{thing.name}/{k}").id for k in range(len(KINDS[thing.kind]))]

    def _place(self, scene: Scene) -> None:
        for thing in scene.things:
            body = self._model.body(thing.name).mocapid[0]
            self._data.mocap_pos[body] = thing.pose.numbers()[:3]
            self._data.mocap_quat[body] = quaternion(thing.pose)
            for geom, part in zip(self._geoms[thing.name], KINDS[thing.kind]):
                self._model.geom_rgba[geom] = (*COLOURS[part.colour or thing.colour], float(thing.visible))
        for light in scene.lights[:_LAMPS]:
            self._model.light(light.name).diffuse = light.brightness
            self._model.light(light.name).active = light.brightness > 0
        lamps = [light.brightness for light in scene.lights]
        self._model.vis.headlight.ambient[:] = self.ambient * max(lamps, default=0.0)
        eye = camera_pose(scene.robot)
        body = self._model.body("robot").mocapid[0]
        self._data.mocap_pos[body] = eye.numbers()[:3]
        self._data.mocap_quat[body] = quaternion(eye)
        self._forward(self._model, self._data)

    def silhouette(self, scene: Scene, thing: Thing) -> int:
        """Pixels it would cover if nothing hid it and the picture were three times as wide and high."""
        import cv2

        eye = camera_pose(scene.robot)
        focal = self.width / 2 / math.tan(scene.robot.field_of_view / 2)
        rotation = _rotation(eye)
        canvas = np.zeros((3 * self.height, 3 * self.width), np.uint8)
        for part in KINDS[thing.kind]:
            points = (_surface(part) * thing.size) @ _rotation(thing.pose).T + thing.pose.numbers()[:3]
            ahead, left, up = ((points - eye.numbers()[:3]) @ rotation).T
            if (ahead < 0.05).any():
                continue
            pixels = np.stack(
                [1.5 * self.width - focal * left / ahead, 1.5 * self.height - focal * up / ahead], 1
            )
            cv2.fillConvexPoly(canvas, cv2.convexHull(pixels.astype(np.int32)), 1)
        return int(np.count_nonzero(canvas))


def _surface(part: Part) -> npt.NDArray[np.float64]:
    """Points [n, 3] whose convex hull is the part, in shares of the thing's size."""
    turn = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1) / 2
    if part.shape == "box":
        corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    elif part.shape == "cylinder":
        corners = np.concatenate([np.insert(circle, 2, z, axis=1) for z in (-0.5, 0.5)])
    else:
        rings = np.linspace(-math.pi / 2, math.pi / 2, 11)
        corners = np.concatenate([np.insert(circle * math.cos(r), 2, math.sin(r) / 2, axis=1) for r in rings])
    return corners * part.size + part.centre


def _rotation(pose: Pose) -> npt.NDArray[np.float64]:
    """Columns: the pose's x, y, z axes in the world (yaw, then pitch, then roll, as in SDF)."""
    (cr, sr), (cp, sp), (cy, sy) = ((math.cos(a), math.sin(a)) for a in (pose.roll, pose.pitch, pose.yaw))
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def _mjcf(scene: Scene, width: int, height: int) -> str:
    """The scene in MuJoCo's own format; everything that may move is a mocap body."""
    vertical = 2 * math.atan(math.tan(scene.robot.field_of_view / 2) * height / width)
    room_x, room_y, _ = (side / 2 for side in scene.room.size)
    bodies = [
        box_xml((room_x, room_y, 0.02), (0, 0, -0.02), scene.room.floor),
        walls_xml(scene.room),
        # MuJoCo's cameras look along -z with y up: turn ours to look along x with z up.
        f'<body name="robot" mocap="true"><camera name="camera" fovy="{math.degrees(vertical):.6g}"'
        ' xyaxes="0 -1 0 0 0 1"/></body>',
        *(_lamp_xml(light) for light in scene.lights[:_LAMPS]),
        *(thing_xml(thing) for thing in scene.things),
    ]
    return f"""<mujoco>
<visual>
  <global offwidth="{width}" offheight="{height}"/>
  <quality shadowsize="2048" offsamples="4"/>
  <headlight diffuse="0 0 0" specular="0 0 0"/>
  <map znear="0.02" zfar="20"/>
</visual>
<default><geom contype="0" conaffinity="0"/></default>
<worldbody>
{chr(10).join(bodies)}
</worldbody>
</mujoco>"""


def _lamp_xml(light: Light) -> str:
    return (
        f'<light name="{light.name}" pos="{numbers((light.x, light.y, light.z))}" dir="0 0 -1" cutoff="85"'
        ' exponent="0.5" ambient="0 0 0" specular="0.1 0.1 0.1"/>'
    )
