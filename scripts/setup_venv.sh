#!/usr/bin/env bash
# Makes .venv, or brings it up to date: torch, the library, ROS 2 as wheels. Outside .venv it installs the system
# packages that are missing, where that needs no password.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}

stop() { echo "$@" >&2; exit 1; }

missing=$(scripts/missing_packages.sh)
if [ -n "$missing" ]; then
  [ "$(id -u)" = 0 ] && as_root="" || as_root="sudo -n"
  command -v apt-get >/dev/null && $as_root true 2>/dev/null || stop "System packages are missing. Install them, then call make again:
    sudo apt install" $missing
  echo "== system packages: apt-get install" $missing
  $as_root apt-get update -q
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
fi
[ -z "${ROS_DISTRO:-}" ] || stop "ROS 2 $ROS_DISTRO is sourced here: build with colcon (README), or call make in a shell without it."
"$PYTHON" -c 'import platform, sys; sys.exit(platform.machine() != "x86_64" or not (3, 10) <= sys.version_info[:2] <= (3, 13))' ||
  stop "ROS 2 comes as wheels for x86_64 and Python 3.10 to 3.13 only, and this is $("$PYTHON" -V) on $(uname -m).
Choose another Python (make PYTHON=python3.12), or install ROS 2 and build with colcon (README)."

# A torch that is there already is used as it is, and so is the numpy it was built for. (Not that of another active
# virtual environment: .venv would see what is below that one, not what is in it.)
if [ ! -x .venv/bin/python ]; then
  if "$PYTHON" -c 'import torch, sys; sys.exit(sys.prefix != sys.base_prefix)' 2>/dev/null; then
    "$PYTHON" -m venv --system-site-packages .venv
  else
    "$PYTHON" -m venv .venv
  fi
fi
python=.venv/bin/python
pip() { "$python" -m pip --disable-pip-version-check "$@"; }
if ! "$python" -c 'import torch' 2>/dev/null; then
  echo "== torch"
  pip install torch==2.13.0 ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
fi
pip list --format=freeze | grep -E '^(torch|numpy)==' > .venv/keep.txt
grep -q '^numpy' .venv/keep.txt || echo 'numpy<2.3' >> .venv/keep.txt  # the newest that moshi was made with

echo "== the library, ROS 2 and tools"
pip uninstall -q -y moshi 2>/dev/null  # or pip complains about its pins, which are not followed here
pip install -q -c .venv/keep.txt -e '.[ros,onnx,simulation,training,listener,record,dashboard,dev]'
pip install -q --no-deps moshi==0.2.13
pip install -q -c .venv/keep.txt 'accelerate>=1.3' 'peft>=0.14'  # fine-tuning; they want a torch, so setup.py does not name them
# faster-whisper has brought onnxruntime. The same modules for an NVIDIA GPU go over it.
if nvidia-smi >/dev/null 2>&1; then
  pip install -q -c .venv/keep.txt onnxruntime-gpu
fi
"$python" scripts/patch_ros_wheels.py
