"""`moshivis doctor` on machines made of files and commands: what it finds, and the command that mends it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from moshivis_ros import cli, finding
from moshivis_ros.doctor import command, machine, software, sound
from moshivis_ros.finding import Finding, look

ROOT = Path(__file__).parent.parent
ORIN = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n"
POWER = "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"


class Box:
    """A machine: files below a folder, and the only commands that there are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()

    def file(self, path: str, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)

    def command(self, name: str, answer: str, code: int = 0) -> None:
        self.file(f"bin/{name}", f"#!/bin/sh\n/bin/cat <<'END'\n{answer}\nEND\nexit {code}\n")
        (self.folder / "bin" / name).chmod(0o755)


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    monkeypatch.setattr(finding, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return Box(tmp_path)


def only(findings: Any) -> Finding:
    (one,) = findings
    return one


# the machine


def test_a_jetson_says_its_release_and_its_power_mode(box: Box) -> None:
    box.file("etc/nv_tegra_release", ORIN)
    box.file("etc/nvpmodel.conf", POWER)
    box.file("proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0")
    box.file("proc/meminfo", "MemTotal: 7800000 kB\nMemFree: 1 kB\nMemAvailable: 5000000 kB\n")
    box.command("nvpmodel", "NV Power Mode: 15W\n0")
    assert "NVIDIA Jetson Orin Nano Developer Kit, " in only(machine.computer()).text
    assert "5.1 of 8.0 GB of memory free" in only(machine.computer()).text
    release, power = machine.jetson()
    assert (release.state, release.text) == ("fine", "JetPack 6, Jetson Linux 36.4.3")
    assert (power.state, power.remedy) == ("wrong", "sudo nvpmodel -m 2") and "15W" in power.text
    box.command("nvpmodel", "NV Power Mode: MAXN_SUPER\n2")
    assert list(machine.jetson())[1].state == "fine"
    assert only(machine.gpu()).state == "fine"  # it has no nvidia-smi, and needs none


def test_a_jetson_with_too_old_a_release_and_without_nvpmodel(box: Box) -> None:
    box.file("etc/nv_tegra_release", ORIN.replace("R36", "R35"))
    release, power = machine.jetson()
    assert release.state == "wrong" and "JetPack 5" in release.text and "JetPack 6 is needed" in release.text
    assert power.state == "absent"


def test_a_gpu_by_its_driver(box: Box) -> None:
    box.command(
        "nvidia-smi",
        "NVIDIA GeForce RTX 4070, 560.35.03, 8.9, 12282, 11000\nOld, 560.35.03, [N/A], [N/A], [N/A]",
    )
    first, second = machine.gpu()
    assert (
        first.text
        == "NVIDIA GeForce RTX 4070, driver 560.35.03, compute capability 8.9, 11.5 of 12.9 GB free"
    )
    assert second.text == "Old, driver 560.35.03"


def test_a_gpu_without_its_driver(box: Box) -> None:
    assert only(machine.gpu()).state == "absent" and not list(machine.jetson())
    box.file("sys/bus/pci/devices/0000:00:1f.3/vendor", "0x10de\n")
    box.file("sys/bus/pci/devices/0000:00:1f.3/class", "0x040300\n")  # its sound
    assert only(machine.gpu()).state == "absent"
    box.file("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n")
    box.file("sys/bus/pci/devices/0000:01:00.0/class", "0x030000\n")
    box.command("nvidia-smi", "NVIDIA-SMI has failed because it could not communicate with the driver.", 9)
    assert only(machine.gpu()).state == "wrong" and "ubuntu-drivers" in only(machine.gpu()).remedy


# what pip installs


def test_a_torch_that_does_not_see_the_gpu(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert only(software.torch(False)).state == "fine"
    assert only(software.torch(True)) == Finding(
        "torch",
        "wrong",
        only(software.torch(False)).text + ": it does not use the GPU that is here",
        "pip install --force-reinstall torch",
    )
    box.file("etc/nv_tegra_release", ORIN)
    assert "JetPack" in only(software.torch(True)).remedy  # NVIDIA's wheels, not PyPI's


@pytest.mark.parametrize(
    ("built", "state"), [(["sm_80", "sm_90"], "wrong"), (["sm_120"], "fine"), (["compute_90"], "fine")]
)
def test_a_torch_that_is_older_than_the_gpu(
    built: list[str], state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {
        "is_available": True, "device_count": 1, "get_device_capability": (12, 0), "get_device_name": "RTX 5090",
        "mem_get_info": (30_000_000_000, 33_000_000_000), "get_arch_list": built,
    }  # fmt: skip
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    found = only(software.torch(True))
    assert (
        found.state == state
        and "cuda:0 RTX 5090, compute capability 12.0, 30.0 of 33.0 GB free" in found.text
    )


def test_triton_without_what_it_compiles_with(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(software.sysconfig, "get_path", lambda name: str(box.folder))
    found = only(software.triton())
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert (found.state, found.remedy) == ("wrong", f"sudo apt install gcc libpython{version}-dev")
    box.command("gcc", "")
    box.file("Python.h", "")
    monkeypatch.setattr("moshivis_ros.model.kernels.form.triton_runs", lambda: True)
    assert only(software.triton()).state == "fine"


# the model


def test_a_model_that_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, file: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "not" / "made"))
    monkeypatch.setattr(software.shutil, "disk_usage", lambda place: SimpleNamespace(free=20e9))
    found = only(software.model("kyutai/moshika-vis-pytorch-bf16"))
    assert (found.state, found.remedy) == ("absent", "hf download kyutai/moshika-vis-pytorch-bf16")
    monkeypatch.setattr(software.shutil, "disk_usage", lambda place: SimpleNamespace(free=9e9))
    found = only(software.model("kyutai/moshika-vis-pytorch-bf16"))
    assert found.state == "wrong" and "9.0 GB are free" in found.text and "HF_HOME" in found.remedy


def test_a_model_that_is_cut_short_or_not_there(tiny: Path, tmp_path: Path) -> None:
    assert only(software.model(str(tiny))).state == "fine"
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    found = only(software.model(str(tmp_path)))
    assert found.state == "wrong" and "cut short" in found.text
    assert only(software.model("no/such/folder")).state == "wrong"


def test_what_auto_decides_is_told(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moshivis_ros.model import fit

    for live, state in ((True, "fine"), (False, "wrong")):
        choice = fit.Choice("int8", None, "int8, because 11.4 GB are free", live)
        monkeypatch.setattr(fit, "choose", lambda *_, choice=choice: choice)
        found = only(software.model(str(tiny)))
        assert found.state == state and found.text.endswith("; int8, because 11.4 GB are free")


# sound


class Ear:
    name, sample_rate = "USB microphone", 48000
    amplitude = 0.0

    def __init__(self, device: str | None) -> None: ...

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *_: object) -> None: ...

    def read(self, timeout: float) -> Any:
        tone = 32767 * self.amplitude * np.sin(np.arange(960) / 10)
        return SimpleNamespace(samples=tone.astype(np.int16))


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    monkeypatch.setattr(sound, "Microphone", Ear)
    monkeypatch.setattr(sound, "SECONDS", 0.05)
    monkeypatch.setattr(sound, "find_device", lambda device, kind: 3)

    def there(lines: list[str]) -> None:
        monkeypatch.setattr(sound, "list_devices", lambda kind: lines)

    return there


def test_sound(devices: Callable[[list[str]], None], monkeypatch: pytest.MonkeyPatch) -> None:
    devices(["  3  USB headset  (2 channels, 48000 Hz)"])
    microphone, speaker = sound.examine(None, None)
    assert microphone.state == "wrong" and "muted" in microphone.text and "pactl" in microphone.remedy
    assert speaker.text == "3  USB headset  (2 channels, 48000 Hz)"
    monkeypatch.setattr(Ear, "amplitude", 0.1)  # -20 dB, of a sine -23
    microphone, _ = sound.examine(None, None)
    assert microphone.state == "fine" and "'USB microphone' at 48000 Hz, up to -23 dB" in microphone.text
    devices([])
    assert [found.state for found in sound.examine(None, None)] == ["absent", "absent"]


# the whole


def test_half_of_it_missing() -> None:
    gone = ["torch", "triton", "moshi", "onnxruntime", "sounddevice", "rclpy", "huggingface_hub", "numpy"]
    blocked = f"import sys; sys.modules.update(dict.fromkeys({gone}))\n"
    code = blocked + "from moshivis_ros.cli import main; sys.exit(main(['doctor', '--json']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    report = json.loads(done.stdout)
    found = {each["name"]: each for each in report["findings"]}
    assert not report["fine"] and found["torch"]["remedy"].endswith("torch")
    assert found["onnxruntime"]["state"] == found["ros"]["state"] == "absent"
    assert "numpy" in found["sound"]["text"]


def test_what_is_needed_is_fine(
    box: Box,
    devices: Callable[[list[str]], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    devices([])
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)  # no ROS
    box.file("opt/ros/jazzy/setup.bash", "")
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "to have ros: source /opt/ros/jazzy/setup.bash" in said and "What is needed is fine." in said
    assert cli.main(["doctor", "--json", "--model", str(box.folder)]) == 1  # a folder without a model
    report = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in report["findings"] if each["state"] == "wrong"] == ["model"]


def test_what_cannot_be_looked_at_is_told_and_the_rest_goes_on() -> None:
    def broken() -> Any:
        yield Finding("a", "fine", "")
        raise KeyError("b")

    assert [each.state for each in look("a", broken)] == ["fine", "wrong"]
