"""A robot that talks about a simulated room.

    ros2 launch moshivis_ros sim.launch.py                                  # Gazebo where it is installed
    ros2 launch moshivis_ros sim.launch.py renderer:=mujoco audio:=question.wav
    ros2 launch moshivis_ros sim.launch.py scenario:=/path/to/turn.yaml     # MuJoCo only

Both renderers show the same world on the same topics: image, camera_info, odom, /tf, /clock, cmd_vel. All nodes run on
that clock. Where the last cmd_vel is 0.5 s old the robot stands, in both.
"""

import os

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription

SHARE = FindPackageShare("moshivis_ros")
WORLD = PathJoinSubstitution([SHARE, "worlds", "talk_room.sdf"])
BRIDGED = (
    "/image@sensor_msgs/msg/Image[gz.msgs.Image",
    "/camera_info@sensor_msgs/msg/CameraInfo[gz.msgs.CameraInfo",
    "/clock@rosgraph_msgs/msg/Clock[gz.msgs.Clock",
    "/odom@nav_msgs/msg/Odometry[gz.msgs.Odometry",
    "/tf@tf2_msgs/msg/TFMessage[gz.msgs.Pose_V",
    "/cmd_vel@geometry_msgs/msg/Twist]gz.msgs.Twist",
)
ARGUMENTS = [
    DeclareLaunchArgument("renderer", default_value="auto", choices=["auto", "gazebo", "mujoco"], description="auto: Gazebo where ros_gz_sim is installed"),
    DeclareLaunchArgument("headless", default_value="auto", choices=["auto", "true", "false"], description="Gazebo without its window; auto: where there is no display"),
    DeclareLaunchArgument("world", default_value=WORLD, description=".sdf file"),
    DeclareLaunchArgument("scenario", default_value="", description=".yaml file in place of world: what happens in it (MuJoCo)"),
    DeclareLaunchArgument("audio", default_value="", description="recording to hear in place of the microphone"),
    DeclareLaunchArgument("microphone", default_value="true", description="start the microphone node, unless audio is given"),
    DeclareLaunchArgument("speaker", default_value="true", description="start the speaker node"),
    DeclareLaunchArgument("model", default_value="", description="as in talk.launch.py"),
    DeclareLaunchArgument("device", default_value="", description="as in talk.launch.py"),
]  # fmt: skip


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=nodes)])


def nodes(context: LaunchContext) -> list:
    given = {name: LaunchConfiguration(name).perform(context) for name in
             ("renderer", "headless", "world", "scenario", "audio", "microphone", "speaker", "model", "device")}  # fmt: skip
    if given["audio"]:
        given["microphone"] = "false"
    talk = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([SHARE, "launch", "talk.launch.py"])),
        launch_arguments={
            **{name: given[name] for name in ("model", "device", "microphone", "speaker")},
            "use_sim_time": "true",
        }.items(),
    )
    gazebo = given["renderer"] == "gazebo" or (
        given["renderer"] == "auto" and not given["scenario"] and _installed("ros_gz_sim")
    )
    actions = [*(_gazebo(given["world"], given["headless"]) if gazebo else [_mujoco(given)]), talk]
    if given["audio"]:
        actions.append(_node("audio_file", path=given["audio"], use_sim_time=True))
    return actions


def _gazebo(world: str, headless: str) -> list:
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    alone = headless == "true" or (headless == "auto" and not display)
    server = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(
            PathJoinSubstitution([FindPackageShare("ros_gz_sim"), "launch", "gz_sim.launch.py"])
        ),
        launch_arguments={
            "gz_args": f"-r {'-s --headless-rendering ' if alone else ''}{world}",
            "on_exit_shutdown": "true",
        }.items(),
    )
    bridge = Node(
        package="ros_gz_bridge",
        executable="parameter_bridge",
        arguments=list(BRIDGED),
        parameters=[{"lazy": False}],  # a first listener that comes late would get every picture since the start
        output="screen",
    )
    return [server, bridge, _node("deadman", use_sim_time=True)]


def _mujoco(given: dict[str, str]) -> Node:
    where = "scenario" if given["scenario"] else "world"
    return _node("sim_camera", clock=True, **{where: given[where]})


def _node(name: str, **parameters: object) -> Node:
    return Node(package="moshivis_ros", executable=name, name=name, parameters=[parameters], output="screen")


def _installed(package: str) -> bool:
    try:
        get_package_share_directory(package)
    except PackageNotFoundError:
        return False
    return True
