# Every target first sets up a virtual environment with the machine's python3, and installs what the target needs.
PYTHON ?= python3
BIN := .venv/bin
# Each worker uses one thread, so that workers do not compete for the cores.
export OMP_NUM_THREADS ?= 1
WORKERS ?= 2

.PHONY: demo test test-isa mutations lint check peers clean

demo: .venv/.installed  ## Benchmarks four strategies on four problems, with table, report and curves.
	$(BIN)/zoo benchmark -s open_es -s snes -s cma_es -s random_search \
	  -p supervised/digits -p rl/CartPole-v1 -p blackbox/ellipsoidal_rotated -p blackbox/rastrigin \
	  --set-problem supervised/digits:hidden=8 --seeds 3 --out results/demo \
	  --steps supervised/digits=30_000 --steps rl/CartPole-v1=200_000 \
	  --steps blackbox/ellipsoidal_rotated=10_000 --steps blackbox/rastrigin=20_000

test: .venv/.installed-test  ## Runs the test suite.
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

# Tests against references in double precision, and tests whose results must not depend on rounding.
ORACLES = $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal $(addprefix tests/strategies/test_, \
  cma_family.py cma_es.py lra_cma_es.py nes.py shaping.py)

test-isa: .venv/.installed-test  ## Runs some tests with the rounding of an old CPU, AVX2, this CPU, and optimised code.
	XLA_FLAGS=--xla_cpu_max_isa=SSE4_2 OPENBLAS_CORETYPE=Nehalem NPY_DISABLE_CPU_FEATURES=X86_V3 $(ORACLES)
	XLA_FLAGS=--xla_cpu_max_isa=AVX2 $(ORACLES)
	$(ORACLES)
	XLA_FLAGS="--xla_backend_optimization_level=3 --xla_cpu_enable_concurrency_optimized_scheduler=false \
	  --xla_cpu_multi_thread_eigen=true" OMP_NUM_THREADS=2 $(ORACLES)

mutations: .venv/.installed-test  ## Breaks the code with each patch in turn, and prints the test that fails. Takes hours.
	$(BIN)/python -m tests.mutations $(ONLY)

lint: .venv/.installed-test .venv/types  ## Checks style, naming rules and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

check: lint test

peers: .venv/.installed-test  ## Installs the peers that the benchmarks compare with.
	$(BIN)/python -m pip install -q -e ".[peers]"

.venv/.installed: pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e .
	touch $@

.venv/.installed-test: .venv/.installed
	$(BIN)/python -m pip install -q -e ".[test]"
	touch $@

# The package `zoo` for the type checker, which does not find the mapped folders itself.
.venv/types: .venv/.installed
	mkdir -p $@/zoo
	touch $@/zoo/__init__.py
	ln -sfn ../../../strategies ../../../problems $@/zoo

clean:
	rm -rf .venv .cache build *.egg-info
