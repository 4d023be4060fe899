# `make run` and `make test` each work as the first command on a bare machine.

.DEFAULT_GOAL := help
.PHONY: help run demo up down clean upload invoke employees invalidate sync test proof soak lint format bench grade \
	lock update audit licences \
	infra configure adopt deploy destroy sql logs report install

# `exec`, so that a signal to make reaches Python and no shell stands between them.
IN_VENV := exec .venv/bin/python -m
# Each target installs what it needs and no more: the packages of requirements-<word>.txt, programs.
INSTALL = @bash local/install.sh
SERVERS = mariadb-server redis-server curl
# Names as they were typed: make would run $(shell ...) in one that is given on its command line.
NAMES = PORT FILE TABLE KEYS KEY FUNCTION EVENT ENGINE STAGE URL MINUTES ARGS SQL PYTHON
$(foreach name,$(NAMES),$(eval override $(name) := $$(value $(name))))
export $(NAMES)
# Without bytecode on disk, each of the many processes of a test run compiles the project again.
unexport PYTHONDONTWRITEBYTECODE
# Stopping things must work without .venv too.
WITHOUT_VENV = exec $(shell [ -x .venv/bin/python ] && echo .venv/bin/python || echo python3) -m

help: ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 12

run: ## install what is missing, start the servers, serve on PORT (8000) by ENGINE (mysql, dataapi); Ctrl-C ends it all
	$(INSTALL) local $(SERVERS)
	@$(IN_VENV) local run

demo: ## half a minute: reads go on while Redis is killed and comes back, each answer checked
	$(INSTALL) local $(SERVERS)
	@$(IN_VENV) local demo

up: ## only the servers, in the background; their settings in .local/env
	$(INSTALL) local $(SERVERS)
	@$(IN_VENV) local up

down: ## stop everything of this folder; the data stays
	@$(WITHOUT_VENV) local down

clean: ## down, then remove the servers' data and the tools' caches
	@$(WITHOUT_VENV) local clean

upload: ## load the CSV file FILE into TABLE (DB_TABLE, or heroes) through the S3 of make run or make up
	$(INSTALL) local
	@$(IN_VENV) local upload

invoke: ## run FUNCTION (storage, api_handler, ingest, employees, sync, sync_range) on the event in the file EVENT, on the servers of make run or make up
	$(INSTALL) local
	@$(IN_VENV) local invoke

employees: ## add employees with the function of the Data API workshop, and list them; ENGINE=dataapi, and a real cluster by DB_CLUSTER_ARN
	$(INSTALL) local $(SERVERS)
	@$(IN_VENV) local employees

invalidate: ## drop the cached rows of TABLE (DB_TABLE, or heroes) with the KEYS 1,2,3, or all of them
	$(INSTALL) local
	@$(IN_VENV) local invalidate

sync: ## bring watched rows of TABLE (all tables) and their public keys in step; ARGS=-v prints each row
	$(INSTALL) local
	@$(IN_VENV) local sync

# Workers wait for servers half of the time: four of them keep two cores busy. Tests are handed out
# by file, because servers belong to a file, and in the order that tests/conftest.py gives them.
BY_FILE = --dist loadfile --no-loadscope-reorder
test: ## the tests, on servers of their own (5 minutes); ARGS go to pytest
	$(INSTALL) dev $(SERVERS) openssl
	@$(IN_VENV) pytest -n 4 $(BY_FILE) $(ARGS)

# They run once more by way of the RDS Data API.
DATA_API_TESTS = $(addprefix tests/,handlers rows db cache ingest sync)
# What `make test` has no time for runs as it would there, and in the other runs of all tests too.
LONG_TESTS = -m 'long and not proof' -n 4 $(BY_FILE)
# They wait for timeouts most of the time.
WAITING_TESTS = tests/db/test_data_api_faults.py
proof: ## what takes long (the tests over the Data API, model, histories, a stage's life, a benchmark), and headless Chromium and Node
	$(INSTALL) dev $(SERVERS) openssl chromium nodejs
	@$(IN_VENV) pytest -m proof --ignore=$(WAITING_TESTS) $(ARGS)
	@$(IN_VENV) pytest -m proof -n 6 $(WAITING_TESTS)
	@$(IN_VENV) pytest $(LONG_TESTS)
	@exec env HEROCACHE_TEST_ENGINE=dataapi .venv/bin/python -m pytest -m 'not proof' -n 3 $(BY_FILE) $(DATA_API_TESTS)

soak: ## requests and faults for MINUTES (10), then what was stale, lost or doubled
	$(INSTALL) dev $(SERVERS)
	@$(IN_VENV) tests.history --minutes "$${MINUTES:-10}"

lint: ## format, lint, types, the template
	$(INSTALL) dev
	@$(IN_VENV) ruff format --check .
	@$(IN_VENV) ruff check .
	@$(IN_VENV) mypy
	@exec .venv/bin/python -c 'from cfnlint.runner import main; main()' infra/template.yaml

format: ## rewrite the code in the house's format, and mend what ruff can mend
	$(INSTALL) dev
	@$(IN_VENV) ruff check --fix .
	@$(IN_VENV) ruff format .

bench: ## measure against the raw drivers and the course's way; ARGS go to it
	$(INSTALL) dev $(SERVERS)
	@$(IN_VENV) bench $(ARGS)
	@$(IN_VENV) bench.ingest
	@$(IN_VENV) bench.sync

grade: ## play the graders of the course against URL, with the API key in KEY where it wants one; ARGS go to it
	$(INSTALL) local
	@$(IN_VENV) grader $(ARGS)

# In quotes, so that the shell takes the name of a stage for a word and never for code.
STAGE_NAME = "$${STAGE:-dev}"
infra: ## what STAGE (dev) stands on in the AWS account: infra/template.yaml, then the tables
	$(INSTALL) deploy
	@$(IN_VENV) infra infra $(STAGE_NAME)

configure: ## write what make infra made into the files Chalice reads for STAGE (dev)
	$(INSTALL) deploy
	@$(IN_VENV) infra configure $(STAGE_NAME)

adopt: ## a stage STAGE (class) on a database, a cache, a network and a role that are there already
	$(INSTALL) deploy
	@$(IN_VENV) infra adopt "$${STAGE:-class}"

deploy: ## API and functions of STAGE (dev), and what Chalice cannot set
	$(INSTALL) deploy
	@$(IN_VENV) infra deploy $(STAGE_NAME)

destroy: ## delete all of STAGE (dev); asks first
	$(INSTALL) deploy
	@$(IN_VENV) infra destroy $(STAGE_NAME)

sql: ## run the statement SQL on the database of STAGE (dev), without a way into its network
	$(INSTALL) deploy
	@$(IN_VENV) infra sql $(STAGE_NAME)

logs: ## follow what the functions of STAGE (dev) log, until Ctrl-C
	$(INSTALL) deploy
	@$(IN_VENV) infra logs $(STAGE_NAME)

report: ## what to send when a step on STAGE (dev) fails; it holds no secret
	$(INSTALL) deploy
	@$(IN_VENV) infra report $(STAGE_NAME)

lock: ## write versions and hashes of what pyproject.toml names into requirements*.txt
	$(INSTALL) dev
	@$(IN_VENV) dependencies lock

update: ## take newer versions of all Python packages that are a week old, and write the lock
	$(INSTALL) dev
	@$(IN_VENV) dependencies update
	$(INSTALL) dev
	@.venv/bin/python -m dependencies licences

audit: ## ask osv.dev for known holes in the locked packages
	$(INSTALL) dev
	@$(IN_VENV) dependencies audit

licences: ## write docs/licences.md
	$(INSTALL) dev
	@$(IN_VENV) dependencies licences

install: ## all that any target needs
	$(INSTALL) dev $(SERVERS) openssl
