# Each target is one call, so that everything works where make is absent.
.PHONY: run test model chaos bench lint lock clean

run:
	@scripts/run
test:
	@scripts/test
model:
	@scripts/venv dev && .venv/bin/python -m tests.model.runs
chaos:
	@scripts/chaos $(ARGS)
bench:
	@scripts/venv dev && .venv/bin/python -m benchmarks report $(if $(FULL),--full) $(SUITE) $(ARGS)
lint:
	@scripts/lint
lock:
	@scripts/lock
clean:
	@rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
