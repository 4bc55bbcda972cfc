"""The machine: processor and memory, a Jetson's release and power mode, the GPU and its driver."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator

from moshivis_ros.finding import Finding, paths, said, written

NVIDIA = "0x10de"
DISPLAY = "0x03"  # the class of PCI devices that GPUs are of
JETPACK = {"35": "5", "36": "6", "38": "7"}  # releases of Jetson Linux and of JetPack
QUERY = "name,driver_version,compute_cap,memory.total,memory.free"


def computer() -> Iterator[Finding]:
    memory = dict(
        re.findall(r"^(MemTotal|MemAvailable):\s+(\d+)", written("proc/meminfo") or "", re.MULTILINE)
    )
    sizes = " of ".join(
        f"{int(memory[key]) * 1024 / 1e9:.1f}" for key in ("MemAvailable", "MemTotal") if key in memory
    )
    board = written("proc/device-tree/model")
    text = f"{board or platform.machine()}, {os.cpu_count()} cores, {sizes} GB of memory free, Python {platform.python_version()}"
    yield Finding("computer", "fine", text)


def is_jetson() -> bool:
    return written("etc/nv_tegra_release") is not None


def jetson() -> Iterator[Finding]:
    """Nothing on another machine."""
    release = written("etc/nv_tegra_release")
    if release is None:
        return
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", release)
    if found is None:
        yield Finding(
            "jetpack", "wrong", f"/etc/nv_tegra_release is of an unknown form: {release.splitlines()[0]}"
        )
    else:
        major, revision = found.groups()
        jetpack = f"JetPack {JETPACK[major]}, " if major in JETPACK else ""
        text = f"{jetpack}Jetson Linux {major}.{revision}"
        old = major.isdecimal() and int(major) < 36
        remedy = "sudo apt dist-upgrade" if old else ""
        yield Finding(
            "jetpack", "wrong" if old else "fine", text + ("; JetPack 6 is needed" if old else ""), remedy
        )
    yield _power_mode()


def _power_mode() -> Finding:
    answer = said("nvpmodel", "-q")
    mode = re.search(r"NV Power Mode: *(\S+)", answer or "")
    if mode is None:
        return Finding("power mode", "absent", "nvpmodel does not tell", "sudo nvpmodel -q")
    modes = re.findall(r"POWER_MODEL ID=(\d+) NAME=(\S+)", written("etc/nvpmodel.conf") or "")
    best = next(((number, name) for number, name in modes if name.startswith("MAXN")), None)
    if mode[1].startswith("MAXN") or best is None:
        return Finding("power mode", "fine", f"{mode[1]}; `sudo jetson_clocks` keeps the clocks up")
    text = f"{mode[1]}, in which memory and GPU are slower than in {best[1]}"
    return Finding("power mode", "wrong", text, f"sudo nvpmodel -m {best[0]}")


def gpu() -> Iterator[Finding]:
    """By the driver's own tool; torch's view of it is in software.torch()."""
    answer = said("nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits")
    if answer is None:
        yield _no_driver()
        return
    for index, line in enumerate(answer.strip().splitlines()):
        name, driver, capability, total, free = (part.strip() for part in line.split(",", 4))
        text = f"{name}, driver {driver}"
        if re.fullmatch(r"\d+\.\d+", capability):  # a Jetson's tool does not know
            text += f", compute capability {capability}"
        if total.isdecimal() and free.isdecimal():
            text += f", {int(free) * 1.048576e-3:.1f} of {int(total) * 1.048576e-3:.1f} GB free"
        yield Finding(f"gpu {index}", "fine", text)


def _no_driver() -> Finding:
    if is_jetson():
        return Finding("gpu", "fine", "the Jetson's own; there is no nvidia-smi to ask")
    for place in paths("sys/bus/pci/devices/*"):
        if written(f"{place}/vendor") == NVIDIA and (written(f"{place}/class") or "").startswith(DISPLAY):
            text = "there is one from NVIDIA, and nvidia-smi does not answer: the driver is missing or does not run"
            return Finding("gpu", "wrong", text, "sudo ubuntu-drivers install && sudo reboot")
    return Finding("gpu", "absent", "none from NVIDIA; the miniature needs none, the released model does")
