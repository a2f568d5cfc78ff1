# Everything runs from here on a bare machine with Python 3.11 or newer; see README.md.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
DEMO := runs_demo

.PHONY: install test lint demo readme clean-demo

install: $(STAMP)

$(STAMP): requirements.txt requirements-dev.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
	touch $@

test: install
	$(RUN) -m pytest -q -n auto

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright

# Every command of README.md at small size, on small stand-ins for the data: about three minutes.
readme: install
	$(RUN) -m benchmarks.readme_commands

# A world that the shipped model never saw; a short general training, cut and resumed; the shipped
# model fine-tuned on the scene that was kept out, beside what it was before.
demo: install
	$(RUN) render_video.py --path dtu --n_frames 24 --fps 12 --size 96 128 --depth --out $(DEMO)/world.mp4
	$(RUN) -m apps.make_procedural_dataset --out $(DEMO)/data --scenes 2
	@echo "Interrupted after 25 seconds, as by Ctrl-C:"
	timeout --signal INT 25 $(RUN) train_vggt_nerf_pl.py --config configs/demo_general.txt || true
	$(RUN) train_vggt_nerf_pl.py --config configs/demo_general.txt --ckpt $(DEMO)/general/ckpts/last.ckpt
	$(RUN) train_vggt_nerf_finetuning_pl.py --config configs/demo_finetune.txt
	$(RUN) -m apps.compare --out $(DEMO)/before_after --pictures mp4 --names before after --height 128 \
	    --ckpts ckpts/vggt-mini-nerf $(DEMO)/fine_tuning/scan2/demo/ckpts/latest.tar
	@echo
	@echo "The demo made:"
	@echo "  $(DEMO)/world.mp4                   a world that the shipped model never saw"
	@echo "  $(DEMO)/general/pictures            a new model after half a minute of training"
	@echo "  $(DEMO)/before_after/scan2.mp4      the shipped model before and after fine-tuning on a scene"
	@echo "  curves:  $(VENV)/bin/tensorboard --logdir $(DEMO)"
	@echo "Look around in the fine-tuned scene:"
	@echo "  $(RUN) view.py --ckpt $(DEMO)/fine_tuning/scan2/demo/ckpts/latest.tar"

clean-demo:
	rm -rf $(DEMO)
