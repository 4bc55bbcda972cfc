"""Inputs that are changed at random: see mutations.py. FUZZ_SECONDS is for how long; `make test FUZZ_SECONDS=3600` is an hour."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def test_changed_inputs_are_read_or_refused(tmp_path: Path) -> None:
    path = os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, HERE / "mutations.py", os.environ.get("FUZZ_SECONDS", "120"), tmp_path],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said = done.stdout.decode(errors="replace")
    if done.returncode:
        last = HERE.parents[1] / "build/last_input"
        last.parent.mkdir(exist_ok=True)
        last.write_bytes((tmp_path / "last").read_bytes())
        raise AssertionError(f"exit code {done.returncode}; the input is in {last} (pickled)\n{said[-6000:]}")
    assert "inputs," in said, said[-6000:]
