.PHONY: help check format test lock bench

help:     ## list the targets
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

check:    ## formatter, linter, types, import rules and tests, as CI runs them
	./schleuse lint && ./schleuse test

format:   ## rewrite the sources in our format
	.venv/bin/ruff format . && .venv/bin/ruff check --fix .

test:     ## the tests alone
	./schleuse test

lock:     ## compile the lock files after a change of pyproject.toml
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o requirements.lock
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o requirements-dev.lock

bench:    ## measure everything beside the raw limits of the same run (bench/README.md)
	PYTHONPATH=src:. .venv/bin/python -m bench
