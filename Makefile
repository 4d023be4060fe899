# `make run` and `make test` each work as the first command on a bare machine.

.DEFAULT_GOAL := help
.PHONY: help run up down clean upload test soak lint bench grade \
	infra configure deploy destroy install

# `exec`, so that a signal to make reaches Python and no shell stands between them.
IN_VENV := exec .venv/bin/python -m
# Stopping things must work without .venv too.
WITHOUT_VENV = exec $(shell [ -x .venv/bin/python ] && echo .venv/bin/python || echo python3) -m

help: ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 10

run: install ## install what is missing, start the servers, serve on PORT (8000); Ctrl-C ends it all
	@$(IN_VENV) local run

up: install ## only the servers, in the background; their settings in .local/env
	@$(IN_VENV) local up

down: ## stop everything of this folder; the data stays
	@$(WITHOUT_VENV) local down

clean: ## down, then remove the servers' data and the tools' caches
	@$(WITHOUT_VENV) local clean

upload: install ## load the CSV file FILE into TABLE (heroes) through the S3 of make run or make up
	@$(IN_VENV) local upload

test: install ## the tests, on servers of their own; ARGS go to pytest
	@$(IN_VENV) pytest $(ARGS)

MINUTES ?= 10
soak: install ## requests and faults for MINUTES (10), then what was stale, lost or doubled
	@$(IN_VENV) tests.history --minutes $(MINUTES)

lint: install ## format, lint, types, the template
	@$(IN_VENV) ruff format --check .
	@$(IN_VENV) ruff check .
	@$(IN_VENV) mypy
	@exec .venv/bin/python -c 'from cfnlint.runner import main; main()' infra/template.yaml

bench: install ## measure against the raw drivers and the course's way; ARGS go to it
	@$(IN_VENV) bench $(ARGS)
	@$(IN_VENV) bench.load

grade: install ## play the course grader against URL
	@$(IN_VENV) bench.grade $(URL) $(ARGS)

STAGE ?= dev
infra: install ## what STAGE (dev) stands on in the AWS account: infra/template.yaml, then the tables
	@$(IN_VENV) infra infra $(STAGE)

configure: install ## write what make infra made into the files Chalice reads for STAGE (dev)
	@$(IN_VENV) infra configure $(STAGE)

deploy: install ## API and functions of STAGE (dev), and what Chalice cannot set
	@$(IN_VENV) infra deploy $(STAGE)

destroy: install ## delete all of STAGE (dev); asks first
	@$(IN_VENV) infra destroy $(STAGE)

install:
	@bash local/install.sh
