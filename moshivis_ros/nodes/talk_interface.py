"""Parameters, topics and services of the talk node."""

from __future__ import annotations

import json

from moshivis_ros.audio.voice import VOICE_COMMAND
from moshivis_ros.nodes.interface import Interface, Parameter
from moshivis_ros.nodes.messages import sound_parameters
from moshivis_ros.options import OPTIONS, Option


def _parameter(option: Option) -> Parameter:
    """An option of loading a model as a parameter, which cannot be None."""
    if option.unset is None:
        assert option.default is not None
        return Parameter(option.name, option.default, option.meaning, option.range, option.choices)
    value = "empty" if option.unset == "" else json.dumps(option.unset)
    meaning = f"{option.meaning}; {value}: {option.otherwise}"
    range_ = option.range and (min(option.range[0], float(option.unset)), option.range[1])
    if range_ and isinstance(option.unset, int):
        range_ = (int(range_[0]), int(range_[1]))
    return Parameter(option.name, option.unset, meaning, range_)


PARAMETERS = [
    Parameter(
        "model",
        "builtin",
        "checkpoint: builtin (the miniature of the package), a folder, or a Hugging Face repo to download",
    ),
    *map(_parameter, OPTIONS),
    Parameter("mute", False, "silence on audio_out, the conversation goes on"),
    Parameter(
        "voice_command",
        VOICE_COMMAND,
        "speaks the questions of the action ask: text on its standard input, a recording on its standard output",
    ),
    *sound_parameters("audio_in"),
    *sound_parameters("audio_out", written=True),
    Parameter(
        "max_backlog", 6, "frames (80 ms) by which the model may be behind the sound; more: the oldest sound is dropped", (1, 100)
    ),
    Parameter(
        "realtime_priority",
        1,
        "of the steps: no program without one takes their core from them, where the system allows it (root, or a "
        "limit for rtprio in limits.conf); 0: like any other program",
        (0, 99),
    ),
    Parameter(
        "restarts",
        3,
        "times in ten minutes that an engine which died is started again, each time after twice as long; the "
        "conversation is a new one, the picture stays",
        (0, 100),
    ),
    Parameter(
        "bond", False, "tell a lifecycle manager, such as nav2's, that the node lives (needs the package bond)"
    ),
    Parameter(
        "image_transport",
        "both",
        "take pictures from image (raw), from image/compressed, or from both, the newest first",
        choices=("both", "raw", "compressed"),
    ),
    Parameter(
        "image_reliability",
        "auto",
        "of the image subscriptions; auto: what the publisher offers",
        choices=("auto", "reliable", "best_effort"),
    ),
]

INTERFACES = [
    Interface(
        "audio_in", "subscribes", "moshivis_ros/msg/Audio", "what the robot hears: any rate and channels"
    ),
    Interface("image", "subscribes", "sensor_msgs/msg/Image", "what the robot sees; only the newest counts"),
    Interface("image/compressed", "subscribes", "sensor_msgs/msg/CompressedImage", "the same as jpeg or png"),
    Interface(
        "audio_out",
        "publishes",
        "moshivis_ros/msg/Audio",
        "the robot's voice, 24 kHz mono, one message every 80 ms, stamped as the sound it answers",
    ),
    Interface(
        "transcript", "publishes", "moshivis_ros/msg/Transcript", "its words, in pieces and as utterances"
    ),
    Interface("gate", "publishes", "moshivis_ros/msg/Gate", "how much it looks at the picture, every 80 ms"),
    Interface(
        "image_cache",
        "publishes",
        "moshivis_ros/msg/ImageCacheStatus",
        "which picture it sees and why, on every change and once a second (transient local)",
    ),
    Interface("~/muted", "publishes", "std_msgs/msg/Bool", "how the switch stands, on every change (transient local)"),
    Interface("~/asleep", "publishes", "std_msgs/msg/Bool", "the same"),
    Interface("/diagnostics", "publishes", "diagnostic_msgs/msg/DiagnosticArray", "once a second"),
    Interface("~/refresh_image", "serves", "std_srvs/srv/Trigger", "look at the newest picture now"),
    Interface("~/reset", "serves", "std_srvs/srv/Trigger", "new conversation; frames and times count from 0"),
    Interface("~/cancel_loading", "serves", "std_srvs/srv/Trigger", "end a configure that is loading the model"),
    Interface("~/mute", "serves", "std_srvs/srv/SetBool", "the parameter mute, as a service"),
    Interface(
        "~/sleep", "serves", "std_srvs/srv/SetBool", "no steps, no sound, nothing heard, until it is woken; then it goes on"
    ),
    Interface("say", "acts", "moshivis_ros/action/Say", "say these words in the robot's own voice"),
    Interface("ask", "acts", "moshivis_ros/action/Ask", "speak a question into the robot's ear, and give back its answer"),
    Interface(
        "~/freeze_image", "serves", "std_srvs/srv/SetBool", "keep the picture, whatever the camera shows"
    ),
]
