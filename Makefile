# make test: everything that must hold. make race: optimizers side by side on real text.
# Both set themselves up; they need Python 3.11 or newer and nothing else.

PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready
TESTS := $(BIN)/pytest -q -n auto --dist loadgroup --durations 10
LAWS := $(addprefix tests/test_,laws.py oracles.py constant_gradients.py tree.py)

.PHONY: test race bench check-full clean

test: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	$(TESTS) -m "not slow and not optimized"
	GRADKIT_XLA=default $(TESTS) -m "optimized and not slow" $(LAWS)

race: $(READY)
	$(BIN)/gradkit race --task bytes --recipes adamw,ademamix,grams,lion,muon,fira \
		--steps 200 --trials 5 --seeds 2 --out runs/make-race-$$(date +%Y%m%d-%H%M%S)

bench: $(READY)
	$(BIN)/python benchmarks/step_time.py

check-full: test bench race
	$(TESTS) -m slow
	GRADKIT_XLA=default $(TESTS) -m "slow or not optimized" $(LAWS)

clean:
	rm -rf .venv

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "gradkit needs Python 3.11 or newer on the PATH."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable ".[lab,dev]"
	@touch $@
