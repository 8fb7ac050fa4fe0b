# Every target sets up what it needs: a virtual environment with the machine's python3.
PYTHON ?= python3
BIN := .venv/bin
# Workers must not fight for the cores.
export OMP_NUM_THREADS ?= 1
WORKERS ?= 2

.PHONY: demo test lint check peers clean

demo: .venv/.installed  ## The main job: four strategies on four problems, with table, report and curves.
	$(BIN)/zoo benchmark -s open_es -s snes -s cma_es -s random_search \
	  -p supervised/digits -p rl/CartPole-v1 -p blackbox/ellipsoidal_rotated -p blackbox/rastrigin \
	  --set-problem supervised/digits:hidden=8 --seeds 3 --out results/demo \
	  --steps supervised/digits=30_000 --steps rl/CartPole-v1=200_000 \
	  --steps blackbox/ellipsoidal_rotated=10_000 --steps blackbox/rastrigin=20_000

test: .venv/.installed-test  ## The test suite.
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

lint: .venv/.installed-test .venv/types  ## Style, naming rules and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

check: lint test

peers: .venv/.installed-test  ## What the side-by-side benchmarks compare with.
	$(BIN)/python -m pip install -q -e ".[peers]"

.venv/.installed: pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e .
	touch $@

.venv/.installed-test: .venv/.installed
	$(BIN)/python -m pip install -q -e ".[test]"
	touch $@

# A package whose parts lie where the type checker would not look for them.
.venv/types: .venv/.installed
	mkdir -p $@/zoo
	touch $@/zoo/__init__.py
	ln -sfn ../../../strategies ../../../problems $@/zoo

clean:
	rm -rf .venv build *.egg-info
