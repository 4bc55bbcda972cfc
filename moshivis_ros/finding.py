"""What was looked at, how it is, and the one command that mends it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["fine", "absent", "wrong"]
ROOT = Path("/")  # of the files that tell of the machine
PATIENCE = 10.0  # seconds for a command that only says how the machine is


@dataclass(frozen=True)
class Finding:
    """``state``: fine; absent, and only needed for what ``text`` says; or wrong. ``remedy``: a command, or empty."""

    name: str
    state: State
    text: str
    remedy: str = ""


Check = Callable[[], Iterable[Finding]]


def look(name: str, check: Check) -> Iterator[Finding]:
    """What a check finds. One that fails is a finding too, and does not keep the others from being made."""
    try:
        yield from check()
    except Exception as error:  # a doctor has to live with whatever is broken here
        yield Finding(name, "wrong", f"this could not be looked at: {type(error).__name__}: {error}")


def said(*command: str) -> str | None:
    """What a command answers, or None where there is none, or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def written(path: str) -> str | None:
    """What is in a file below ROOT, or None where it cannot be read."""
    try:
        return (ROOT / path).read_text(encoding="utf-8", errors="replace").rstrip("\0\n")
    except OSError:
        return None


def paths(pattern: str) -> list[str]:
    """What there is below ROOT by this pattern, without ROOT."""
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))
