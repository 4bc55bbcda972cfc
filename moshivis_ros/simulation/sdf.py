"""A scene as an SDF 1.9 world for Gazebo Harmonic and later, and back.

Every model carries one `moshivis:` element with what its geometry does not say (kind, colour name, size).
Poses are read from the ordinary SDF elements, so a world whose things were moved by hand reads back as it is.
The script of a scene is not part of the world.

Colours and lamps are written so that Gazebo's ogre2 shows what our renderer shows. It takes them as linear light and
raises what comes out to 1/2.2. Only the first lamp throws shadows: a spot as wide as our renderer's would stripe the
walls with them, so that it is a point lamp; the others, without shadows, are such spots.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from moshivis_ros.errors import ConfigError
from moshivis_ros.simulation.scene import (
    COLOURS,
    KINDS,
    TRACK,
    WHEEL_RADIUS,
    Light,
    Part,
    Pose,
    Robot,
    Room,
    Scene,
    Thing,
    chassis,
)

NAMESPACE = "https://github.com/moshivis_ros"
STEP = 0.004  # s of simulated time, after each of which Gazebo publishes its clock
ODOM_FRAME, BASE_FRAME, CAMERA_FRAME = "odom", "base_link", "camera_optical_frame"
CAMERA_SIZE = (640, 480)  # pixels
CAMERA_RATE = 15.0  # Hz
_GAMMA = 2.2
_AMBIENT, _INTENSITY = 0.28, 0.42  # of the brightest lamp, and of every lamp: what comes nearest in five rooms
_PLUGINS = ("physics", "user-commands", "scene-broadcaster", "sensors")
_TAG = f"{{{NAMESPACE}}}"


def write_sdf(scene: Scene, path: Path) -> None:
    """Write the scene as it is at time 0."""
    path.write_text(to_sdf(scene.at(0.0)))


def read_sdf(path: Path) -> Scene:
    """The scene of a world written by write_sdf. Raises ConfigError on anything else."""
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise ConfigError(f"{path} is no readable SDF world: {error}") from error
    world = root.find("world")
    about = None if world is None else world.find(f"{_TAG}room")
    if world is None or about is None:
        raise ConfigError(f"{path} holds no moshivis:room: only worlds written by this package can be read")
    return Scene(
        name=world.get("name", ""),
        things=tuple(
            _thing(model) for model in world.findall("model") if model.find(f"{_TAG}thing") is not None
        ),
        lights=tuple(_light(light) for light in world.findall("light")),
        room=Room(_three(about.get("size")), str(about.get("floor")), str(about.get("walls"))),
        robot=_robot(world),
    )


def to_sdf(scene: Scene) -> str:
    ambient = _AMBIENT * max((light.brightness for light in scene.lights), default=0.0)
    lines = [
        '<?xml version="1.0"?>',
        f'<sdf version="1.9" xmlns:moshivis="{NAMESPACE}">',
        f'<world name="{scene.name}">',
        f'  <moshivis:room size="{_numbers(scene.room.size)}" floor="{scene.room.floor}"'
        f' walls="{scene.room.walls}"/>',
        f'  <physics name="default" type="ode"><max_step_size>{STEP}</max_step_size>'
        "<real_time_factor>1</real_time_factor></physics>",
        *(_plugin(name) for name in _PLUGINS),
        f"  <scene><ambient>{_numbers((ambient,) * 3)} 1</ambient><background>0.8 0.8 0.8 1</background></scene>",
        *(_light_xml(light, shadows=light is scene.lights[0]) for light in scene.lights),
        _room_xml(scene.room),
        *(_thing_xml(thing) for thing in scene.things if thing.visible),
        _robot_xml(scene.robot),
        "</world>",
        "</sdf>",
    ]
    return "\n".join(lines) + "\n"


def _plugin(name: str) -> str:
    system = "".join(word.capitalize() for word in name.split("-"))
    inside = "<render_engine>ogre2</render_engine>" if name == "sensors" else ""
    return f'  <plugin filename="gz-sim-{name}-system" name="gz::sim::systems::{system}">{inside}</plugin>'


def _light_xml(light: Light, shadows: bool) -> str:
    shine = _numbers((light.brightness,) * 3)
    down = """
    <direction>0 0 -1</direction>
    <spot><inner_angle>0.01</inner_angle><outer_angle>2.967</outer_angle><falloff>0.5</falloff></spot>"""
    return f"""  <light name="{light.name}" type="{"point" if shadows else "spot"}">
    <pose>{_numbers((light.x, light.y, light.z, 0, 0, 0))}</pose>
    <intensity>{_INTENSITY}</intensity>
    <diffuse>{shine} 1</diffuse>
    <specular>0.1 0.1 0.1 1</specular>
    <attenuation><range>20</range><constant>1</constant><linear>0</linear><quadratic>0</quadratic></attenuation>
    <cast_shadows>{str(shadows).lower()}</cast_shadows>{"" if shadows else down}
  </light>"""


def _room_xml(room: Room) -> str:
    x, y, z = room.size
    parts = [
        _box("floor", (x, y, 0.04), (0, 0, -0.02), room.floor),
        _box("wall_front", (0.04, y, z), (x / 2, 0, z / 2), room.walls),
        _box("wall_back", (0.04, y, z), (-x / 2, 0, z / 2), room.walls),
        _box("wall_left", (x, 0.04, z), (0, y / 2, z / 2), room.walls),
        _box("wall_right", (x, 0.04, z), (0, -y / 2, z / 2), room.walls),
    ]
    return _model("room", Pose(), "", parts)


def _thing_xml(thing: Thing) -> str:
    about = (
        f'    <moshivis:thing kind="{thing.kind}" colour="{thing.colour}" size="{_numbers(thing.size)}"/>\n'
    )
    parts = []
    for k, part in enumerate(KINDS[thing.kind]):
        centre = tuple(side * share for side, share in zip(thing.size, part.centre, strict=True))
        size = tuple(side * share for side, share in zip(thing.size, part.size, strict=True))
        parts.append(_solid(f"part{k}", _geometry(part, size), centre, part.colour or thing.colour))
    return _model(thing.name, thing.pose, about, parts)


def _model(name: str, pose: Pose, about: str, parts: list[str]) -> str:
    return (
        f'  <model name="{name}">\n{about}    <static>true</static>\n'
        f"    <pose>{_numbers(pose.numbers())}</pose>\n"
        f'    <link name="link">\n{"".join(parts)}    </link>\n  </model>'
    )


def _box(name: str, size: tuple[float, ...], centre: tuple[float, ...], colour: str) -> str:
    return _solid(name, f"<box><size>{_numbers(size)}</size></box>", centre, colour)


def _geometry(part: Part, size: tuple[float, ...]) -> str:
    if part.shape == "box":
        return f"<box><size>{_numbers(size)}</size></box>"
    if part.shape == "cylinder":
        return _cylinder(size[0] / 2, size[2])
    return f"<ellipsoid><radii>{_numbers(tuple(side / 2 for side in size))}</radii></ellipsoid>"


def _cylinder(radius: float, length: float) -> str:
    return (
        f"<cylinder><radius>{_numbers((radius,))}</radius><length>{_numbers((length,))}</length></cylinder>"
    )


def _solid(name: str, geometry: str, centre: tuple[float, ...], colour: str) -> str:
    shape = f"<pose>{_numbers(centre)} 0 0 0</pose><geometry>{geometry}</geometry>"
    return f'      <collision name="{name}_collision">{shape}</collision>\n{_visual(name, shape, colour)}'


def _visual(name: str, shape: str, colour: str) -> str:
    rgba = f"{_numbers(tuple(part**_GAMMA for part in COLOURS[colour]))} 1"
    return (
        f'      <visual name="{name}">{shape}'
        f"<material><ambient>{rgba}</ambient><diffuse>{rgba}</diffuse></material></visual>\n"
    )


def _robot_xml(robot: Robot) -> str:
    """Two driven wheels, two sliding balls, a mast, a camera. Masses in kg, inertias about right."""
    turned = "<pose>0 0 0 -1.5707963 0 0</pose>"  # a wheel's axle lies along y
    slide = "<surface><friction><ode><mu>0</mu><mu2>0</mu2></ode></friction></surface>"
    casters = "".join(
        f'      <collision name="caster{k}"><pose>{x} 0 0.05 0 0 0</pose>'
        f"<geometry><sphere><radius>0.05</radius></sphere></geometry>{slide}</collision>\n"
        for k, x in enumerate((-0.15, 0.15))
    )
    wheels = "".join(
        f'    <link name="{side}_wheel">\n      <pose>0 {y} {WHEEL_RADIUS} 0 0 0</pose>\n{_inertia(0.4, 0.0011)}'
        # A sphere touches the floor in one point, and turns as odometry says; a cylinder does 4 % more.
        f'      <collision name="wheel_collision"><geometry><sphere><radius>{WHEEL_RADIUS}</radius></sphere></geometry>'
        "</collision>\n"
        f"{_visual('wheel', f'{turned}<geometry>{_cylinder(WHEEL_RADIUS, 0.04)}</geometry>', 'black')}    </link>\n"
        f'    <joint name="{side}_joint" type="revolute"><parent>{BASE_FRAME}</parent>'
        f"<child>{side}_wheel</child>"
        "<axis><xyz>0 1 0</xyz><limit><lower>-1e16</lower><upper>1e16</upper></limit></axis></joint>\n"
        for side, y in (("left", TRACK / 2), ("right", -TRACK / 2))
    )
    carried = "".join(
        _solid(name, _geometry(part, part.size), part.centre, str(part.colour))
        for name, part in chassis(robot).items()
    )
    width, height = CAMERA_SIZE
    return f"""  <model name="robot">
    <pose>{_numbers(robot.pose.numbers())}</pose>
    <link name="{BASE_FRAME}">
{_inertia(8.0, 0.12, "0 0 0.1 0 0 0")}\
{carried}\
{casters}    </link>
{wheels}\
    <link name="camera_link">
      <pose>{_numbers((0, 0, robot.mast, 0, robot.tilt, 0))}</pose>
{_inertia(0.1, 0.0001)}\
      <sensor name="camera" type="camera">
        <topic>image</topic>
        <update_rate>{CAMERA_RATE:g}</update_rate>
        <always_on>true</always_on>
        <camera>
          <camera_info_topic>camera_info</camera_info_topic>
          <optical_frame_id>{CAMERA_FRAME}</optical_frame_id>
          <horizontal_fov>{_numbers((robot.field_of_view,))}</horizontal_fov>
          <image><width>{width}</width><height>{height}</height><format>R8G8B8</format></image>
          <clip><near>0.05</near><far>20</far></clip>
        </camera>
      </sensor>
    </link>
    <joint name="camera_joint" type="fixed"><parent>{BASE_FRAME}</parent><child>camera_link</child></joint>
    <plugin filename="gz-sim-diff-drive-system" name="gz::sim::systems::DiffDrive">
      <left_joint>left_joint</left_joint>
      <right_joint>right_joint</right_joint>
      <wheel_separation>{TRACK}</wheel_separation>
      <wheel_radius>{WHEEL_RADIUS}</wheel_radius>
      <topic>cmd_vel</topic>
      <odom_topic>odom</odom_topic>
      <tf_topic>tf</tf_topic>
      <frame_id>{ODOM_FRAME}</frame_id>
      <child_frame_id>{BASE_FRAME}</child_frame_id>
    </plugin>
  </model>"""


def _inertia(mass: float, moment: float, pose: str = "0 0 0 0 0 0") -> str:
    diagonal = "".join(f"<{axis}>{moment}</{axis}>" for axis in ("ixx", "iyy", "izz"))
    return (
        f"      <inertial><pose>{pose}</pose><mass>{mass}</mass>"
        f"<inertia>{diagonal}<ixy>0</ixy><ixz>0</ixz><iyz>0</iyz></inertia></inertial>\n"
    )


def _thing(model: Any) -> Thing:
    about = model.find(f"{_TAG}thing")
    return Thing(
        model.get("name"), about.get("kind"), about.get("colour"), _three(about.get("size")), _pose(model)
    )


def _light(light: Any) -> Light:
    pose = _pose(light)
    return Light(light.get("name"), pose.x, pose.y, pose.z, float(light.findtext("diffuse").split()[0]))


def _robot(world: Any) -> Robot:
    model = world.find("model[@name='robot']")
    if model is None:
        raise ConfigError(f"world {world.get('name')} has no model named robot to carry the camera")
    camera = model.find("link[@name='camera_link']")
    eye = _pose(camera)
    field_of_view = float(camera.findtext("sensor/camera/horizontal_fov"))
    return Robot(_pose(model), mast=eye.z, tilt=eye.pitch, field_of_view=field_of_view)


def _pose(element: Any) -> Pose:
    return Pose(*(float(number) for number in element.findtext("pose").split()))


def _three(text: str | None) -> tuple[float, float, float]:
    x, y, z = (float(number) for number in (text or "").split())
    return (x, y, z)


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(repr(float(f"{value:.9g}")) for value in values)
