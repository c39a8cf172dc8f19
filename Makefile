# make demo   install, pre-train on the bundled sample, leave a report
# make test   install, check that modules match notebooks, run every notebook
# make lab    install, open JupyterLab
# make readme write README.md from nbs/index.ipynb

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export OMP_WAIT_POLICY := PASSIVE

.PHONY: install demo test lab readme clean
.DEFAULT_GOAL := install

install: $(STAMP)

$(STAMP): setup.py settings.ini constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ehrseq needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0 --editable '.[notebook,dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/python -m ehrseq.jobs run pretrain _runs/demo -p minutes 4 -p kinds '[condition, medication, procedure]'
	@echo "report: $(CURDIR)/_runs/demo/report.html"

test: $(STAMP)
	@$(BIN)/python .ci/house.py

lab: $(STAMP)
	$(BIN)/jupyter lab nbs/index.ipynb

readme: $(STAMP)
	@$(BIN)/python .ci/house.py readme

clean:
	rm -rf .venv _runs build dist *.egg-info
