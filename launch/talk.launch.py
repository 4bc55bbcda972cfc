"""A robot that talks: the talk node, configured and activated, with the machine's microphone and loudspeaker.

    ros2 launch moshivis_ros talk.launch.py image:=/camera/image_raw
    ros2 launch moshivis_ros talk.launch.py namespace:=robot2 model:=/path/to/checkpoint microphone:=false

Two robots on one machine: launch it twice, each with a namespace and, for the sound, a params_file naming its
devices.

Where large raw pictures get lost on the way (the talk node says so), there are two remedies: config/large_images.xml
for the camera driver alone; or large_data:=true here, which sets FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA, and then in
every other terminal, too: nodes with it and nodes without it do not find each other, which is why it is not the default.

A node that dies is started again, and talk is configured and activated anew. What starting again would not mend ends
everything, with the reason and an exit code: a params_file that is not there, a parameter that is refused, a model that
cannot be loaded. With autostart:=false talk is left to a lifecycle manager, in what goes wrong, too.
"""

from pathlib import Path

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    TimerAction,
)
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessExit, OnProcessStart
from launch.events import matches_action
from launch.events.process import ProcessExited, ProcessStarted
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

from launch import LaunchContext, LaunchDescription

DEFAULTS = PathJoinSubstitution([FindPackageShare("moshivis_ros"), "config", "talk.yaml"])
TOPICS = {
    "image": "the camera; its compressed form is beside it",
    "audio_in": "what talk hears; with microphone:=false, that of the robot's own microphone",
    "audio_out": "the robot's voice",
    "transcript": "its words",
    "gate": "how much it looks at the picture",
    "image_cache": "which picture it sees",
}
VALUES = {
    "model": "checkpoint folder or Hugging Face repo",
    "adapters": "folder of trained adapters that are put into the model",
    "device": "auto, cpu, cuda, ...",
    "audio_in_type": "messages on audio_in, such as audio_common_msgs/msg/AudioStamped",
    "audio_out_type": "messages on audio_out",
}
SWITCHES = {
    "microphone": ("true", "start the microphone node"),
    "speaker": ("true", "start the speaker node"),
    "echo_cancellation": ("true", "take the robot's voice out of what the microphone node hears; needs the speaker node"),
    "dashboard": ("false", "start the dashboard: a page on localhost that shows the conversation"),
    "record": ("false", "start the recorder: a bag in a new folder, of the last hour; see its parameters"),
    "autostart": ("true", "configure and activate talk; false: a lifecycle manager does"),
    "use_sim_time": ("false", "take the time from /clock"),
    "large_data": ("false", "FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA; the camera driver and your terminals need it, too"),
}
ARGUMENTS = [
    *(DeclareLaunchArgument(name, default_value="", description=f"{about}; empty: as in params_file") for name, about in VALUES.items()),
    *(DeclareLaunchArgument(name, default_value=name, description=f"topic: {about}") for name, about in TOPICS.items()),
    *(DeclareLaunchArgument(name, default_value=value, description=about) for name, (value, about) in SWITCHES.items()),
    DeclareLaunchArgument("namespace", default_value="", description="of all nodes and relative topics"),
    DeclareLaunchArgument("params_file", default_value=DEFAULTS, description="parameters of all nodes"),
]  # fmt: skip
TYPES = {"microphone": "audio_in_type", "echo_canceller": "audio_in_type", "speaker": "audio_out_type"}
WATCHERS = {"recorder": "record", "dashboard": "dashboard"}  # node -> its switch
RESPAWN_SECONDS = 2.0
RETRY_SECONDS = 5.0
BAD_INPUT = 2  # exit code of a node that would not do better if it was started again


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=nodes)])


def nodes(context: LaunchContext) -> list:
    """The nodes, now that the arguments are known: an empty one must not override the parameter file."""
    params_file = LaunchConfiguration("params_file").perform(context)
    if not Path(params_file).is_file():
        raise RuntimeError(f"there is no file {params_file!r} (params_file)")
    wanted = {name: IfCondition(LaunchConfiguration(name)).evaluate(context) for name in SWITCHES}
    given = {name: value for name in VALUES if (value := LaunchConfiguration(name).perform(context))}
    topics = {name: LaunchConfiguration(name) for name in TOPICS}

    def arguments(name: str, values: dict, **renamed: object) -> dict:
        """Of a node's action."""
        return {
            "package": "moshivis_ros",
            "executable": name,
            "name": name,
            "namespace": LaunchConfiguration("namespace"),
            "parameters": [params_file, {"use_sim_time": wanted["use_sim_time"], **values}],
            "remappings": list({**topics, **renamed}.items()),
            "output": "screen",
            "respawn": True,
            "respawn_delay": RESPAWN_SECONDS,
        }

    compressed = {"image/compressed": [LaunchConfiguration("image"), "/compressed"]}
    talk = LifecycleNode(**arguments("talk", given, **compressed))
    devices = [name for name in ("microphone", "speaker") if wanted[name]]
    cancel = len(devices) == 2 and wanted["echo_cancellation"]
    started = [talk]
    for name in [*devices, *(["echo_canceller"] if cancel else [])]:
        values = {kind: given[kind] for kind in [TYPES[name]] if kind in given}
        if cancel and name == "microphone":  # its sound goes to the echo canceller, as ours
            started.append(Node(**arguments(name, {}, audio_in="audio_raw")))
        else:
            started.append(Node(**arguments(name, values)))
    sound = {kind: given[kind] for kind in ("audio_in_type", "audio_out_type") if kind in given}
    started += [Node(**arguments(name, sound, **compressed)) for name in WATCHERS if wanted[WATCHERS[name]]]
    exits = [RegisterEventHandler(OnProcessExit(target_action=node, on_exit=_on_exit)) for node in started]
    large_data = [SetEnvironmentVariable("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA")] if wanted["large_data"] else []
    return [*large_data, *exits, *(Autostart(talk).handlers if wanted["autostart"] else []), *started]


def _on_exit(event: ProcessExited, context: LaunchContext) -> None:
    if event.returncode == BAD_INPUT:
        raise RuntimeError(f"{event.process_name} cannot work like this: its reason is above")


class Autostart:
    """Configures and activates talk when its process has started; what others do with it then is their affair."""

    def __init__(self, talk: LifecycleNode) -> None:
        self._talk = talk
        self._state = "not started"  # up to "started"
        self.handlers = [
            RegisterEventHandler(OnProcessStart(target_action=talk, on_start=self._on_start)),
            RegisterEventHandler(
                OnStateTransition(target_lifecycle_node=talk, entities=[OpaqueFunction(function=self._on_transition)])
            ),
        ]

    def _on_start(self, event: ProcessStarted, context: LaunchContext) -> list:
        again = self._state != "not started"
        self._state = "asked"
        return [self._change(Transition.TRANSITION_CONFIGURE), *([self._later()] if again else [])]

    def _later(self) -> TimerAction:
        """A killed node is still in the graph for a while, and what it is asked is lost: ask again."""
        return TimerAction(period=RETRY_SECONDS, actions=[OpaqueFunction(function=self._ask_again)])

    def _ask_again(self, context: LaunchContext) -> list:
        asked = self._state == "asked"
        return [self._change(Transition.TRANSITION_CONFIGURE), self._later()] if asked else []

    def _on_transition(self, context: LaunchContext) -> list:
        goal = context.locals.event.goal_state
        if self._state == "asked" and goal == "configuring":
            self._state = "configuring"
        elif self._state == "configuring" and goal == "inactive":
            self._state = "started"
            return [self._change(Transition.TRANSITION_ACTIVATE)]
        elif self._state == "configuring" and goal in ("unconfigured", "finalized"):
            raise RuntimeError("talk could not be configured: its reason is above")
        return []

    def _change(self, transition: int) -> EmitEvent:
        return EmitEvent(
            event=ChangeState(lifecycle_node_matcher=matches_action(self._talk), transition_id=transition)
        )
