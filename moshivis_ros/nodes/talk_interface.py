"""Parameters, topics and services of the talk node."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields

from moshivis_ros.audio.voice import VOICE_COMMAND
from moshivis_ros.nodes.interface import Interface, Parameter
from moshivis_ros.nodes.messages import sound_parameters
from moshivis_ros.vision.refresh_policy import POLICIES, Settings

SUITED = "; 0: always the most likely; below 0: what suits the checkpoint"
SAMPLING = [
    Parameter("text_temperature", -1.0, f"randomness of the words{SUITED}", (-1.0, 10.0)),
    Parameter("text_top_k", 25, "words are drawn from this many likely ones", (1, 250)),
    Parameter("audio_temperature", -1.0, f"randomness of the voice{SUITED}", (-1.0, 10.0)),
    Parameter("audio_top_k", 250, "sounds are drawn from this many likely ones", (1, 250)),
]


def _refresh_parameters() -> list[Parameter]:
    """One parameter for each field of the refresh policy's Settings, whose docstring explains them."""
    entry = re.compile(r"^(\w[\w, ]*): (.+(?:\n {4}.+)*)", re.MULTILINE)
    meanings = {
        name: " ".join(text.split()).rstrip(".")
        for names, text in entry.findall(inspect.getdoc(Settings) or "")
        for name in names.split(", ")
    }
    parameters = []
    for field in fields(Settings):
        name, meaning = f"refresh_{field.name}", meanings[field.name]
        default: str | int | float = getattr(Settings(), field.name)
        if field.name == "policy":
            parameters.append(Parameter(name, default, meaning, choices=POLICIES))
        elif isinstance(default, int):
            parameters.append(Parameter(name, default, meaning, (1, 1000)))
        else:
            share = "distance" in field.name or field.name in ("gate_open", "gate_closed")
            parameters.append(Parameter(name, default, meaning, (0.0, 1.0 if share else 3600.0)))
    return parameters


REFRESH = _refresh_parameters()

PARAMETERS = [
    Parameter(
        "model",
        "builtin",
        "checkpoint: builtin (the miniature of the package), a folder, or a Hugging Face repo to download",
    ),
    Parameter("revision", "", "branch, tag or commit of the Hugging Face repo; empty: the newest"),
    Parameter("device", "auto", "auto (the GPU where there is one), cpu, cuda, cuda:1, ..."),
    Parameter("dtype", "auto", "numbers to compute with", choices=("auto", "bfloat16", "float32")),
    Parameter(
        "quantize",
        "",
        "weights in fewer bits, for less memory: int8, int4; empty: as in the checkpoint",
        choices=("", "int8", "int4"),
    ),
    Parameter(
        "kv_cache",
        "",
        "attention window in half the memory: int8; empty: in the numbers to compute with",
        choices=("", "int8"),
    ),
    Parameter("seed", -1, "same seed and input, same conversation; -1: always another", (-1, 2**31 - 1)),
    Parameter(
        "image_size",
        0,
        "pixels of the square that pictures become; 0: the checkpoint's; while it talks at most what it was configured with",
        (0, 2048),
    ),
    Parameter("mute", False, "silence on audio_out, the conversation goes on"),
    Parameter("greet", True, "it may speak first; false: it is silent until it hears somebody, or has a goal"),
    Parameter(
        "voice_command",
        VOICE_COMMAND,
        "speaks the questions of the action ask: text on its standard input, a recording on its standard output",
    ),
    *SAMPLING,
    *REFRESH,
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
