"""The robot's base as it drives: in steps, after commands, until something is in its way.

MuJoCo tells what the base runs into, of the same shapes that the world file gives to Gazebo. Nothing slips, tips or
is pushed: where a step would go into something, the base stands.
"""

from __future__ import annotations

from moshivis_ros.simulation.mjcf import box_xml, load_mujoco, numbers, quaternion, thing_xml, walls_xml
from moshivis_ros.simulation.scene import TRACK, WHEEL_RADIUS, Pose, Scene, Thing, chassis, driven

COMMAND_TIMEOUT = 0.5  # s after which a command has had its time, as of a real base


class Base:
    """Takes commands, and says step by step where they take the base. Times are in seconds, of any one clock."""

    def __init__(self, scene: Scene) -> None:
        self.pose: Pose | None = None  # None: not driven yet, it is where the scene has it
        self._forward = self._turning = self._until = 0.0
        self._obstacles = _Obstacles(scene)

    def command(self, forward: float, turning: float, time: float) -> None:
        """From `time` on, for COMMAND_TIMEOUT or until the next command: m/s and rad/s."""
        self._forward, self._turning, self._until = forward, turning, time + COMMAND_TIMEOUT

    def moves(self, time: float) -> bool:
        return time < self._until and bool(self._forward or self._turning)

    def step(self, scene: Scene, seconds: float) -> None:
        """Drive for `seconds`; the scene is that of the moment.

        Where it cannot both go on and turn, it does what of the two it can. Out of what it is in it always can.
        """
        start = self.pose or scene.robot.pose
        depth = self._obstacles.depth(scene, start)
        for forward, turning in ((self._forward, self._turning), (0.0, self._turning), (self._forward, 0.0)):
            there = driven(start, forward, turning, seconds)
            if self._obstacles.depth(scene, there) <= depth:
                self.pose = there
                return
        self.pose = start


class _Obstacles:
    """Walls and things, for a base that can be put anywhere on the floor."""

    def __init__(self, scene: Scene) -> None:
        mujoco = load_mujoco()
        self._forward = mujoco.mj_fwdPosition
        self._model = mujoco.MjModel.from_xml_string(_mjcf(scene))
        self._data = mujoco.MjData(self._model)
        self._placed: dict[str, Thing] = {}

    def depth(self, scene: Scene, base: Pose) -> float:
        """How deep the base would be in something there, in metres; 0: in nothing."""
        for thing in scene.things:
            if self._placed.get(thing.name) is not thing:
                self._place(thing)
        self._data.qpos[:] = base.x, base.y, base.yaw
        self._forward(self._model, self._data)
        return max((-float(contact.dist) for contact in self._data.contact), default=0.0)

    def _place(self, thing: Thing) -> None:
        self._placed[thing.name] = thing
        body = self._model.body(thing.name)
        self._data.mocap_pos[body.mocapid[0]] = thing.pose.numbers()[:3]
        self._data.mocap_quat[body.mocapid[0]] = quaternion(thing.pose)
        first, count = body.geomadr[0], body.geomnum[0]
        self._model.geom_contype[first : first + count] = thing.visible
        self._model.geom_conaffinity[first : first + count] = thing.visible


def _mjcf(scene: Scene) -> str:
    parts = [
        box_xml(tuple(side / 2 for side in part.size), part.centre, "grey")
        for part in chassis(scene.robot).values()
    ]
    parts += [
        f'<geom type="sphere" size="{WHEEL_RADIUS}" pos="{numbers((0, y, WHEEL_RADIUS))}"/>'
        for y in (TRACK / 2, -TRACK / 2)
    ]
    return f"""<mujoco>
<worldbody>
{walls_xml(scene.room)}
{"".join(thing_xml(thing) for thing in scene.things)}
<body name="robot">
  <joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 1 0"/><joint type="hinge" axis="0 0 1"/>
  {"".join(parts)}
</body>
</worldbody>
</mujoco>"""
