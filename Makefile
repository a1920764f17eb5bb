# make demo   the main job, shown on this machine in namespaces
# make test   everything that .ci/run tests, but for the lints
# Both set up what is missing first.

.PHONY: setup demo test lint bench clean

setup:
	@scripts/setup

demo: setup
	@.venv/bin/plumb lab demo $(if $(KEEP),--keep)

test: setup
	@.venv/bin/python -m pytest -q -n 4 --dist loadfile

lint: setup
	.venv/bin/ruff check reconciler modules tests inventory playbooks
	.venv/bin/ruff format --check reconciler modules tests inventory playbooks
	.venv/bin/mypy
	.venv/bin/lint-imports
	clang-format --dry-run --Werror bpf/*.bpf.c bpf/lib/*.h bpf/trace/*.bpf.c
	.venv/bin/yamllint --strict .
	.venv/bin/ansible-lint --offline --strict playbooks modules

bench: setup
	@.venv/bin/python -m tests.bench

clean:
	rm -rf build dist .venv
