COMFYUI_VERSION ?= 0.30.0
TORCH ?= torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0

# ComfyUI needs Python 3.10 or newer, and 3.13 is the newest that every dependency has wheels for.
PYTHON ?= $(shell for python in python3 python3.12 python3.13 python3.11 python3.10; do \
	$$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$python && break; done)

# Test files run in parallel, each with one thread: the networks are tiny. A test that hangs fails after 15 minutes.
WORKERS ?= 2
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --timeout 900

VENV := .venv
BIN := $(VENV)/bin
COMFYUI := .comfyui/ComfyUI-$(COMFYUI_VERSION)
BASE_STAMP := $(VENV)/.made
TORCH_STAMP := $(VENV)/.torch
STAMP := $(VENV)/.installed-$(COMFYUI_VERSION)
export COMFYUI_VERSION

# MediaPipe's model, where a copy lies beside the repository, also serves the command line: it looks into models/.
SHARED_LANDMARKER := ../shared/models/face_landmarker.task
LANDMARKER := models/latentsync/face_landmarker.task

.DEFAULT_GOAL := help
FUZZED := landmarks-file landmarks-value safetensors pickle shapes names video sound
FUZZ_SECONDS ?= 67

PACKAGE ?= dist/latentsync-nodes.zip
PACKED_WITHOUT = $(shell sed -E 's|^/?(.*)$$|":(exclude)\1"|' .comfyignore)

.PHONY: help venv demo serve check test nightly compat fuzz gpu lint docs package miniature clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP) $(if $(wildcard $(SHARED_LANDMARKER)),$(LANDMARKER)) ## make .venv, download ComfyUI and install everything

demo: venv ## lip-sync a sample clip in a real ComfyUI (WEIGHTS=1.5 or 1.6 downloads real weights first)
	$(BIN)/python -m scripts.demo $(if $(WEIGHTS),--weights $(WEIGHTS)) $(ARGS)

serve: venv ## the same ComfyUI for the browser, on http://127.0.0.1:8188
	$(BIN)/python -m scripts.demo --keep-serving $(if $(WEIGHTS),--weights $(WEIGHTS)) $(ARGS)

check: lint ## linters, unit and parity tests (ARGS="-k timeline" to choose)
	$(PYTEST) tests/parity tests/unit -m "not slow" $(ARGS)

test: lint ## everything a change must pass: linters, unit, parity, comfyui and e2e tests
	$(PYTEST) $(ARGS)

nightly: venv ## kills, floods, browser, registry, every ComfyUI, fuzzing: hours
	$(BIN)/python -m pytest tests/nightly --timeout 7200 $(ARGS)
	$(BIN)/python -m pytest $(shell grep -l "^@given" -r tests/unit --include=*.py) --hypothesis-profile random
	$(MAKE) compat fuzz

compat: venv ## try every ComfyUI and the oldest and newest libraries that are supported (ARGS="0.20.1" to choose a ComfyUI)
	$(BIN)/python -m scripts.compat $(ARGS)
	$(BIN)/python -m scripts.compat_libraries

fuzz: venv ## ten minutes of coverage-guided fuzzing of what we parse (x86 Linux)
	$(BIN)/uv pip install --python $(BIN)/python -r requirements-fuzz.txt
	for target in $(FUZZED); do $(BIN)/python -m tests.nightly.faults.fuzz_parsers $$target -max_total_time=$(FUZZ_SECONDS) \
		-timeout=20 -rss_limit_mb=4096 -print_final_stats=1 || exit 1; done

gpu: venv ## measure the GPU: accuracy, speed and VRAM, in ten minutes (ARGS="--minutes 30" for more)
	$(BIN)/python -m benchmarks.gpu $(ARGS)

lint: venv ## ruff, pyright and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

package: ## write the archive for custom_nodes: dist/latentsync-nodes.zip
	mkdir -p $(dir $(PACKAGE))
	git archive --format zip --prefix latentsync-nodes/ --output $(PACKAGE) HEAD . $(PACKED_WITHOUT)
	@echo "Unpack $(PACKAGE) into ComfyUI/custom_nodes."

miniature: venv ## train the demo's small model again (95 minutes; ARGS="--unet-minutes 10" for less)
	$(BIN)/python -m training.miniature $(ARGS)

docs: venv ## write the generated parts of the documentation
	$(BIN)/python -m scripts.error_table
	$(BIN)/python -m scripts.cli_reference

clean: ## remove .venv, .comfyui and .compat
	rm -rf $(VENV) .comfyui .compat

$(BASE_STAMP):
	@test -n "$(PYTHON)" || { echo "No Python 3.10 to 3.13 found; name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	touch $@

$(TORCH_STAMP): $(BASE_STAMP)
	$(BIN)/uv pip install --python $(BIN)/python $(TORCH)
	touch $@

$(COMFYUI)/comfyui_version.py: | $(BASE_STAMP)
	$(BIN)/python scripts/download_comfyui.py $(COMFYUI_VERSION) --into .comfyui

$(LANDMARKER):
	mkdir -p $(@D)
	ln -sf $(abspath $(SHARED_LANDMARKER)) $@

$(STAMP): $(TORCH_STAMP) $(COMFYUI)/comfyui_version.py requirements.txt requirements-dev.txt
	$(BIN)/uv pip install --python $(BIN)/python $(TORCH) -r $(COMFYUI)/requirements.txt -r requirements.txt -r requirements-dev.txt
	touch $@
