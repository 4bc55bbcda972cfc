"""Fixtures shared by the tests."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_configure() -> None:
    # A shell's background job ignores SIGINT, and so would every program that a test ends by it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needy = [item for item in items if item.get_closest_marker("gpu")]
    if needy:
        import torch

        if not torch.cuda.is_available():
            for item in needy:
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


@pytest.fixture
def pulse(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A private PulseAudio with a virtual loudspeaker and microphone at 48 kHz stereo: the environment to reach it.

    A program with this environment finds the PortAudio device `pulse`. What it plays can be recorded from `spk.monitor`;
    what is played into `mic` it hears.
    """
    if not shutil.which("pulseaudio"):
        pytest.skip("PulseAudio is not installed: apt install pulseaudio pulseaudio-utils libasound2-plugins")
    try:
        ctypes.CDLL("libportaudio.so.2")
    except OSError:
        pytest.skip("PortAudio is not installed: apt install libportaudio2")
    folder = tmp_path / "pulse"
    folder.mkdir(0o700)
    environment = {
        "XDG_RUNTIME_DIR": str(folder),
        "HOME": str(folder),
        "PULSE_SERVER": f"unix:{folder}/native",
        "PULSE_SINK": "spk",
        "PULSE_SOURCE": "virtmic",
    }
    modules = [
        f"module-native-protocol-unix socket={folder}/native auth-anonymous=1",
        "module-null-sink sink_name=spk rate=48000 channels=2",
        "module-null-sink sink_name=mic rate=48000 channels=2",
        "module-remap-source master=mic.monitor source_name=virtmic",
    ]
    server_environment = {**os.environ, **environment}
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(
        ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1"] + [f"--load={m}" for m in modules],
        env=server_environment,
        **silent,
    )
    try:
        deadline = time.monotonic() + 20
        while subprocess.call(["pactl", "info"], env=server_environment, **silent):
            assert server.poll() is None and time.monotonic() < deadline, "PulseAudio did not start"
            time.sleep(0.05)
        yield environment
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random checkpoint in the ordinary layout."""
    from moshivis_ros.model.init import init_checkpoint

    return init_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny", size="tiny", seed=0)
