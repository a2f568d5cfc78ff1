# Everything runs from here on a bare machine with Python 3.11 or newer; see README.md.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
DEMO := runs_demo

.PHONY: install test lint demo clean-demo

install: $(STAMP)

$(STAMP): requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

test: install
	$(RUN) -m pytest -q -n auto

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright

# General training on procedural scenes, written in DTU layout and read by the DTU reader; then
# fine-tuning on the one that was kept out.
demo: install
	$(RUN) -m apps.make_procedural_dataset --out $(DEMO)/data
	$(RUN) train_vggt_nerf_pl.py --config configs/demo_general.txt
	$(RUN) train_vggt_nerf_finetuning_pl.py --config configs/demo_finetune.txt
	@echo
	@echo "The demo made:"
	@echo "  $(DEMO)/data                        three procedural scenes in DTU layout"
	@echo "  $(DEMO)/general/ckpts/last.ckpt     a general model, trained on two of them"
	@echo "  $(DEMO)/general/pictures            sources, truth, prediction, error, depth of the third"
	@echo "  $(DEMO)/fine_tuning/scan3/demo      the same model, fine-tuned on the third scene"
	@echo "  $(DEMO)/general/logs                curves: $(VENV)/bin/tensorboard --logdir $(DEMO)"

clean-demo:
	rm -rf $(DEMO)
