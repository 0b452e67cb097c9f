# Each target is one call, so that everything works where make is absent.
.PHONY: run test model chaos bench compile lint lock clean

run:
	@scripts/run
test:
	@scripts/test
model:
	@scripts/venv dev && .venv/bin/python -m tests.model.runs
chaos:
	@scripts/chaos $(ARGS)
bench:
	@scripts/compile || [ $$? = 3 ]
	@.venv/bin/python -m benchmarks report $(if $(FULL),--full) $(SUITE) $(ARGS)
compile:
	@scripts/compile
lint:
	@scripts/lint
lock:
	@scripts/lock
clean:
	@rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
