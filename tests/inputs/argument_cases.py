"""Arguments of commands.

Refused while they are read, with what is allowed, before a file or a model is touched; the exit code is 2.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import torch
from case import Case, refused

from moshivis_ros import cli
from moshivis_ros.conversation import Conversation


def command(*arguments: str) -> Callable[[Path], list[str]]:
    """With a model that is not there: a command that came as far as to load it would say that instead."""
    return lambda folder: ["chat", "--model", str(folder / "nowhere"), *arguments]


def says(*words: str) -> Callable[[list[str]], None]:
    def check(arguments: list[str]) -> None:
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            try:
                code: object = cli.main(arguments)
            except SystemExit as error:
                code = error.code
        line = said.getvalue().splitlines()[-1]
        assert code == 2 and line.startswith(("moshivis chat: error: ", "moshivis: ")), said.getvalue()
        assert all(word in line for word in words) and "nowhere" not in line, line

    return check


def gpu_that_is_not_there(folder: Path) -> list[str]:
    return command("--device", f"cuda:{torch.cuda.device_count()}")(folder)


def in_python(made: object) -> None:
    for wrong, words in (({"device": "bogus"}, ("'bogus'", "cpu")), ({"seed": 10**20}, ("seed", "2147483647"))):
        refused(lambda keywords: Conversation.load("builtin", **keywords), *words)(wrong)


ARGUMENT = ("argument",)

CASES = [
    Case("`--device` of a GPU that is not there", ARGUMENT, "refused", "with the devices that are", gpu_that_is_not_there,
         says("--device", "'cuda:", "auto", "cpu")),
    Case("`--device` of another word", ARGUMENT, "refused", "the same", command("--device", "bogus"),
         says("--device", "'bogus'", "auto", "cpu")),
    *(
        Case(f"an empty `{option}`, as from an empty variable of a script", ARGUMENT, "refused", "name a file, or leave it out",
             command(f"{option}="), says(option, "an empty name"))
        for option in ("--image", "--video", "--audio", "--out", "--transcript")
    ),
    *(
        Case(f"`--tail {value}`", ARGUMENT, "refused", "0 to 86400 seconds", command(f"--tail={value}"),
             says("--tail", "a number from 0 to 86400", value))
        for value in ("nan", "-1", "inf", "six")
    ),
    *(
        Case(f"`--seed {value}`", ARGUMENT, "refused", "a whole number from 0 to 2147483647", command(f"--seed={value}"),
             says("--seed", "a whole number from 0 to 2147483647", value))
        for value in ("1e20", "100000000000000000000", "-1", "1.5")
    ),
    Case("`--slide-seconds 0`", ARGUMENT, "refused", "0.1 to 3600", command("--slide-seconds", "0"),
         says("--slide-seconds", "0.1 to 3600")),
    Case("`--text-temperature nan`", ARGUMENT, "refused", "0 to 10", command("--text-temperature", "nan"),
         says("--text-temperature", "0 to 10")),
    Case("`--text-top-k 0`", ARGUMENT, "refused", "1 or more", command("--text-top-k", "0"), says("--text-top-k", "from 1 to")),
    Case("a device or a seed that is none, in Python", ARGUMENT, "refused", "ConfigError, with what is allowed",
         lambda folder: None, in_python),
]  # fmt: skip
