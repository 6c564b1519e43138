# Every command of the project; `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
RUN_DIR ?= runs/demo-$(shell date +%Y%m%d-%H%M%S)
BIN := $(VENV)/bin
PY := $(BIN)/python
STAMPS := $(VENV)/.stamps
SOURCES := pyproject.toml setup.py rust/Cargo.toml rust/Cargo.lock \
	$(wildcard rust/src/*.rs rust/src/*/*.rs csrc/*.cuh csrc/*.cu csrc/*.cpp)

.DEFAULT_GOAL := help

.PHONY: help ## list the commands
help:
	@sed -n 's/^\.PHONY: \([a-z-]*\) ## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "rlox-gpu needs Python 3.10 or newer; set PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "cannot make a virtual environment; install the venv module (Debian/Ubuntu: apt-get install python3-venv)" >&2; exit 1; }

# One stamp per set of extras; a change of a native source builds again.
$(STAMPS)/%: $(PY) $(SOURCES)
	@command -v cargo >/dev/null || { echo "cargo not found; install Rust 1.89 or newer from https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null || \
		{ echo "no C++ compiler found; install one (Debian/Ubuntu: apt-get install g++)" >&2; exit 1; }
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@mkdir -p $(STAMPS) && touch $@

.PHONY: build ## install the package from source into .venv
build: $(STAMPS)/tensorboard,plot

.PHONY: demo ## train PPO on CartPole-v1 until 20 evaluation episodes average 475
demo: $(STAMPS)/tensorboard,plot
	$(BIN)/rlox-gpu train ppo --env CartPole-v1 --device auto --target 475 --run-dir $(RUN_DIR)

.PHONY: test ## install with the test extra and run the whole suite
test: $(STAMPS)/test
	cd rust && cargo test --quiet
	$(PY) -m pytest -n 2 tests

.PHONY: check ## formatters, linters and type checks
check: $(STAMPS)/test,dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd rust && cargo fmt --check
	cd rust && cargo clippy --quiet --all-targets --features python -- -D warnings
	$(BIN)/clang-format --dry-run --Werror csrc/*.cuh csrc/*.cu csrc/*.cpp

.PHONY: format ## format every source file
format: $(STAMPS)/test,dev
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .
	cd rust && cargo fmt
	$(BIN)/clang-format -i csrc/*.cuh csrc/*.cu csrc/*.cpp

.PHONY: bench ## run the benchmarks, then print the table and draw the plot
bench: $(STAMPS)/test,bench
	cd bench && ../$(PY) -m pytest --benchmark-json=results/latest.json
	$(PY) bench/report.py bench/results/latest.json

.PHONY: gpu-check ## everything a GPU owner should run; writes one report file
gpu-check: $(STAMPS)/test,bench
	$(PY) bench/gpu_check.py

.PHONY: clean ## remove build products and the virtual environment
clean:
	rm -rf $(VENV) build dist *.egg-info rust/target rlox_gpu/*.so
