"""On the robot: ears and mouth. The camera driver is the robot's own. No torch, no model.

    export ROS_DOMAIN_ID=7
    ros2 launch examples/two_machines/robot.launch.py

What crosses the network: audio_in and audio_out (48 kB/s each), and the pictures: let the driver publish them compressed. Both clocks
must agree (chrony): stamps of sound and pictures are compared.
"""

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    device = {"device": LaunchConfiguration("device")}
    return LaunchDescription(
        [
            DeclareLaunchArgument("namespace", default_value="", description="of all nodes, as on the other machine"),
            DeclareLaunchArgument("device", default_value="", description="a part of the sound device's name; empty: the default"),
            node("microphone", parameters=[device], remappings=[("audio_in", "audio_raw")]),
            node("speaker", parameters=[device]),
            # Beside the devices: it compares what was played and heard sample by sample.
            node("echo_canceller"),
        ]
    )


def node(name: str, **more: object) -> Node:
    return Node(
        package="moshivis_ros", executable=name, name=name, namespace=LaunchConfiguration("namespace"),
        output="screen", respawn=True, respawn_delay=2.0, **more,
    )  # fmt: skip
