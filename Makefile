# Every verb sets up by itself: a virtual environment in .venv with the tested versions (constraints.txt), the native
# machine built into it. `make demo` and `make test` are the two to begin with.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := $(wildcard native/*.cpp native/*.h)

.PHONY: help setup demo test check bench rivals recipes bench-published sanitize tiles soak cuda wheel docs clean

help:
	@echo "make demo   train a small language model for about a minute and let it write"
	@echo "make test   run the tests"
	@echo "make check  ruff and mypy"
	@echo "make bench  time every case against its rival (ARGS= for its options)"
	@echo "make recipes  train and measure what recipes/ says (DATA= the folder with the data, ONLY= names)"
	@echo "make rivals install JAX and onnxruntime, which the benchmark measures too where they are"
	@echo "make bench-published  accelerate a published model: the same numbers, and the time"
	@echo "make sanitize  the native machine's tests under ASan, UBSan and TSan, AVX-512 and AVX2"
	@echo "make tiles  the tests of precisions on an emulated matrix unit (AMX)"
	@echo "make soak   ten thousand random calls, right and wrong ones (make test: the first thousand)"
	@echo "make cuda   on a machine with a GPU: the kernels' tests and the rows of the benchmark for it"
	@echo "make docs   run every snippet of README and docs, follow every link between them"
	@echo "make wheel  build a wheel into dist/"
	@echo "make clean  remove what the above made"

setup: $(VENV)/.installed

# torch first and alone: it is large, and it does not change when the project does.
$(VENV)/.torch: constraints.txt
	@test -n "$(PYTHON)" || { echo "Recurra needs Python 3.11 or later (apt install python3 python3-venv python3-dev)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Recurra needs Python 3.11 or later, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt torch==2.13.0
	$(PIP) install -c constraints.txt scikit-build-core nanobind cmake ninja
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml CMakeLists.txt $(SOURCES)
	$(PIP) install -c constraints.txt --no-build-isolation -C build-dir=$(VENV)/build -e '.[dev]'
	@touch $@

demo: setup
	$(BIN)/recurra demo $(ARGS)

test: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks $(ARGS)

recipes: setup
	$(BIN)/python -m recipes --data '$(or $(DATA),$(RECURRA_DATA))' --only '$(ONLY)' $(ARGS)

rivals: setup
	$(PIP) install -c constraints.txt 'jax[cpu]' onnx onnxruntime

bench-published: setup
	$(PIP) install --no-deps resemblyzer
	$(BIN)/python -m benchmarks.published

sanitize: setup
	.ci/sanitize address $(BIN)/python
	.ci/sanitize thread $(BIN)/python

tiles: setup
	.ci/tiles $(BIN)/python

docs: setup
	$(BIN)/python -m pytest tests/test_readme.py $(ARGS)

soak: setup
	RECURRA_CALLS=10000 $(BIN)/python -m pytest tests/test_random_calls.py $(ARGS)

cuda: setup
	$(PIP) install -c constraints.txt triton
	PYTHONPATH=tests $(BIN)/python -m pytest tests/triton_laws.py tests/test_triton.py tests/test_cudnn.py $(ARGS)
	$(BIN)/python -m benchmarks --rows cuda

wheel: setup
	$(PIP) wheel --no-build-isolation --no-deps --wheel-dir dist .
	@ls dist/*.whl

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis recurra/_native*.so
	find recurra tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
