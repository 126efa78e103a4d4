# Everything a fresh Linux machine with Python needs is done here: `make demo` and `make test` set themselves up.
#
# torch is installed first and alone, because any open range pulls several gigabytes of CUDA packages. Where the
# default index has no CPU build, name torch's CPU wheel index in PIP_EXTRA_INDEX_URL, or pass other pip
# arguments in TORCH_INDEX_ARGS.

TORCH := torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
PYTEST_ARGS ?= -n 2 --dist loadfile

.PHONY: help demo test lint types wheel clean

help:  ## Show this
	@grep -hE '^[a-z]+: .*##|^[a-z]+:  ##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

demo: $(READY)  ## Make a random checkpoint, export it, run text-to-video and image-to-video; leaves demo/
	$(BIN)/python -m ltxrt.parity.demo --output demo

test: $(READY)  ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(READY)  ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy cannot follow an editable install's import hook, so it is shown the folders under one name.
types: $(READY)  ## Check types
	@mkdir -p .types/ltxrt
	@for d in engines export parity runtime; do ln -sfn ../../$$d .types/ltxrt/$$d; done
	MYPYPATH=.types $(BIN)/mypy -p ltxrt

wheel: $(READY)  ## Build dist/*.whl and dist/*.tar.gz
	$(BIN)/python -m build

clean:  ## Remove everything that make made
	rm -rf $(VENV) .types build dist demo *.egg-info

# The stamp comes last: an installation that failed half-way is begun again.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11, 3.12 or 3.13 is needed and none was found; install one or pass PYTHON=…"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25'
	$(BIN)/python -m pip install --quiet $(TORCH_INDEX_ARGS) $(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[cpu,export,parity,dev]'
	@touch $@
