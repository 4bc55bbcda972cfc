"""The command: looks at everything, prints a line for each, and the commands that mend what is wrong."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial

from moshivis_ros.doctor import machine, software
from moshivis_ros.finding import Finding, look, paths

MARKS = {"fine": "fine  ", "absent": "-     ", "wrong": "WRONG "}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Looks at everything that a conversation needs on this machine: what is fine, what is not, and the command that "
        "mends it. Nothing is changed."
    )
    parser.epilog = "exit status: 0 what is needed is fine, 1 something is wrong"
    parser.add_argument(
        "--model", default="builtin", help="folder or Hugging Face repo that shall talk (%(default)s)"
    )
    parser.add_argument(
        "--microphone", metavar="NAME", help="part of the name, or index, of the device to listen to"
    )
    parser.add_argument(
        "--speaker", metavar="NAME", help="part of the name, or index, of the device to speak through"
    )
    parser.add_argument(
        "--json", action="store_true", help="the findings as JSON on stdout, for a program or a bug report"
    )


def run(args: argparse.Namespace) -> int:
    findings = []
    for finding in examine(args.model, args.microphone, args.speaker):
        findings.append(finding)
        if not args.json:
            print(f"{MARKS[finding.state]}{finding.name:15} {finding.text}", flush=True)
    wrong = [finding for finding in findings if finding.state == "wrong"]
    if args.json:
        print(
            json.dumps({"fine": not wrong, "findings": [asdict(finding) for finding in findings]}, indent=1)
        )
        return int(bool(wrong))
    print()
    remedies = [finding for finding in findings if finding.remedy]
    for finding in sorted(remedies, key=lambda finding: finding.state != "wrong"):
        print(f"{'to mend' if finding.state == 'wrong' else 'to have'} {finding.name}: {finding.remedy}")
    print("Something is wrong: see above." if wrong else "What is needed is fine.")
    return int(bool(wrong))


def examine(model: str, microphone: str | None, speaker: str | None) -> Iterator[Finding]:
    """Everything, in the order in which it builds upon another."""
    yield from look("computer", machine.computer)
    yield from look("jetpack", machine.jetson)
    gpus = list(look("gpu", machine.gpu))
    yield from gpus
    gpu = any(finding.state == "fine" for finding in gpus)
    yield from look("torch", partial(software.torch, gpu))
    if "moshivis_ros.model" in sys.modules:  # torch is there
        yield from look("triton", software.triton)
        yield from look("moshi", software.moshi)
        yield from look("model", partial(software.model, model))
    yield from look("onnxruntime", partial(software.onnxruntime, gpu))
    yield from look("sound", partial(sound, microphone, speaker))
    yield from look("ros", ros)


def sound(microphone: str | None, speaker: str | None) -> Iterable[Finding]:
    from moshivis_ros.doctor.sound import examine  # here: it needs numpy

    yield from examine(microphone, speaker)


def ros() -> Iterable[Finding]:
    """What needs rclpy is in nodes/doctor.py, and imported only where that is."""
    if importlib.util.find_spec("rclpy") is None:
        setups = paths("opt/ros/*/setup.bash")
        text = "ROS 2 is not sourced" if setups else "no ROS 2"
        yield Finding(
            "ros", "absent", f"{text}; only the nodes need it", f"source /{setups[-1]}" if setups else ""
        )
        return
    if importlib.util.find_spec("moshivis_ros.msg") is None:
        distribution = os.environ.get("ROS_DISTRO", "ROS 2")
        text = f"{distribution}, without the messages of this package: it is not built, or not sourced"
        yield Finding("ros", "wrong", text, "colcon build && source install/setup.bash")
        return
    from moshivis_ros.nodes import doctor

    yield from doctor.examine()
