"""On the machine with the GPU: the conversation, and what the user says.

    export ROS_DOMAIN_ID=7
    ros2 launch examples/two_machines/gpu.launch.py image:=/camera/image_raw model:=kyutai/moshika-vis-pytorch-bf16

On a network without multicast say where the other machine is: ROS_STATIC_PEERS=<address> on both.
"""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

TALK = PathJoinSubstitution([FindPackageShare("moshivis_ros"), "launch", "talk.launch.py"])
PASSED = {"namespace": "", "model": "", "image": "image"}


def generate_launch_description() -> LaunchDescription:
    given = {name: LaunchConfiguration(name) for name in PASSED}
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value=value, description="as in talk.launch.py") for name, value in PASSED.items()),
            DeclareLaunchArgument("whisper", default_value="tiny.en", description="model of the listener"),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(TALK),
                launch_arguments={**given, "microphone": "false", "speaker": "false"}.items(),
            ),
            Node(
                package="moshivis_ros", executable="listener", name="listener", namespace=given["namespace"],
                parameters=[{"model": LaunchConfiguration("whisper")}], output="screen",
            ),
        ]
    )  # fmt: skip
