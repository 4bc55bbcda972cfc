"""A robot that talks: the talk node, configured and activated, with the machine's microphone and loudspeaker.

    ros2 launch moshivis_ros talk.launch.py image:=/camera/image_raw
    ros2 launch moshivis_ros talk.launch.py namespace:=robot2 model:=/path/to/checkpoint microphone:=false

Two robots on one machine: launch it twice, each with a namespace and, for the sound, a params_file naming its
devices.

Where large raw pictures get lost on the way (the talk node says so), there are two remedies: config/large_images.xml
for the camera driver alone; or large_data:=true here, which sets FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA, and then in
every other terminal, too: nodes with it and nodes without it do not find each other, which is why it is not the default.
"""

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.conditions import IfCondition
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

from launch import LaunchContext, LaunchDescription

DEFAULTS = PathJoinSubstitution([FindPackageShare("moshivis_ros"), "config", "talk.yaml"])
ARGUMENTS = [
    DeclareLaunchArgument("model", default_value="", description="checkpoint folder or Hugging Face repo; empty: as in params_file"),
    DeclareLaunchArgument("device", default_value="", description="auto, cpu, cuda, ...; empty: as in params_file"),
    DeclareLaunchArgument("image", default_value="image", description="camera topic; its compressed form is beside it"),
    DeclareLaunchArgument("namespace", default_value="", description="of all nodes and relative topics"),
    DeclareLaunchArgument("microphone", default_value="true", description="start the microphone node"),
    DeclareLaunchArgument("speaker", default_value="true", description="start the speaker node"),
    DeclareLaunchArgument("echo_cancellation", default_value="true", description="take the robot's voice out of what the microphone hears; needs the speaker node"),
    DeclareLaunchArgument("use_sim_time", default_value="false", description="take the time from /clock"),
    DeclareLaunchArgument("large_data", default_value="false", description="FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA; the camera driver and your terminals need it, too"),
    DeclareLaunchArgument("params_file", default_value=DEFAULTS, description="parameters of all nodes"),
]  # fmt: skip


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=nodes)])


def nodes(context: LaunchContext) -> list:
    """The nodes, now that the arguments are known: an empty one must not override the parameter file."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ("model", "device")}
    common = {
        "package": "moshivis_ros",
        "namespace": LaunchConfiguration("namespace"),
        "output": "screen",
    }
    parameters = [
        LaunchConfiguration("params_file"),
        {"use_sim_time": LaunchConfiguration("use_sim_time")},
    ]
    image = LaunchConfiguration("image")
    talk = LifecycleNode(
        executable="talk",
        name="talk",
        parameters=[*parameters, {name: value for name, value in given.items() if value}],
        remappings=[("image", image), ("image/compressed", [image, "/compressed"])],
        **common,
    )
    names = [name for name in ("microphone", "speaker") if _wanted(context, name)]
    cancel = len(names) == 2 and _wanted(context, "echo_cancellation")
    devices = [
        Node(
            executable=name,
            name=name,
            parameters=parameters,
            remappings=[("audio_in", "audio_raw")] if cancel and name == "microphone" else [],
            **common,
        )
        for name in [*names, *(["echo_canceller"] if cancel else [])]
    ]
    configured = OnStateTransition(
        target_lifecycle_node=talk,
        start_state="configuring",
        goal_state="inactive",
        entities=[_change(talk, Transition.TRANSITION_ACTIVATE)],
    )
    large_data = SetEnvironmentVariable(
        "FASTDDS_BUILTIN_TRANSPORTS",
        "LARGE_DATA",
        condition=IfCondition(LaunchConfiguration("large_data")),
    )
    return [large_data, talk, *devices, RegisterEventHandler(configured), _change(talk, Transition.TRANSITION_CONFIGURE)]


def _wanted(context: LaunchContext, argument: str) -> bool:
    return IfCondition(LaunchConfiguration(argument)).evaluate(context)


def _change(node: LifecycleNode, transition: int) -> EmitEvent:
    event = ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition)
    return EmitEvent(event=event)
