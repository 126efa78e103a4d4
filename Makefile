# Everything a developer runs. Each target makes .venv itself, from the versions in constraints.txt.
#
# PYTHON=python3.12        which Python to use; default: the first of CANDIDATES that fits
# PIP_EXTRA_INDEX_URL=…    pass torch's CPU wheel index here to avoid the CUDA build, several gigabytes that
#                          neither the demo nor the tests need. pip's other variables work as well, and
#                          TORCH_INDEX_ARGS holds pip arguments for torch alone.
# PYTEST_ARGS='-k rope'    what pytest is told

VENV := .venv
RUN := $(VENV)/bin/python -m
READY := $(VENV)/.ready
PIP := $(RUN) pip --disable-pip-version-check install --quiet --constraint constraints.txt
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
PYTEST_ARGS ?= -n 2 --dist worksteal

# What fits is asked by running it: a name on the path can be a shim of a version that is not there, and Debian
# ships python3 without the ensurepip that venv needs.
FITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint measure types docs docs-serve recording wheel clean

help:  ## Show this
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(READY)  ## Make a random checkpoint, export it, run text-to-video and image-to-video; leaves demo/
	$(RUN) ltxrt.parity.demo --output demo

test: $(READY)  ## Run the tests but the slow ones
	OMP_NUM_THREADS=1 $(RUN) pytest -m 'not slow' $(PYTEST_ARGS)

test-all: $(READY)  ## Run all tests
	OMP_NUM_THREADS=1 $(RUN) pytest $(PYTEST_ARGS)

lint: $(READY)  ## Check style and the limits on files and functions
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(VENV)/bin/python .ci/measure.py --check
	$(VENV)/bin/python .ci/figures.py --check

measure: $(READY)  ## Print the code's measures
	$(VENV)/bin/python .ci/measure.py

# mypy cannot follow an editable install's import hook, so it is shown the folders under one name.
types: $(READY)  ## Check types, also as they are on Windows
	@mkdir -p .types/ltxrt
	@ln -sfn ../../api/__init__.py .types/ltxrt/__init__.py
	@for folder in engines export parity runtime; do ln -sfn ../../$$folder .types/ltxrt/$$folder; done
	MYPYPATH=.types $(RUN) mypy -p ltxrt
	MYPYPATH=.types $(RUN) mypy --platform win32 --cache-dir .mypy_cache/win32 \
	  -m ltxrt -p ltxrt.engines -p ltxrt.export -p ltxrt.runtime

# MkDocs announces its successors at each start.
docs: $(READY)  ## Build the documentation site in site/; fails at a link that leads nowhere
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict --quiet

docs-serve: $(READY)  ## Show the site on a local port, and again whenever a page changes
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs serve

recording: $(READY)  ## Record the README's moving picture: commands in a terminal of their own
	$(VENV)/bin/python .ci/record.py docs/readme/terminal.webp

# The wheel is built from the source archive, not the tree: setuptools keeps deleted modules in build/.
wheel: $(READY)  ## Build dist/*.tar.gz and dist/*.whl
	$(RUN) build --no-isolation --outdir dist

clean:  ## Remove everything that make made
	rm -rf $(VENV) .types build dist demo site *.egg-info .pytest_cache .mypy_cache .ruff_cache

# torch comes first and alone: a CPU build that is at hand is taken, and all else finds it installed. The stamp
# comes last: an installation that failed half-way is begun again.
$(READY): pyproject.toml constraints.txt
	@rm -f $@
	@python='$(PYTHON)'; \
	for candidate in $(CANDIDATES); do \
	  test -z "$$python" && $$candidate -c '$(FITS)' 2>/dev/null && python=$$candidate; \
	done; \
	if ! $$python -c '$(FITS)' 2>/dev/null; then \
	  echo "error: ltxrt needs Python 3.11, 3.12, 3.13 or 3.14 with its venv module (on Debian: python3-venv);" \
	    "$${python:-python3} is $$($${python:-python3} --version 2>&1)." \
	    "Install one, or say which: make PYTHON=/path/to/python3.12" >&2; \
	  exit 2; \
	fi; \
	echo "$$python -m venv $(VENV)" && $$python -m venv $(VENV)
	$(PIP) setuptools
	$(PIP) $(TORCH_INDEX_ARGS) $$(grep '^torch==' constraints.txt)
	$(PIP) --no-build-isolation --editable '.[cpu,export,parity,dev,docs,tensorrt-rtx]'
	@touch $@
