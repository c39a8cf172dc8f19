# make demo   install, pre-train on the bundled sample, leave a report
# make test   install, check that modules match notebooks and code is in style, run every notebook
# make format  put notebooks and tools in one style, as ruff.toml says
# make tables  write anew the tables that the house tests hold to the code; look at what changed
# make outputs  run anew the notebooks whose saved outputs are older than their code or data; a failure stops none
# make lab    install, open JupyterLab
# make explore  a page to explore a run: RUN=path (default: the demo's), PORT=8866; this machine only
# make browser  install Chromium, in which `make test` tries the page as a person would
# make spark  install Spark, and Java, with which `make test` reads OMOP too
# make readme write README.md from nbs/index.ipynb

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export OMP_WAIT_POLICY := PASSIVE

.PHONY: install demo test format tables outputs lab explore browser spark readme clean
.DEFAULT_GOAL := install

install: $(STAMP)

$(STAMP): setup.py settings.ini constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ehrseq needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0 --editable '.[notebook,dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/python -m ehrseq.jobs run pretrain _runs/demo -p minutes 4
	@echo "report: $(CURDIR)/_runs/demo/report.html"

test: $(STAMP)
	@$(BIN)/python .ci/house.py

format: $(STAMP)
	@$(BIN)/python .ci/house.py format

tables: $(STAMP)
	@$(BIN)/python .ci/tables.py

outputs: $(STAMP)
	@$(BIN)/python .ci/outputs.py save

lab: $(STAMP)
	$(BIN)/jupyter lab nbs/index.ipynb

RUN ?= _runs/demo
PORT ?= 8866
explore: $(STAMP)
	@echo "http://127.0.0.1:$(PORT)  (a map that is not there yet is computed first)"
	@EHRSEQ_RUN="$(abspath $(RUN))" JUPYTER_PATH="$(CURDIR)/nbs/apps/jupyter" $(BIN)/voila nbs/apps/explorer.ipynb --template ehrseq --no-browser --port $(PORT) --Voila.ip=127.0.0.1

browser:
	@command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium fonts-liberation >/dev/null) || (echo "no Chromium, and apt-get cannot install it; install Chromium by hand"; exit 1)
	@chromium --version

spark: $(STAMP)
	@command -v java >/dev/null || (apt-get update -qq && apt-get install -y -qq default-jre-headless >/dev/null) || (echo "no Java, and apt-get cannot install it; install Java 17 by hand"; exit 1)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[spark]'

readme: $(STAMP)
	@$(BIN)/python .ci/house.py readme

clean:
	rm -rf .venv _runs build dist *.egg-info
