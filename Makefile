# `make demo` and `make test` need GNU make, a Python from 3.11 on, and pip. Nothing else.
# The first of these that is new enough; `make PYTHON=...` names another.
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11 python
NEW_ENOUGH := 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for p in $(PYTHONS); do if $$p -c $(NEW_ENOUGH) 2>/dev/null; then echo $$p; break; fi; done)
TOO_OLD = $(shell for p in $(PYTHONS); do if $$p -c '' 2>/dev/null; then echo "$$p ($$($$p --version 2>&1))"; fi; done)
NO_PYTHON = earteach needs Python 3.11 or newer; found $(or $(TOO_OLD),no Python at all). Install one, or name it: make PYTHON=/path/to/python
PYTHON_CHECKED = $(or $(PYTHON),$(error $(NO_PYTHON)))

VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --quiet --disable-pip-version-check
INSTALL := $(BIN)/python $(PIP_INSTALL) -c constraints.txt
PYTEST := $(BIN)/python -m pytest
DEMO := demo
RELEASE := build/release
DRAWN := build/drawn
# `make bench-quality`: what it measures on, and where it writes. Keep real ears out of the checkout.
BENCH_TRAIN ?= data/preprocessed/train_teacher.npy
BENCH_VAL ?= val=data/preprocessed/val_teacher.npy
BENCH_OUT ?= ../earteach-quality
MINUTES ?= 45

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install demo format lint types test test-slow test-outputs test-all test-lowest coverage mutants \
  bench bench-quality docs drawn outputs site audit dist check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV): downloads torch and the rest once, usually 2 to 10 minutes"
	test -x $(BIN)/python || $(PYTHON_CHECKED) -m venv $(VENV)
	$(INSTALL) torch torchvision
	$(INSTALL) -e '.[dev]'
	touch $@

install: $(VENV)/installed ## create the environment in .venv

demo: $(VENV)/installed ## draw ears, train, evaluate, sample: about 6 minutes on 2 cores
	rm -rf $(DEMO)
	@echo "[1/6] Drawing 1,200 ears, about 10 seconds on 2 cores"
	$(BIN)/earteach prepare --synthetic 1200 --image-size 64 --out $(DEMO)/data
	@echo "[2/6] Checking the arrays, about 15 seconds"
	$(BIN)/earteach inspect-data $(DEMO)/data/train_teacher.npy $(DEMO)/data/val_teacher.npy \
	  --image-size 64 --augmented --out $(DEMO)/inspection
	@echo "[3/6] Training 10 epochs, 3 minutes with avx512_bf16, about 5 minutes without"
	$(BIN)/earteach train --train-data $(DEMO)/data/train_teacher.npy \
	  --val-data $(DEMO)/data/val_teacher.npy --image-size 64 --base-channels 32 --precision bf16 \
	  --epochs 10 --checkpoint-dir $(DEMO)/checkpoints --log-dir $(DEMO)/logs
	@echo "[4/6] Evaluating the model beside PCA, about 15 seconds"
	$(BIN)/earteach eval --checkpoint-dir $(DEMO)/checkpoints
	@echo "[5/6] Reconstructing 8 validation ears, about 5 seconds"
	$(BIN)/earteach reconstruct --checkpoint-dir $(DEMO)/checkpoints \
	  --input $(DEMO)/data/val_teacher.npy -n 8 --out $(DEMO)/reconstructions
	@echo "[6/6] Sampling 16 new ears, about 15 seconds"
	$(BIN)/earteach sample --checkpoint-dir $(DEMO)/checkpoints -n 16 --out $(DEMO)/samples
	@echo "Done. Look at:"
	@echo "  $(DEMO)/samples/grid.png     new ears, each above its nearest training image"
	@echo "  $(DEMO)/reconstructions/     input, reconstruction and error of 8 validation ears"
	@echo "  $(DEMO)/inspection/          the training images, as stored and as augmented"
	@echo "Next: docs/tutorial.md explains each step."

format: $(VENV)/installed ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/installed ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed ## check types
	$(BIN)/mypy

test: $(VENV)/installed ## run the fast tests: about 5 minutes on 2 cores
	$(PYTEST) -n 2 --dist loadfile

test-slow: $(VENV)/installed ## run the slow tests: killed processes, longer trainings, the docs
	$(PYTEST) -n 2 --dist loadfile -m 'slow and not outputs'

test-outputs: $(VENV)/installed ## compare the output shown in README and tutorial with a full run (20 minutes)
	$(PYTEST) -m outputs

test-all: test test-slow ## run the fast tests and the slow ones

test-lowest: ## run the fast tests on the oldest dependencies allowed, in .venv-lowest
	test -x .venv-lowest/bin/python || $(PYTHON_CHECKED) -m venv .venv-lowest
	.venv-lowest/bin/python $(PIP_INSTALL) -c constraints-lowest.txt torch torchvision
	.venv-lowest/bin/python $(PIP_INSTALL) -c constraints-lowest.txt -e '.[test]'
	.venv-lowest/bin/python -m pytest -n 2 --dist loadfile

coverage: $(VENV)/installed ## run the fast tests and list the lines that they miss
	$(INSTALL) -e '.[quality]'
	$(PYTEST) -n 2 --dist loadfile --cov --cov-report term

mutants: $(VENV)/installed ## mutate the code and list the changes that no test notices (hours)
	$(INSTALL) -e '.[quality]'
	OMP_NUM_THREADS=1 $(BIN)/mutmut run
	$(BIN)/mutmut results

bench: $(VENV)/installed ## measure speed and memory, and update docs/measurements.md (30 minutes)
	$(BIN)/python -m benchmarks.speed --save docs/measurements/speed.json
	$(BIN)/python -m benchmarks.tables

bench-quality: $(VENV)/installed ## compare with PCA and two peers, MINUTES each, and update docs/measurements.md
	$(INSTALL) -e '.[bench]'
	$(BIN)/python -m benchmarks.quality --train $(BENCH_TRAIN) $(addprefix --val ,$(BENCH_VAL)) \
	  --minutes $(MINUTES) --out $(BENCH_OUT) --save docs/measurements/quality.json
	$(BIN)/python -m benchmarks.tables

docs: $(VENV)/installed ## regenerate the generated parts of the docs
	$(BIN)/python -m typer earteach.cli.app utils docs --name earteach --title "Command line" \
	  --output docs/reference/cli.md
	$(BIN)/python docs/schedules.py docs/images/schedules.svg
	$(BIN)/python -m benchmarks.tables

drawn: $(VENV)/installed ## train the network in the package on drawn ears: about 70 minutes on one core
	rm -rf $(DRAWN)
	$(BIN)/earteach prepare --synthetic 6000 --image-size 64 --val-fraction 0.05 --out $(DRAWN)/data
	OMP_NUM_THREADS=1 $(BIN)/earteach train --train-data $(DRAWN)/data/train_teacher.npy \
	  --val-data $(DRAWN)/data/val_teacher.npy --image-size 64 --base-channels 32 --latent-dim 128 \
	  --precision bf16 --num-workers 0 --accelerator cpu --epochs 14 --sharpen-steps 0 \
	  --checkpoint-dir $(DRAWN)/checkpoints --log-dir $(DRAWN)/logs
	$(BIN)/earteach export $(DRAWN)/checkpoints/last.ckpt --format safetensors --out $(DRAWN)/export
	OMP_NUM_THREADS=1 $(BIN)/python -m docs.weights $(DRAWN)/export $(DRAWN)/data/train_teacher.npy
	sha256sum earteach/weights/drawn/model.safetensors

outputs: $(VENV)/installed ## run the commands in the docs and paste their output (5 minutes)
	$(BIN)/python -m docs.outputs

site: $(VENV)/installed ## build the docs as a site in site/; warnings are errors
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet docs site

audit: $(VENV)/installed ## check the dependencies: known vulnerabilities, and no GPL or AGPL
	$(INSTALL) -e '.[audit]'
	# docutils is in the public domain; only an Emacs mode in its sources is GPL.
	$(BIN)/pip-licenses --partial-match --fail-on "GPL" --ignore-packages docutils
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

dist: ## build the wheel and the sdist, check both, and run the README's commands on the wheel
	rm -rf dist $(RELEASE)
	$(PYTHON_CHECKED) -m venv $(RELEASE)/tools
	$(RELEASE)/tools/bin/python $(PIP_INSTALL) -c constraints.txt build twine
	$(RELEASE)/tools/bin/python -m build  # the wheel is built from the sdist
	$(RELEASE)/tools/bin/python -m build --wheel --outdir $(RELEASE)/direct
	cmp dist/*.whl $(RELEASE)/direct/*.whl
	$(RELEASE)/tools/bin/python -m twine check --strict dist/*
	! $(RELEASE)/tools/bin/python -m zipfile -l dist/*.whl | tail -n +2 | grep -v '^earteach[/-]'
	$(PYTHON_CHECKED) -m venv $(RELEASE)/clean
	$(RELEASE)/clean/bin/python $(PIP_INSTALL) -c constraints.txt torch torchvision
	$(RELEASE)/clean/bin/python $(PIP_INSTALL) -c constraints.txt "$$(ls $(CURDIR)/dist/*.whl)[export]"
	sed -n '/^```bash/,/^```/{/^earteach/p;}' README.md > $(RELEASE)/commands
	mkdir $(RELEASE)/elsewhere
	cd $(RELEASE)/elsewhere && PATH="$(CURDIR)/$(RELEASE)/clean/bin:$$PATH" sh -ex ../commands

check: lint types test-all site ## run everything that CI runs

clean: ## remove the environments and everything that was built or that the demo wrote
	rm -rf $(VENV) .venv-lowest $(DEMO) build dist site
