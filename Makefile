# `make demo` and `make test` start from a bare Python 3.11 with pip; nothing else is assumed.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := demo
RELEASE := build/release
# `make bench-quality`: what it measures on, and where it writes. Keep real ears out of the checkout.
BENCH_TRAIN ?= data/preprocessed/train_teacher.npy
BENCH_VAL ?= val=data/preprocessed/val_teacher.npy
BENCH_OUT ?= ../earteach-quality
MINUTES ?= 45
SMALL := --image-size 64 --base-channels 32

.DEFAULT_GOAL := help
.PHONY: help install demo format lint types test test-slow test-lowest coverage mutants bench bench-quality docs site audit dist check clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

install: $(VENV)/installed ## create the environment in .venv

demo: $(VENV)/installed ## draw ears, train, evaluate, sample: a few minutes on 2 cores
	rm -rf $(DEMO)
	$(BIN)/earteach prepare --synthetic 1200 --image-size 64 --out $(DEMO)/data
	$(BIN)/earteach inspect-data $(DEMO)/data/train_teacher.npy $(DEMO)/data/val_teacher.npy --image-size 64 \
	  --augmented --out $(DEMO)/inspection
	$(BIN)/earteach train --train-data $(DEMO)/data/train_teacher.npy --val-data $(DEMO)/data/val_teacher.npy \
	  $(SMALL) --precision bf16 --epochs 10 --checkpoint-dir $(DEMO)/checkpoints --log-dir $(DEMO)/logs
	$(BIN)/earteach eval --checkpoint-dir $(DEMO)/checkpoints
	$(BIN)/earteach reconstruct --checkpoint-dir $(DEMO)/checkpoints --input $(DEMO)/data/val_teacher.npy -n 8 --out $(DEMO)/reconstructions
	$(BIN)/earteach sample --checkpoint-dir $(DEMO)/checkpoints -n 16 --out $(DEMO)/samples
	@echo "Look at $(DEMO)/samples/grid.png, $(DEMO)/reconstructions and $(DEMO)/inspection."

format: $(VENV)/installed ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/installed ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed ## check types
	$(BIN)/mypy

test: $(VENV)/installed ## run the tests, in minutes, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/installed ## run the long tests: killed processes and the like
	$(BIN)/python -m pytest -m slow

test-lowest: ## run the tests on the lowest versions that pyproject.toml declares, in .venv-lowest
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints-lowest.txt torch torchvision
	.venv-lowest/bin/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints-lowest.txt -e '.[test]'
	.venv-lowest/bin/python -m pytest -n 2 --dist loadfile

coverage: $(VENV)/installed ## run the tests, and list the lines that none of them reaches
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt -e '.[quality]'
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report term

mutants: $(VENV)/installed ## change the network, the data and checkpoints in thousands of places, and see which changes no test finds
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt -e '.[quality]'
	OMP_NUM_THREADS=1 $(BIN)/mutmut run
	$(BIN)/mutmut results

bench: $(VENV)/installed ## where the time goes: each ratio beside its target, under half an hour
	$(BIN)/python -m benchmarks.speed

bench-quality: $(VENV)/installed ## earteach beside eigenears and two peers, MINUTES of training each
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks.quality --train $(BENCH_TRAIN) $(addprefix --val ,$(BENCH_VAL)) --minutes $(MINUTES) --out $(BENCH_OUT)

docs: $(VENV)/installed ## write the generated parts of the docs anew
	$(BIN)/python -m typer earteach.cli.app utils docs --name earteach --title "Command line" --output docs/reference/cli.md
	$(BIN)/python docs/schedules.py docs/images/schedules.svg

site: $(VENV)/installed ## build the docs as a site in site/; whatever does not fit is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet docs site

audit: $(VENV)/installed ## known vulnerabilities of what is pinned; licences of what is installed, none of them GPL or AGPL
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt -e '.[audit]'
	$(BIN)/pip-licenses --partial-match --fail-on "GPL" --ignore-packages docutils # of which the library is in the public domain, an Emacs mode GPL
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

dist: ## build the wheel and the sdist, check both, and run the README's commands with the wheel alone
	rm -rf dist $(RELEASE)
	$(PYTHON) -m venv $(RELEASE)/tools
	$(RELEASE)/tools/bin/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt build twine
	$(RELEASE)/tools/bin/python -m build  # the wheel from the sdist
	$(RELEASE)/tools/bin/python -m build --wheel --outdir $(RELEASE)/direct
	cmp dist/*.whl $(RELEASE)/direct/*.whl
	$(RELEASE)/tools/bin/python -m twine check --strict dist/*
	! $(RELEASE)/tools/bin/python -m zipfile -l dist/*.whl | tail -n +2 | grep -v '^earteach[/-]'
	$(PYTHON) -m venv $(RELEASE)/clean
	$(RELEASE)/clean/bin/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt "$$(ls $(CURDIR)/dist/*.whl)[export]"
	sed -n '/^```bash/,/^```/{/^earteach/p}' README.md > $(RELEASE)/commands
	mkdir $(RELEASE)/elsewhere
	cd $(RELEASE)/elsewhere && PATH=$(CURDIR)/$(RELEASE)/clean/bin:$$PATH bash -ex ../commands

check: lint types test site ## all that CI runs

clean: ## remove the environments, what was built and what the demo wrote
	rm -rf $(VENV) .venv-lowest $(DEMO) build dist site
