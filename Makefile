# mailgate: `make demo` and `make test` do all their own set-up (as root on Debian 12); a second run reuses it.
# The distribution's Python where there is one: it is what the service will run on, and Debian builds it for speed.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
BIN := .venv/bin

.PHONY: help demo test check bench lint fmt venv parts lock clean

help:
	@echo 'make demo    set up all that is needed and show the main job on the real Exim and Mailman'
	@echo 'make test    set up all that is needed and run every check and test (what CI runs)'
	@echo 'make check   linters, types and tests, with what is installed already'
	@echo 'make bench   messages per second, next to Postfix in the same run'
	@echo 'make lock    write the lock files anew from pyproject.toml'

demo: venv parts
	$(BIN)/python -m tests.demo

test: venv parts
	$(MAKE) --no-print-directory check

# Compiled here, since daemons that run as nobody can't write it down, and would compile at each start.
check: lint
	@$(BIN)/python -W ignore -m compileall -q mailgate .venv/lib
	$(BIN)/pytest -n 4 --dist loadfile

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fmt:
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: venv parts
	$(BIN)/python -m bench

venv: .venv/.done

.venv/.done: requirements.lock requirements-dev.lock pyproject.toml
	sh tests/stack/python.sh $(PYTHON)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

parts:
	sh tests/stack/install.sh

lock:
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header -o requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header --extra dev -c requirements.lock -o requirements-dev.lock pyproject.toml

clean:
	rm -rf .venv .parts build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis bench/out
