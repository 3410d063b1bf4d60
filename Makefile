# Driftless. `make demo` trains, samples and scores on real digits; `make test` runs the suite.
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo
# tests start many small processes, so one thread each; a file's tests share a worker
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: setup demo bench test test-fast test-full lint docs-tables clean

setup: .venv/ready

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[tensorboard,lmdb,dinov2,test,lint]'
	touch $@

demo: .venv/ready
	$(BIN)/python train.py --config=configs/digits.yaml --outdir=$(DEMO)/training --nosubdir \
		--resume=latest
	$(BIN)/python generate.py --network=$(DEMO)/training --outdir=$(DEMO)/images \
		--seeds=0-99 --class=each --batch=250
	$(BIN)/python -m benchmarks.digits_quality --images=$(DEMO)/images --grid=$(DEMO)/grid.png
	$(BIN)/python fid.py compare $(DEMO)/training assets/digits-8x8.zip --num=1000 --detector=digits \
		--ref=assets/digits-8x8.zip --metrics=fid,is,kid,pr --html=$(DEMO)/report.html

test: .venv/ready
	$(PYTEST)

# mathematics and data, without torch.compile: under two minutes on two idle cores
test-fast: .venv/ready
	$(PYTEST) tests/diffusion tests/losses tests/samplers tests/metrics tests/data tests/models \
		tests/parity tests/test_layering.py -k "not compile"

# all tests and all mutants of a commit; benchmarks/results/test-full.txt says what came of it
test-full: .venv/ready
	$(BIN)/python -m tests.report

# every program of benchmarks/ one after the other, more than two hours on two cores; BENCH=--list
# names them with their minutes, and BENCH='--only=training,generate' runs some
bench: .venv/ready $(DEMO)/training
	$(BIN)/python -m benchmarks $(BENCH)

$(DEMO)/training:
	$(MAKE) demo

# every generated table of the manual and every help text
docs-tables: .venv/ready
	$(BIN)/python -m tests.manual

lint: .venv/ready
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache driftless.egg-info
