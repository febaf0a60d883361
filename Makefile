# make demo   the whole way on synthetic scenes, writes demo/
# make test   the default test suite
# make check  ruff, mypy, import-linter, the docs site without a warning
# make notebooks  the notebooks, from an empty folder
# make config docs/config.md from the config
# make docs   the docs site with the API reference, writes site/
# make dist   the wheel and the source distribution, checked, in dist/
PYTHON ?= python3
BIN := .venv/bin
DATA ?= ../shared/data

# Names that may be defined in two files or more; no class may.
TWICE := 20

.PHONY: install demo test check docs dist names notebooks config format test-slow test-data test-hostile test-browser test-gpu test-weights bench clean

install: .venv/.installed

.venv/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[all,dev]'
	touch $@

demo: install
	$(BIN)/terradapt demo -o demo

# One process per core, one thread each: threads of several processes would wait for each other.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python checks/names.py --limit $(TWICE)
	$(BIN)/python checks/config_page.py --check
	$(MAKE) docs

docs: install
	$(BIN)/sphinx-build -q -W --keep-going -b html -d .cache/doctrees docs site

dist: install
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

config: install
	$(BIN)/python checks/config_page.py

notebooks: install
	$(BIN)/python checks/notebooks.py

names: install
	$(BIN)/python checks/names.py --limit $(TWICE)

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-slow: install
	$(BIN)/python -m pytest -m slow

test-data: install
	TERRADAPT_DATA=$(DATA) $(BIN)/python -m pytest -m data

# Killed runs and broken files; the counts go to docs/reliability.md.
test-hostile: install
	-$(BIN)/python -m pip install --quiet atheris
	rm -f .cache/hostile.jsonl && mkdir -p .cache
	TERRADAPT_FIGURES=.cache/hostile.jsonl OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m hostile

# The page in Debian's Chromium, which is installed when there is none.
test-browser: install
	@command -v chromium >/dev/null || { echo "installing Debian's chromium"; \
		apt-get install -y -q chromium || sudo apt-get install -y -q chromium; }
	$(BIN)/python -m pytest -m "browser or not browser" tests/viewer/test_page.py

test-gpu: install
	$(BIN)/python -m pytest -m gpu

# The oracle of SAM2's trunk: PyPI's sam2, which has no wheel and needs no CUDA extension here.
test-weights: install
	$(BIN)/python -m pip install --quiet setuptools wheel
	SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install --quiet --no-build-isolation sam2
	$(BIN)/python -m pytest -m weights

clean:
	rm -rf .venv demo site dist .cache/doctrees docs/api
