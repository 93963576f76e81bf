# `make test` is the first command to run; CONTRIBUTING.md says the rest.

.DEFAULT_GOAL := help
.PHONY: help test faults model mutate loom demo sdk ring cluster page page-tools views compat compat-server herd bench check fmt clippy docs deny vectors examples mutants

# Further arguments for cargo: make test ARGS="-- --nocapture"
ARGS ?=

# Each feature of Cargo.toml: every one compiles and is linted alone.
FEATURES := $(shell awk '/^\[/ { on = ($$0 == "[features]") } on && /^[a-z]/ { print $$1 }' Cargo.toml)

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: ## every test, doc tests too, on real servers (found or fetched)
	@server=$$(scripts/redis-server.sh) && echo "server: $$server: $$("$$server" --version)" && \
	LARDER_REDIS_SERVER="$$server" cargo test --workspace --all-features $(ARGS)

faults: ## what each fault costs against what it may cost, as a table (ARGS="-- blackhole" for some)
	@server=$$(scripts/redis-server.sh) && \
	LARDER_REDIS_SERVER="$$server" cargo test --workspace --all-features --test faults $(ARGS)

model: ## processes at random while everything goes wrong, each read judged (OPS=1000000 SEED=7 FAULTS=Killed,Cut FLEET=ring)
	@server=$$(scripts/redis-server.sh) && \
	LARDER_REDIS_SERVER="$$server" cargo test --workspace --all-features --test model $(ARGS)

mutate: ## takes one mechanism out at a time: what must fail then fails (about ten minutes)
	@scripts/mutate.sh

loom: ## every order of the steps of the smallest cores: fence, flights, generations, sources
	cargo test --release -p larder-loom --test loom $(ARGS)

demo: ## the tiered example on a manager and three nodes of its own
	@scripts/demo.sh

sdk: ## the README of the Python SDK, function by function, on a manager and three nodes of its own
	@LARDER_DEMO_EXAMPLE=sdk_readme scripts/demo.sh --profile dev $(ARGS)

ring: ## the ring as a Redis client: hashes, streams, scripts, pipelines, SCAN, on a manager and three nodes of its own
	@LARDER_DEMO_EXAMPLE=ring_as_redis scripts/demo.sh --profile dev $(ARGS)

cluster: ## a manager with its page, three nodes and an application that uses them, until ctrl-C (NODES=5)
	@scripts/cluster.sh

page: ## the manager's page in a headless Chromium: what people do there, and no accessibility violations (SHOTS=DIR)
	@$(MAKE) --no-print-directory page-tools
	cargo build --workspace --all-features --bin larder --example load
	@server=$$(scripts/redis-server.sh) && LARDER_REDIS_SERVER="$$server" LARDER_PROGRAM=$${CARGO_TARGET_DIR:-target}/debug/larder \
	LARDER_LOAD=$${CARGO_TARGET_DIR:-target}/debug/examples/load target/page/bin/python tests/page/flows.py

page-tools:
	@test -x target/page/bin/pip || python3 -m venv target/page
	@target/page/bin/pip install --quiet --disable-pip-version-check --retries 2 --timeout 30 playwright==1.65.2 axe-playwright-python==0.1.8

views: ## an axum service under load, with the cache in front of its views and without (needs wrk)
	@scripts/views.sh

compat: ## asks Flask-Caching, from PyPI, whether it answers as tests/compat has it
	@test -x target/compat/bin/python || python3 -m venv target/compat
	@target/compat/bin/pip install --quiet flask-caching==2.5.1 flask==3.1.3 cachelib==0.17.0
	target/compat/bin/python tests/compat/flask_caching_cases.py --check

compat-server: ## asks the Python server, from GitHub, whether it answers as tests/compat has it
	@test -x target/compat/python-server/bin/python || python3 -m venv target/compat/python-server
	@target/compat/python-server/bin/pip install --quiet --disable-pip-version-check flask==1.1.2 werkzeug==1.0.1 \
	jinja2==2.11.2 markupsafe==1.1.1 itsdangerous==1.1.0 click==7.1.2 flask-restful==0.3.8 aniso8601==8.0.0 \
	flask-redis==0.4.0 redis==3.5.3 flask-apscheduler==1.11.0 apscheduler==3.6.3 flask-cors==3.0.8 func-timeout==4.3.5 \
	bson==0.5.10 pyyaml==5.3.1 python-dateutil==2.8.1 pytz==2020.1 tzlocal==2.1 six==1.17.0 setuptools==75.8.0
	@server=$$(scripts/redis-server.sh) && LARDER_REDIS_SERVER="$$server" \
	target/compat/python-server/bin/python tests/compat/python_server_cases.py --check

herd: ## what an origin bears when values end that all want, with and without protection (under a minute)
	@server=$$(scripts/redis-server.sh) && \
	LARDER_REDIS_SERVER="$$server" cargo run --release --all-features --example herd $(ARGS)

bench: ## the benches, on real servers (found or fetched)
	@server=$$(scripts/redis-server.sh) && LARDER_REDIS_SERVER="$$server" cargo bench --all-features $(ARGS)

check: fmt clippy docs deny vectors examples mutants ## everything else that must hold

fmt: ## formatting
	cargo fmt --all --check

# Without targets: dev-dependencies switch features of shared dependencies on, and so hide a feature that does not compile
# by itself.
clippy: ## lints, warnings denied: no feature, each feature alone, the default ones, all
	cargo clippy --no-default-features -- -D warnings
	@set -e; for feature in $(FEATURES); do set -x; \
	cargo clippy --no-default-features --features $$feature -- -D warnings; \
	{ set +x; } 2>/dev/null; done
	cargo clippy --all-targets -- -D warnings
	cargo clippy --workspace --all-features --all-targets -- -D warnings
	cargo clippy --workspace --all-features --test faults --test model -- -D warnings
	cargo clippy -p larder-loom --test loom -- -D warnings

docs: ## documentation, warnings denied
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features

deny: ## licences, banned crates and sources of all dependencies (needs cargo-deny, see CONTRIBUTING.md)
	cargo deny check --hide-inclusion-graph bans licenses sources

vectors: ## the placement vectors, computed again without any code of this crate
	python3 scripts/placement_vectors.py --check tests/vectors/placement.json

examples: ## all examples build, and quickstart runs
	cargo build --workspace --examples --all-features
	$${CARGO_TARGET_DIR:-target}/debug/examples/quickstart

mutants: ## every mutant of `make mutate` applies
	@set -e; for mutant in scripts/mutants/*.patch; do git apply --check "$$mutant"; done
