# make demo | test | check | bench | docs | screenshots: each makes .venv first, with the versions of constraints.txt.
#
#   make test ARGS="-k beam"               pass something on
#   make demo PYTHON=/opt/bin/python3.12   use this Python, 3.11 or newer
#   make demo ZHUYI_TORCH_INDEX=ADDRESS    take torch from this package index
#   make demo ZHUYI_TORCH=default          take torch's default build on a Linux machine without a GPU too

PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11
ARGS ?=
venv := .venv/bin
torch := $(shell sed -n 's/^torch==//p' constraints.txt)
joeynmt := 2.3.0
faster_whisper := 1.2.1

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export ZHUYI_TORCH ZHUYI_TORCH_INDEX

.PHONY: demo test check bench docs screenshots
.DELETE_ON_ERROR:

demo: .venv/installed
	@$(venv)/python examples/demo.py $(ARGS)

# A process a core, each of one thread: the tests' tensors are too small to share. ARGS="-n 0" for one process.
test: .venv/installed
	@OMP_NUM_THREADS=1 $(venv)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

check: .venv/installed
	@$(venv)/ruff check
	@$(venv)/ruff format --check
	@$(venv)/mypy

bench: .venv/peers .venv/joeynmt/installed .venv/faster-whisper/installed
	@for script in benchmarks/*.py; do echo "$$script"; $(venv)/python "$$script" $(ARGS) || exit 1; done

# The documents are Markdown, read where they lie; what can be wrong with them is tested.
docs: .venv/installed
	@$(venv)/python -m pytest -q tests/test_documents.py $(ARGS)

# The pictures of the server's page in the documents; needs Chromium. ARGS="RUN RUN": of these runs.
screenshots: .venv/installed
	@$(venv)/python -m tests.serving.screenshots $(ARGS)

.venv/python-version:
	@for python in $(PYTHON); do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "zhuyi needs Python 3.11 or newer and found none by the names $(strip $(PYTHON))" \
	         "(python3 is $$(python3 --version 2>&1)). Install one, or name it: make PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	fi; \
	echo "making .venv with $$("$$found" --version)"; \
	"$$found" -m venv .venv && \
	"$$found" --version > $@

# torch comes first: on a Linux machine without a GPU the default build would bring gigabytes of CUDA packages,
# where the build labelled +cpu is complete. Its own dependencies come with the rest, as they are pinned.
.venv/torch-$(torch): .venv/python-version
	@build=; \
	if [ "$$(uname -s)" = Linux ] && [ "$$ZHUYI_TORCH" != default ] && ! command -v nvidia-smi >/dev/null; then \
	    build=+cpu; \
	fi; \
	echo "installing torch $(torch)$$build"; \
	$(venv)/pip install --quiet --no-deps $${ZHUYI_TORCH_INDEX:+-i "$$ZHUYI_TORCH_INDEX"} "torch==$(torch)$$build" \
	    >.venv/torch.log 2>&1 || { \
	    grep -i error .venv/torch.log | tail -n 1 >&2; \
	    if [ "$$build" ]; then \
	        echo "If your package index has no CPU build of torch, name one that has (PyTorch's installation page" \
	             "gives its address, under Linux, Pip, CPU): make ZHUYI_TORCH_INDEX=ADDRESS. Or take the default" \
	             "build with gigabytes of CUDA: make ZHUYI_TORCH=default" >&2; \
	    fi; exit 1; }; \
	touch $@

.venv/installed: .venv/torch-$(torch) pyproject.toml constraints.txt
	@echo "installing zhuyi and the packages of constraints.txt"
	@$(venv)/pip install --quiet --constraint constraints.txt --editable '.[all,dev]' >.venv/install.log 2>&1 \
	    || { grep -i error .venv/install.log >&2; echo "The whole log is in .venv/install.log" >&2; exit 1; }
	@touch $@

# What tests marked `peers` and benchmarks compare with.
.venv/peers: .venv/installed
	@echo "installing the peers of constraints.txt"
	@$(venv)/pip install --quiet --constraint constraints.txt --editable '.[all,dev,peers]' >.venv/install.log 2>&1 \
	    || { grep -i error .venv/install.log >&2; echo "The whole log is in .venv/install.log" >&2; exit 1; }
	@touch $@

# The peer of benchmarks/transcription.py, which wants no torch.
.venv/faster-whisper/installed: .venv/installed
	@echo "installing faster-whisper $(faster_whisper) into .venv/faster-whisper"
	@$(venv)/python -m venv .venv/faster-whisper
	@.venv/faster-whisper/bin/pip install --quiet "faster-whisper==$(faster_whisper)" >.venv/faster-whisper.log 2>&1 \
	    || { grep -i error .venv/faster-whisper.log >&2; echo "The whole log is in .venv/faster-whisper.log" >&2; exit 1; }
	@touch $@

# A peer of benchmarks/training.py whose pins clash with ours. It imports importlib_metadata without declaring it.
.venv/joeynmt/installed: .venv/installed
	@echo "installing JoeyNMT $(joeynmt) into .venv/joeynmt"
	@$(venv)/python -m venv .venv/joeynmt
	@torch=$$($(venv)/python -c 'import torch; print(torch.__version__)') && \
	{ .venv/joeynmt/bin/pip install --quiet --no-deps $${ZHUYI_TORCH_INDEX:+-i "$$ZHUYI_TORCH_INDEX"} "torch==$$torch" && \
	  .venv/joeynmt/bin/pip install --quiet "torch==$$torch" "joeynmt==$(joeynmt)" "importlib_metadata==10.2.0"; } \
	    >.venv/joeynmt.log 2>&1 \
	    || { grep -i error .venv/joeynmt.log >&2; echo "The whole log is in .venv/joeynmt.log" >&2; exit 1; }
	@touch $@
