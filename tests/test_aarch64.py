"""A Jetson, a Raspberry Pi, an ARM server: everything that we ask for has wheels there. (ROS comes from apt there.)"""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import setuptools
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
BESIDE = ["onnxruntime"]  # what a user chooses
JETPACK = {"3.10": ["numpy<2"]}  # which the torch of JetPack 6 was built with
UNREACHABLE = (
    "connection error",
    "connection broken",
    "NewConnectionError",
    "Could not fetch URL",
    "timed out",
)


def wanted(version: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Requirements and extras on ARM and this Python: pip looks at markers with the Python that runs it."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    extras = [
        line
        for name, lines in given["extras_require"].items()
        if name not in ("ros", "dev")
        for line in lines
    ]
    there = {"python_version": version, "platform_machine": "aarch64", "sys_platform": "linux"}
    found = []
    for line in [*given["install_requires"], *extras]:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(there):
            found.append(f"{requirement.name}{requirement.specifier}")
    return found


@pytest.mark.parametrize("version", ["3.10", "3.12"])
def test_everything_has_wheels(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = wanted(version, monkeypatch)
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--disable-pip-version-check"]
    command += [
        "--target",
        str(tmp_path / "there"),
        "--report",
        str(report),
        "--retries",
        "1",
        "--timeout",
        "15",
    ]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", version]
    command += [f"--platform={platform}" for platform in PLATFORMS]
    done = subprocess.run(
        [*command, *requirements, *BESIDE, *JETPACK.get(version, [])], capture_output=True, text=True
    )
    if done.returncode and any(word in done.stderr for word in UNREACHABLE):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    files = [
        entry["download_info"]["url"].rsplit("/", 1)[1] for entry in json.loads(report.read_text())["install"]
    ]
    names = {file.split("-")[0].lower().replace("_", "-") for file in files}
    assert {Requirement(line).name.lower().replace("_", "-") for line in requirements} <= names
    assert all("aarch64" in file or file.endswith("-any.whl") for file in files), files
    assert sum("aarch64" in file for file in files) > 5  # numpy, av, ... and not just what is Python alone
