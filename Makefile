# make demo   the whole way on synthetic scenes, writes demo/
# make test   the default test suite
# make check  ruff, mypy, import-linter, the docs site without a warning
# make notebooks  the notebooks, from an empty folder
# make config docs/config.md from the config
# make qgis-plugin  the QGIS plugin as dist/terradapt-qgis-VERSION.zip
# make docs   the docs site with the API reference, writes site/
# make dist   the wheel and the source distribution, checked, in dist/
PYTHON ?= python3
BIN := .venv/bin
DATA ?= ../shared/data

# Names that may be defined in two files or more; no class may.
TWICE := 20

.PHONY: install demo test check docs dist names notebooks config format test-slow test-data test-hostile test-gpu \
	test-weights bench qgis qgis-plugin test-qgis test-networks test-portable test-browser clean

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
	$(BIN)/python -m pytest -m "browser or not browser" tests/viewer/test_page.py \
		tests/viewer/test_page_loop.py

test-gpu: install
	$(BIN)/python -m pytest -m gpu

# The oracle of SAM2's trunk: PyPI's sam2, which has no wheel and needs no CUDA extension here.
test-weights: install
	$(BIN)/python -m pip install --quiet setuptools wheel
	SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install --quiet --no-build-isolation sam2
	$(BIN)/python -m pytest -m weights

# The QGIS plugin in a real QGIS without a window: Debian's, with the Python that it belongs to.
QGIS_PYTHON ?= /usr/bin/python3
QGIS_FOLDER := .cache/qgis

qgis-plugin: install
	$(BIN)/python checks/qgis_plugin.py

qgis:
	@QT_QPA_PLATFORM=offscreen $(QGIS_PYTHON) -c "import qgis.core" 2>/dev/null || \
		{ echo "QGIS is missing: installing Debian's, once"; apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qgis python3-qgis; }

test-qgis: install qgis
	rm -rf $(QGIS_FOLDER) && mkdir -p $(QGIS_FOLDER)
	$(BIN)/python -m pip wheel --quiet --no-deps -w $(QGIS_FOLDER) .
	cd integrations/qgis/tests && OMP_NUM_THREADS=1 QT_QPA_PLATFORM=offscreen \
		TERRADAPT_ROOT=$(CURDIR) TERRADAPT_EXECUTABLE=$(CURDIR)/$(BIN)/terradapt PYTHON=$(CURDIR)/$(BIN)/python \
		TERRADAPT_WHEEL=$$(echo $(CURDIR)/$(QGIS_FOLDER)/*.whl) QGIS_TESTS=$(CURDIR)/$(QGIS_FOLDER) \
		$(QGIS_PYTHON) -m unittest -v test_algorithms test_pages test_process test_engine

# pgRouting is Debian's; momepy and osmnx bring pandas, geopandas and more: not for every development environment.
test-networks: install
	@test -n "$$(ls /usr/share/postgresql/*/extension/pgrouting.control 2>/dev/null)" || \
		{ echo "pgRouting is missing: installing Debian's, once"; apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends '^postgresql-[0-9]+-pgrouting$$'; }
	$(BIN)/python -m pip install --quiet momepy osmnx
	$(BIN)/python -m pytest -m networks

# What Windows and macOS are unlike: workers are spawned, and the locale's encoding is cp1252.
LOCALES := .cache/locales
test-portable: install
	@command -v localedef >/dev/null && test -e /usr/share/i18n/charmaps/CP1252.gz || \
		{ echo "the locale's sources are missing: installing Debian's, once"; apt-get install -y -qq locales; }
	mkdir -p $(LOCALES)
	test -d $(LOCALES)/en_US.CP1252 || localedef -i en_US -f CP1252 $(LOCALES)/en_US.CP1252
	LOCPATH=$(CURDIR)/$(LOCALES) LC_ALL=en_US.CP1252 PYTHONCOERCECLOCALE=0 PYTHONUTF8=0 OMP_NUM_THREADS=1 \
		PYTHONPATH=tests $(BIN)/python -m pytest -p portable -n auto --dist worksteal \
		tests/scene tests/raster tests/data tests/prepare tests/vector tests/test_files.py

clean:
	rm -rf .venv demo site dist .cache/doctrees docs/api
