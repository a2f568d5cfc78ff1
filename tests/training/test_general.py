"""General training: what a run leaves, what it starts from, what is exported of it."""

import math
from dataclasses import replace
from types import SimpleNamespace

import imageio.v3 as imageio
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import train

from apps.export_checkpoint import ExportConfig, export_checkpoint
from datasets.views import Sample, Views
from models.checkpoints.general import read_checkpoint
from models.novel_view import RenderedImages
from training.config import GeneralTrainingConfig
from training.general_module import GeneralModule
from training.optimization import AveragedWeights
from utils.cameras import Cameras
from utils.checkpoints import load_safely, save_atomically
from utils.errors import UserError

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def last(general, tmp_path_factory):
    """The file of a whole run."""
    return train(general, tmp_path_factory.mktemp("whole"))[1]


def test_a_run_leaves_what_the_readme_says(last):
    folder = last.parent.parent
    assert len(list((folder / "ckpts").glob("epoch=*/*.ckpt"))) == 1
    pictures = sorted((folder / "pictures").glob("*.png"))
    assert [picture.name[:12] for picture in pictures] == [f"step={step:07d}" for step in (3, 6, 9)]
    # Two or three sources of 80x64, truth, prediction, error, depth and true depth in a row.
    assert imageio.imread(pictures[0]).shape == (64, 8 * 80, 3)
    events = EventAccumulator(str(folder / "logs"))
    events.Reload()
    assert {"val/PSNR", "val/depth_error"} <= set(events.Tags()["scalars"])
    assert "val/scan2_view004" in events.Tags()["images"]


def test_init_ckpt_starts_a_new_run_from_the_weights(general, last, tmp_path):
    losses, path = train(general, tmp_path, "--init_ckpt", last, "--lrate", "1e-12")
    assert min(losses) == 0 and max(losses) == 8
    old, new = load_safely(last)["state_dict"], load_safely(path)["state_dict"]
    assert all(torch.allclose(old[key], new[key], atol=1e-8) for key in old)


def test_init_ckpt_of_another_backbone_says_so_and_goes_on(general, last, tmp_path, caplog):
    content = load_safely(last)
    content["vggt_nerf"]["backbone_fingerprint"] = "0" * 16
    save_atomically(content, tmp_path / "other.ckpt")
    flags = ["--init_ckpt", tmp_path / "other.ckpt", "--num_epochs", 1]
    assert len(train(general, tmp_path, *flags)[0]) == 3
    assert "another backbone (fingerprint 0000" in caplog.text


def test_tuned_blocks_learn_and_come_back(general, tmp_path):
    _, path = train(general, tmp_path, "--tuned_blocks", 1, "--num_epochs", 1)
    checkpoint = read_checkpoint(str(path))
    ups = [value for name, value in checkpoint.weights.items() if ".up." in name]
    assert ups and any(value.abs().max() > 0 for value in ups)
    model = checkpoint.build_model()
    for name, value in checkpoint.weights.items():
        torch.testing.assert_close(model.state_dict()[name], value)


def test_one_source_is_enough_when_all_others_are_left_out(general, tmp_path):
    flags = ["--num_epochs", 1, "--source_dropout"]
    losses = [train(general, tmp_path / share, *flags, share)[0] for share in ("0", "1")]
    assert all(len(found) == 3 and math.isfinite(found[0]) for found in losses)
    assert losses[0][0] != losses[1][0]


def test_the_ablation_without_a_backbone_trains_and_comes_back(general, tmp_path):
    flags = ["--backbone", "none", "--num_epochs", 1, "--vggt_path", "absent"]
    losses, path = train(general, tmp_path, *flags)
    assert len(losses) == 3
    checkpoint = read_checkpoint(str(path))
    assert checkpoint.backbone_config.backbone == "none"
    assert checkpoint.build_model().backbone.fingerprint == "none"
    with pytest.raises(UserError, match="another (backbone|model)"):
        train(general, tmp_path, "--init_ckpt", path)


def test_an_export_renders_like_the_checkpoint_and_cannot_be_resumed(general, last, tmp_path):
    exported = export_checkpoint(ExportConfig(str(last), str(tmp_path / "shipped")))
    datadir = load_safely(last)["vggt_nerf"]["settings"]["data"]["datadir"]
    assert datadir not in str(load_safely(exported)["vggt_nerf"])
    assert exported.stat().st_size < 0.6 * last.stat().st_size
    ours, theirs = read_checkpoint(str(exported)), read_checkpoint(str(last))
    assert replace(ours, path=theirs.path, weights={}) == replace(theirs, weights={})
    for name, value in theirs.weights.items():
        torch.testing.assert_close(ours.weights[name], value.half())
    model = ours.build_model()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with pytest.raises(UserError, match=r"without its optimiser.*--init_ckpt"):
        train(general, tmp_path, "--ckpt", exported)


def test_an_export_may_change_backbone_and_sampling(last, tmp_path):
    config = ExportConfig(str(last), str(tmp_path / "shipped"), "./elsewhere", 42, 3, False)
    exported = export_checkpoint(config)
    found = read_checkpoint(str(exported))
    backbone = found.backbone_config
    assert (backbone.vggt_path, backbone.backbone_size) == ("./elsewhere", 42)
    rendering = found.model_config.rendering
    assert (rendering.N_samples, rendering.sampling_spread) == (3, False)


@pytest.mark.parametrize(
    ("known", "others", "shown"),
    [
        ([True, True, False], (0.0, 0.0), 2.0),
        ([False, False, False], (5.0, 2.0), 2.5),
        ([True, False, True], (5.0, 2.0), 2.25),
        ([False, False, False], (0.0, 0.0), None),
    ],
)
def test_every_rank_takes_part_in_the_depth_error(monkeypatch, tiny_model, known, others, shown):
    """The other rank has found a sum and a count of depth errors."""
    logged, calls = {}, []

    def reduce(tensor, reduce_op):
        calls.append(reduce_op)
        return tensor + torch.tensor([(0.0, 0.0), (0.0, 0.0), others])

    trainer = SimpleNamespace(strategy=SimpleNamespace(reduce=reduce))
    monkeypatch.setattr(GeneralModule, "trainer", trainer)
    images = RenderedImages(
        torch.zeros(3, 3, 2, 2), torch.full((3, 2, 2), 3.0), torch.ones(3, 2, 2)
    )
    monkeypatch.setattr(type(tiny_model), "encode", lambda *_: None)
    monkeypatch.setattr(type(tiny_model), "render_images", lambda *_: images)
    module = GeneralModule(tiny_model, GeneralTrainingConfig())
    module.average = AveragedWeights([], 0.0)
    module.log = lambda name, value, **_: logged.update({name: float(value)})
    cameras = Cameras(torch.eye(3).expand(3, 1, 3, 3), torch.eye(4).expand(3, 1, 4, 4))
    depths = torch.tensor(known).float().reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
    views = Views(torch.rand(3, 1, 3, 2, 2), cameras, depths, torch.ones_like(depths).bool())
    near_far = torch.tensor([[1.0, 5.0]]).expand(3, 2)
    batch = Sample(views, views, near_far, ("x",) * 3, ((0,),) * 3, ((0,),) * 3)
    for _ in range(2):
        logged.clear()
        module.on_validation_epoch_start()
        module.validation_step(batch, 0)
        module.on_validation_epoch_end()
        assert logged.pop("val/PSNR") > 0
        assert logged == ({} if shown is None else {"val/depth_error": shown})
    assert calls == ["sum", "sum"]
