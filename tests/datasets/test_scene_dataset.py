"""Training on every reader's scenes, on several at once, and on more than can be looked at."""

import json
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.config import DataConfig, DataSource, parse_source
from datasets.data_module import SceneBatchSampler, SceneDataModule
from datasets.formats.options import ReadOptions
from datasets.posed_scene import ViewPixels
from datasets.scene_dataset import ItemGroup, PixelCache, SamplingRules, SceneDataset
from datasets.scene_index import list_entries, read_index, write_index
from datasets.views import SampleRequest
from utils.errors import UserError

LAYOUTS = ("llff", "transforms", "blender", "blendedmvs", "colmap")


@pytest.fixture(scope="session")
def roots(tmp_path_factory, write_layout):
    """A data set of one scene in every layout."""
    folder = tmp_path_factory.mktemp("sets")
    return {name: write_layout(name, folder / name / "scene a").parent for name in LAYOUTS}


def module(**settings):
    return SceneDataModule(DataConfig(num_workers=0, **settings), seed=1)


def dataset(name, root, split="train", **options):
    source = DataSource(name, Path(root), options=ReadOptions(**options))
    return SceneDataset(source, split, SamplingRules(6, 1, 3), PixelCache(1 << 24))


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_reader_trains_and_validates(roots, name):
    data = module(dataset_name=name, datadir=str(roots[name]), max_sources=3)
    data.setup()
    trained = {
        (target, *batch.source_ids[0])
        for batch in data.train_dataloader()
        for target in batch.target_ids[0]
    }
    validated = list(data.val_dataloader())
    assert validated[0].sources.images.shape == (1, 3, 3, 64, 80)
    held = {batch.target_ids[0][0] for batch in validated}
    assert held == ({5} if name == "blender" else {0})
    assert not held & {view for views in trained for view in views}
    for batch in validated:
        assert not held & set(batch.source_ids[0])


def test_the_same_request_gives_the_same_sample(roots):
    data = dataset("colmap", roots["colmap"])
    first, second = data[SampleRequest(2, 5)], data[SampleRequest(2, 5)]
    assert first.source_ids == second.source_ids
    assert torch.equal(first.sources.images, second.sources.images)
    assert {data[SampleRequest(2, seed)].source_ids for seed in range(9)} != {first.source_ids}


def test_pair_lists_choose_the_training_sources(roots):
    source = DataSource("blendedmvs", Path(roots["blendedmvs"]))
    data = SceneDataset(source, "train", SamplingRules(3, 1, 3), PixelCache(0))
    assert set(data[SampleRequest(1, 3)].source_ids) == {7, 6, 5}


def test_sources_of_weights_and_units(roots, tiny_dtu):
    mix = (f"dtu:{tiny_dtu},weight=3", f"colmap:{roots['colmap']},weight=1")
    data = module(mix=mix, batches_per_epoch=200)
    data.setup()
    groups = data.train_dataset.groups
    assert [group.count for group in groups] == [16, 7]
    requests = [batch[0] for batch in data.train_dataloader().batch_sampler]
    share = np.mean([request.index < 16 for request in requests])
    assert 0.68 < share < 0.82
    scenes = {
        name: data.train_dataset[SampleRequest(i)] for name, i in (("dtu", 3), ("colmap", 20))
    }
    assert 1 < scenes["dtu"].near_far[0] < 5 and scenes["colmap"].near_far[0] > 100
    assert len(data.val_dataset) == 2


def test_a_batch_holds_images_of_one_size(roots, tmp_path):
    root = tmp_path / "two"
    shutil.copytree(roots["transforms"] / "scene a", root / "b")
    small = f"transforms:{roots['transforms']},height=32,width=40"
    data = module(mix=(f"transforms:{root}", small), scenes_per_batch=2, batches_per_epoch=12)
    data.setup()
    sizes = Counter(batch.targets.size for batch in data.train_dataloader())
    assert set(sizes) == {(64, 80), (32, 40)}


def test_scenes_of_several_sizes_are_grouped(roots, tmp_path):
    (tmp_path / "z").mkdir()
    shutil.copytree(roots["blendedmvs"] / "scene a", tmp_path / "a")
    write = {"views": 9, "splits": {}}
    sizes = {"a": (64, 80), "b": (10, 20), "c": (64, 80)}
    rows = {name: {**write, "size": size} for name, size in sizes.items()}
    (tmp_path / "scenes.json").write_text(json.dumps({"format": "blendedmvs", "scenes": rows}))
    groups = dataset("blendedmvs", tmp_path).groups
    assert groups == [ItemGroup(0, 7), ItemGroup(7, 14)]
    assert dataset("blendedmvs", tmp_path, size=(5, 5)).groups == [ItemGroup(0, 21)]


def test_a_million_images_open_in_a_second(tmp_path):
    rows = {f"s{n}": {"views": 50, "size": [64, 80], "splits": {}} for n in range(20_000)}
    (tmp_path / "scenes.json").write_text(json.dumps({"format": "colmap", "scenes": rows}))
    begun = time.perf_counter()
    data = dataset("colmap", tmp_path)
    first = next(iter(SceneBatchSampler(data.groups)))
    assert len(data) == 860_000 and len(first) == 1
    assert time.perf_counter() - begun < 5
    with pytest.raises(UserError, match=r"s\d+: no such folder"):
        data[first[0]]


def test_the_index_says_what_opening_says(roots, tmp_path):
    root = shutil.copytree(roots["blender"], tmp_path / "set")
    source = DataSource("blender", root)
    opened = list_entries(source, "train")
    assert read_index("blender", root) is None
    write_index("blender", root, opened)
    assert list_entries(source, "train") == opened
    with pytest.raises(UserError, match=r"scenes\.json: is of 'blender' scenes"):
        read_index("llff", root)
    (root / "lists").mkdir()
    (root / "lists" / "train.txt").write_text("other\n")
    with pytest.raises(UserError, match=r"lacks 'other'"):
        list_entries(source, "train")


def test_an_index_of_scans_that_lack_views(tiny_dtu, tmp_path):
    root = shutil.copytree(tiny_dtu, tmp_path / "dtu")
    for path in (root / "Rectified/scan1_train").glob("rect_003_*"):
        path.unlink()
    opened = list_entries(DataSource("dtu", root), "train")
    write_index("dtu", root, opened)
    assert list_entries(DataSource("dtu", root), "train") == opened
    assert opened[0].views == (0, 1, 3, 4, 5, 6, 7)
    assert dataset("dtu", root)[SampleRequest(2)].target_ids == (3,)
    assert dataset("dtu", root, scale=0.5)[SampleRequest(2)].targets.size == (32, 40)


def test_an_index_that_has_grown_old(roots, tmp_path):
    root = shutil.copytree(roots["colmap"], tmp_path / "set")
    write_index("colmap", root, list_entries(DataSource("colmap", root), "train"))
    (root / "scene a" / "images" / "003.png").unlink()
    with pytest.raises(UserError, match=r"7 views.*index says 8.*--write_index"):
        dataset("colmap", root)[SampleRequest(0)]


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"format": "colmap", "scenes": {"a": {"views": Infinity}}}',
        "[]",
        "{}",
        '{"format": "colmap", "scenes": {"a": {"views": "x"}}}',
        '{"format": "colmap", "scenes": {"a": {"views": 1, "size": [1, 2], "splits": {"x": [4]}}}}',
    ],
)
def test_damaged_indices(tmp_path, content):
    (tmp_path / "scenes.json").write_text(content)
    with pytest.raises(UserError, match=r"scenes\.json"):
        read_index("colmap", tmp_path)


def test_too_few_views(roots):
    source = DataSource("colmap", Path(roots["colmap"]))
    with pytest.raises(UserError, match="no scene has enough views: 12.* largest has 7"):
        SceneDataset(source, "train", SamplingRules(12, 1, 11), PixelCache(0))


def test_the_cache_reads_once_and_keeps_its_limit():
    reads = []

    def read(view):
        reads.append(view)
        return ViewPixels(
            np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.float32), np.ones((8, 8), np.bool_)
        )

    size = 8 * 8 * 17
    cache = PixelCache(2 * size + 5)
    for view in (0, 1, 0, 1, 2, 0, 1):
        cache.read(read, "scene", view)
        assert cache.held_bytes <= 2 * size
    assert reads == [0, 1, 2, 0, 1]
    nothing = PixelCache(0)
    nothing.read(read, "scene", 7)
    assert nothing.held_bytes == 0


def test_source_descriptions(tmp_path):
    odd = f"colmap:{tmp_path}/a,b=c d:ü,weight=0.5,height=48,width=64"
    with pytest.raises(UserError, match="'b' is none of weight"):
        parse_source(f"colmap:{tmp_path}/a,b=c")
    assert parse_source(odd.replace("b=c", "bc")).folder == tmp_path / "a,bc d:ü"
    assert parse_source(odd.replace("b=c", "bc")).options.size == (48, 64)
    assert parse_source("dtu:x").weight == 1


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("colmap", "expected NAME:FOLDER"),
        ("x:y", "expected NAME:FOLDER"),
        ("dtu:", "expected NAME:FOLDER"),
        ("procedural:x", "make_procedural_dataset"),
        ("llff:x,weight=0", "positive number, found '0'"),
        ("llff:x,weight=nan", "positive"),
        ("llff:x,height=4", "height and width go together"),
        ("llff:x,height=4.5,width=4", "whole pixels"),
    ],
)
def test_descriptions_that_are_refused(text, match):
    with pytest.raises(UserError, match=match):
        DataConfig(mix=(text,))


def test_settings_that_are_refused():
    with pytest.raises(ValueError, match="leave dataset_name = procedural out"):
        DataConfig(mix=("dtu:x",), dataset_name="procedural")
    with pytest.raises(ValueError, match="image_size.* 2 numbers"):
        DataConfig(image_size=(5,))
    with pytest.raises(ValueError, match="near_far cannot be chosen for a mix"):
        DataConfig(mix=("colmap:x",), near_far=(1.0, 2.0))
    with pytest.raises(ValueError, match="near_far cannot be chosen"):
        DataConfig(dataset_name="procedural", near_far=(1.0, 2.0))


@pytest.mark.parametrize(
    "settings",
    [
        *({name: 0} for name in ("min_sources", "num_source_views", "scenes_per_batch")),
        *({name: -1} for name in ("num_workers", "val_views", "batches_per_epoch")),
        *({"image_scale": value} for value in (0.0, 1.5, float("nan"))),
        *({"min_sources": 4}, {"max_sources": 11}, {"num_targets": 9}),
    ],
)
def test_settings_that_cannot_work(settings):
    with pytest.raises(ValueError, match="must"):
        DataConfig(**settings)


def test_one_scene_of_a_folder_is_trained_and_validated_on(roots, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(roots["llff"] / "scene a", tmp_path / name)
    data = module(datadir=str(tmp_path), scan="b", near_far=(123.0, 1234.0), image_scale=0.5)
    data.setup()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        batch = next(iter(loader))
        assert batch.scene == ("b",) and batch.near_far.tolist() == [[123, 1234]]
        assert batch.targets.size == (32, 40)
