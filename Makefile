# make demo   set up .venv and run the main job on sample_data/
# make test   set up the same .venv, then ruff, mypy and pytest
# make slow   the tests that take longer; CI runs both
# make lowest   the lowest versions that pyproject.toml declares, and tests of what rests on them
# make edge   an install without torch, and its tests
# make docs   the documentation as a site in site/; fails where a link leads nowhere
# make picture   the README's picture, drawn again
# make thorough   the slow tests, with six times as many kills, signals and damaged files
# make soak   a thousand cycles of cron with a fault each, which takes a quarter of an hour
# make pretrain   go on with the training of the built-in weights: MINUTES=600 THREADS=2

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
EDGE := .venv-edge
DEMO := demo
MINUTES ?= 60
THREADS ?= 2

PICTURE := docs/pictures/forecast.svg

.PHONY: demo test slow lowest edge docs picture thorough soak pretrain lint clean

demo: $(VENV)/installed
	@mkdir -p $(DEMO)
	$(BIN)/rnnforecast train sample_data/pumping_station.csv --model $(DEMO)/model
	$(BIN)/rnnforecast predict --model $(DEMO)/model --output $(DEMO)/forecast.csv --quiet
	$(BIN)/rnnforecast show --model $(DEMO)/model
	@echo
	@head -n 6 $(DEMO)/forecast.csv
	@echo "the forecast is in $(DEMO)/forecast.csv"

test: lint
	$(BIN)/pytest -n auto -m "not slow"

# A file stays in one process, since its tests share what they have trained;
# only files that hold such tests are imported.
slow: $(VENV)/installed
	$(BIN)/pytest -n auto --dist loadfile -m "slow and not timed" \
		$$(grep -rlw mark.slow tests --include='test_*.py')
	$(BIN)/pytest -m timed $$(grep -rlw mark.timed tests --include='test_*.py')

# What rests on the versions most: time zones, tables, files, plots, bars, and training.
# Warnings that newer libraries have of such old ones are no errors.
lowest: $(LOWEST)/installed
	PYTHONPATH=$(CURDIR) $(LOWEST)/bin/python -m pytest -n auto -W ignore -m "not slow" \
		tests/data tests/report $(addprefix tests/tables/test_, calendar.py offsets.py resample.py rows.py \
		timestamps.py) $(addprefix tests/cli/test_, console.py plot.py predict.py)

edge: $(EDGE)/installed
	$(EDGE)/bin/python -m pytest -m edge tests/test_edge.py

docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The identifiers in the picture would differ each time without a fixed salt.
picture: $(VENV)/installed
	@mkdir -p $(DEMO)
	$(BIN)/rnnforecast predict sample_data/pumping_station.csv --model builtin \
		--as-of 2024-04-28T00:00 --output $(DEMO)/picture.csv --quiet
	MATPLOTLIBRC=docs/pictures/matplotlibrc $(BIN)/rnnforecast plot --forecast $(DEMO)/picture.csv \
		--data sample_data/pumping_station.csv --series flow_m3h --history 3d --output $(PICTURE)

thorough: $(VENV)/installed
	RNNFORECAST_THOROUGH=6 $(BIN)/pytest -n auto --dist loadfile -m "slow and not timed"

soak: $(VENV)/installed
	$(BIN)/python -m tests.faults.soak --cycles 1000

pretrain: $(VENV)/installed
	$(BIN)/python -m benchmarks.pretrain --minutes $(MINUTES) --threads $(THREADS)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint Dockerfile
	$(BIN)/mypy

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable ".[dev]"
	@touch $@

$(VENV)/docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable ".[docs]"
	@touch $@

# What the lowest versions need themselves is pinned as everywhere, and so is torch: each of its
# releases is downloaded in gigabytes. scipy, which scikit-learn brings, has to suit the lowest numpy.
$(LOWEST)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(LOWEST)
	sed -n '/^dependencies = \[/,/^\]/s/.*"\(.*\)>=\([^",]*\)[^"]*".*/\1==\2/p' pyproject.toml \
		| grep -v ^torch= > $(LOWEST)/lowest.txt
	sed 's/==.*/==/' $(LOWEST)/lowest.txt | grep -vFf - constraints.txt | grep -v ^scipy= \
		> $(LOWEST)/others.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
		--constraint $(LOWEST)/others.txt --requirement $(LOWEST)/lowest.txt \
		holidays hypothesis openpyxl pytest pytest-xdist torch
	@touch $@

$(EDGE)/installed: pyproject.toml requirements-edge.txt constraints.txt
	$(PYTHON) -m venv $(EDGE)
	$(EDGE)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
		--constraint constraints.txt --requirement requirements-edge.txt pytest
	$(EDGE)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

clean:
	rm -rf $(VENV) $(LOWEST) $(EDGE) $(DEMO) site build ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
