# Two commands for a newcomer: `make demo` and `make test`. Each sets the environment up first, once.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
SETUP := $(VENV)/.setup-done
# The development build compiles CUDA only where a GPU is; `make wheel` and plain pip do wherever nvcc is.
SSLK_CUDA ?= $(shell nvidia-smi >/dev/null 2>&1 && echo 1 || echo 0)

# So many processes share the tests, a file each at a time.
PROCESSES ?= 2

.PHONY: setup demo test fuzz lint bench sanitize docs wheel sdist clean

setup: $(SETUP)

$(SETUP): pyproject.toml constraints.txt setup.py $(shell find csrc -type f)
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip setuptools wheel
	$(PY) -m pip install --quiet --constraint constraints.txt torch torchvision
	$(PY) -m pip install --quiet --constraint constraints.txt ninja pybind11
	SSLK_CUDA=$(SSLK_CUDA) $(PY) -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[all,test,bench,docs,notebook]"
	touch $@

demo: $(SETUP)
	$(VENV)/bin/sslk demo

# One thread a process, but where a test sets more.
test: $(SETUP)
	OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses $(PROCESSES) --dist loadfile

# The fuzzer of the ops, or of the files that are read (FUZZ=files), on random cases of its own; each failure is printed with
# the seed and case that reproduce it.
FUZZ ?= ops
MINUTES ?= 60
SEED ?= $(shell date +%s)
fuzz: $(SETUP)
	$(PY) -m tests.fuzz.$(FUZZ) --minutes $(MINUTES) --seed $(SEED)

lint: $(SETUP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/clang-format --dry-run --Werror $$(find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

# Large outputs are kept by the allocator, so that the benchmarks measure kernels and not page faults.
bench: $(SETUP)
	MALLOC_MMAP_THRESHOLD_=8000000000 MALLOC_TRIM_THRESHOLD_=16000000000 $(PY) -m pytest bench --benchmark-only

# The CPU library under AddressSanitizer and UndefinedBehaviorSanitizer, in a folder of its own, below the kernel tests and
# 8,000 cases of the op fuzzer.
# torch is not instrumented: leaks and the order of its own initialisers are not ours to report.
SANITIZED := build/sanitize
UNDER_SANITIZERS = LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0:check_initialization_order=0 UBSAN_OPTIONS=print_stacktrace=1 \
  PYTHONPATH=$(CURDIR)/$(SANITIZED)/lib $(CURDIR)/$(PY)
sanitize: $(SETUP)
	SSLK_CUDA=0 SSLK_SANITIZE=1 $(PY) setup.py -q build_ext --build-temp $(SANITIZED)/temp --build-lib $(SANITIZED)/lib
	cp -r ssl_kernels/*.py ssl_kernels/reference $(SANITIZED)/lib/ssl_kernels/
	mkdir -p $(SANITIZED)/run/tests && cp -r tests/__init__.py tests/conftest.py tests/ops tests/fuzz $(SANITIZED)/run/tests/
	cd $(SANITIZED)/run && $(UNDER_SANITIZERS) -m pytest -p no:cacheprovider --numprocesses $(PROCESSES) --dist loadfile tests/ops -m "not slow" -k "not compile and not inductor"
	cd $(SANITIZED)/run && $(UNDER_SANITIZERS) -m tests.fuzz.ops --minutes 5 --cases 8000 --seed 1

# The documentation site; every warning is an error.
docs: $(SETUP)
	$(PY) -m mkdocs build --strict

wheel: $(SETUP)
	$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

# The source distribution, checked as an index would.
sdist: $(SETUP)
	$(PY) -m pip install --quiet --constraint constraints.txt build twine
	$(PY) -m build --sdist --no-isolation --outdir dist
	$(PY) -m twine check --strict dist/*.tar.gz

clean:
	rm -rf build dist *.egg-info ssl_kernels/*.so
