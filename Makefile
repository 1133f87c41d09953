# make demo: set-up, then a spoken question in, the conversation out. make test: set-up, then the tests.
VENV ?= .venv
QUESTION ?= examples/question.wav

.PHONY: demo test setup lint clean

demo: setup
	$(VENV)/bin/moshi-mlx run $(QUESTION) -o conversation.wav --tail 3 --seed 1
	@echo "Listen to conversation.wav: you on the left, Moshi on the right." >&2
	@echo "Talk yourself: source $(VENV)/bin/activate, then moshi-mlx chat" >&2

test: setup
	$(VENV)/bin/python -m pytest -q

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml tools/setup.sh
	sh tools/setup.sh $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) build dist conversation.wav
