"""Training on every reader's scenes, on several at once, and on more than can be looked at."""

import json
import shutil
import time

import numpy as np
import pytest
from scene_layouts import WRITERS, open_dataset

from datasets.config import DataChoice, DataConfig, HeldOutScenes
from datasets.data_module import SceneDataModule
from datasets.data_source import DataSource, parse_source
from datasets.posed_scene import ViewPixels
from datasets.procedural.config import HELD_OUT_SEED, ProceduralDataConfig, ReplayConfig
from datasets.sampling import ItemGroup, SceneBatchSampler
from datasets.scene_dataset import PixelCache
from datasets.scene_index import list_entries, read_index, write_index
from datasets.views import SampleRequest
from utils.errors import UserError


@pytest.fixture(scope="module")
def roots(layouts):
    """A data set of one scene in every format."""
    return {name: root.parent for name, root in layouts.items()}


def module(**settings):
    return SceneDataModule(DataConfig(num_workers=0, **settings), seed=1)


@pytest.mark.parametrize("name", WRITERS)
def test_every_reader_trains_and_validates(roots, name):
    data = module(dataset_name=name, datadir=str(roots[name]))
    data.setup()
    batches = list(data.train_dataloader())
    trained = {view for batch in batches for view in batch.target_ids[0] + batch.source_ids[0]}
    validated = list(data.val_dataloader())
    assert validated[0].sources.images.shape == (1, 3, 3, 64, 80)
    held = {batch.target_ids[0][0] for batch in validated}
    assert held == ({5} if name == "blender" else {0}) and not held & trained
    assert not held & {view for batch in validated for view in batch.source_ids[0]}


def test_sources_of_weights_and_units(roots, tiny_dtu):
    mix = (f"dtu:{tiny_dtu},weight=3", f"colmap:{roots['colmap']},weight=1")
    data = module(mix=mix, batches_per_epoch=200)
    data.setup()
    dataset = data.train_dataset
    assert [group.count for group in dataset.groups] == [16, 7]
    requests = [batch[0] for batch in data.train_dataloader().batch_sampler]
    assert 0.68 < np.mean([request.index < 16 for request in requests]) < 0.82
    assert 1 < dataset[SampleRequest(3)].near_far[0] < 5
    assert dataset[SampleRequest(20)].near_far[0] > 100
    assert len(data.val_dataset) == 2


def test_pair_lists_choose_the_training_sources_and_too_few_views(roots):
    data = open_dataset("blendedmvs", roots["blendedmvs"], nearest=3)
    assert set(data[SampleRequest(1, 3)].source_ids) == {7, 6, 5}
    with pytest.raises(UserError, match="no scene has enough views: 12.* largest has 7"):
        open_dataset("colmap", roots["colmap"], nearest=12, sources=11)


def test_a_batch_holds_images_of_one_size(roots):
    folder = f"transforms:{roots['transforms']}"
    mix = (folder, f"{folder},height=32,width=40")
    data = module(mix=mix, scenes_per_batch=2, batches_per_epoch=12)
    data.setup()
    assert {batch.targets.size for batch in data.train_dataloader()} == {(64, 80), (32, 40)}


def write_scenes_file(root, sizes, views):
    scenes = {name: {"views": views, "size": size, "splits": {}} for name, size in sizes.items()}
    (root / "scenes.json").write_text(json.dumps({"format": "blendedmvs", "scenes": scenes}))


def test_scenes_of_several_sizes_are_grouped(roots, tmp_path):
    shutil.copytree(roots["blendedmvs"] / "scene a", tmp_path / "a")
    write_scenes_file(tmp_path, {"a": (64, 80), "b": (10, 20), "c": (64, 80)}, views=9)
    groups = open_dataset("blendedmvs", tmp_path).groups
    assert groups == [ItemGroup(0, 7), ItemGroup(7, 14)]
    assert open_dataset("blendedmvs", tmp_path, size=(5, 5)).groups == [ItemGroup(0, 21)]


def test_a_million_images_open_in_a_second(tmp_path):
    write_scenes_file(tmp_path, {f"s{n}": (64, 80) for n in range(20_000)}, views=50)
    begun = time.process_time()
    data = open_dataset("blendedmvs", tmp_path)
    first = next(iter(SceneBatchSampler(data.groups)))
    assert len(data) == 860_000 and len(first) == 1
    assert time.process_time() - begun < 5
    with pytest.raises(UserError, match=r"s\d+: no .*there is no such folder"):
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


SPLITS_BEYOND_THE_VIEWS = '{"views": 1, "size": [1, 2], "splits": {"x": [4]}}'


def test_damaged_and_old_indices(roots, tmp_path):
    rows = ('{"views": Infinity}', '{"views": "x"}', SPLITS_BEYOND_THE_VIEWS)
    scenes = [f'{{"format": "colmap", "scenes": {{"a": {row}}}}}' for row in rows]
    for content in ("", "[]", "{}", *scenes):
        (tmp_path / "scenes.json").write_text(content)
        with pytest.raises(UserError, match=r"scenes\.json"):
            read_index("colmap", tmp_path)
    root = shutil.copytree(roots["colmap"], tmp_path / "set")
    write_index("colmap", root, list_entries(DataSource("colmap", root), "train"))
    (root / "scene a" / "images" / "003.png").unlink()
    with pytest.raises(UserError, match=r"7 views.*index says 8.*--write_index"):
        open_dataset("colmap", root)[SampleRequest(0)]


def test_an_index_of_scans_that_lack_views(dtu_copy):
    root = dtu_copy
    for path in (root / "Rectified/scan1_train").glob("rect_003_*"):
        path.unlink()
    opened = list_entries(DataSource("dtu", root), "train")
    write_index("dtu", root, opened)
    assert list_entries(DataSource("dtu", root), "train") == opened
    assert opened[0].views == (0, 1, 3, 4, 5, 6, 7)
    assert open_dataset("dtu", root)[SampleRequest(2)].target_ids == (3,)
    assert open_dataset("dtu", root, scale=0.5)[SampleRequest(2)].targets.size == (32, 40)


def test_the_cache_reads_once_and_keeps_its_limit():
    reads, flat = [], np.zeros((8, 8), np.float32)

    def read(view):
        reads.append(view)
        return ViewPixels(np.zeros((8, 8, 3), np.float32), flat, flat == 0)

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
    source = parse_source(f"colmap:{tmp_path}/a,bc d:ü,weight=0.5,height=48,width=64")
    assert source.folder == tmp_path / "a,bc d:ü"
    assert (source.weight, source.options.size) == (0.5, (48, 64))
    assert parse_source("dtu:x").weight == 1


PROCEDURAL = {"dataset_name": "procedural"}
AT_LEAST_ONE = ("min_sources", "num_source_views", "scenes_per_batch")
AT_LEAST_ZERO = ("num_workers", "val_views", "batches_per_epoch")


@pytest.mark.parametrize(
    ("config", "settings", "match"),
    [
        *(
            (DataConfig, {"mix": (text,)}, match)
            for text, match in (
                ("colmap", "expected NAME:FOLDER"),
                ("x:y", "expected NAME:FOLDER"),
                ("dtu:", "expected NAME:FOLDER"),
                ("colmap:a,b=c", "'b' is none of weight"),
                ("procedural:x", "write procedural"),
                ("llff:x,weight=0", "positive number, found '0'"),
                ("llff:x,weight=nan", "positive"),
                ("llff:x,height=4", "both height and width"),
                ("llff:x,height=4.5,width=4", "whole numbers of pixels"),
            )
        ),
        (DataConfig, {"mix": ("dtu:x",), **PROCEDURAL}, "mix has no worlds"),
        (DataConfig, {"mix": ("dtu:x",), "near_far": (1.0, 2.0)}, "near_far cannot be chosen"),
        (DataConfig, {"near_far": (1.0, 2.0), **PROCEDURAL}, "near_far cannot be chosen"),
        (DataConfig, {"image_size": (5,)}, "image_size.* 2 numbers"),
        (DataConfig, {"min_sources": 4}, "must be 4"),
        (DataConfig, {"max_sources": 11}, "num_nearest=10 must be 11"),
        (DataConfig, {"num_targets": 9}, "num_nearest=10 must be 11"),
        *((DataConfig, {"image_scale": scale}, "must") for scale in (0.0, 1.5, float("nan"))),
        *((DataConfig, {name: 0}, f"{name}.* must") for name in AT_LEAST_ONE),
        *((DataConfig, {name: -1}, f"{name}.* must") for name in AT_LEAST_ZERO),
        (DataChoice, {"n_views": 0}, "must"),
        (DataChoice, {"targets": (1, 1)}, "twice"),
        (DataChoice, {"near_far": (1.0,)}, "2 numbers"),
        *(
            (DataChoice, {"near_far": near_far}, "more than 0|0 < near < far")
            for near_far in ((0.0, 2.0), (2.0, 1.0), (1.0, float("nan")))
        ),
        (HeldOutScenes, {"num_worlds": 0}, "must"),
        (HeldOutScenes, {"world_views": 2, "world_targets": 2}, "no view is left"),
        (HeldOutScenes, {"world_difficulty": 1.5}, "must"),
        (ReplayConfig, {"visits": 0}, "must be at least 1"),
        (ReplayConfig, {"replay_batches": 0}, "must be at least 1"),
        (ProceduralDataConfig, {"world_heights": (64, 128)}, "equally many"),
        (ProceduralDataConfig, {"world_heights": (8,)}, "at least 16"),
        (ProceduralDataConfig, {"world_seed": HELD_OUT_SEED}, "kept for evaluation"),
        (ProceduralDataConfig, {"val_worlds": 0}, "at least 1"),
    ],
)
def test_settings_that_are_refused(config, settings, match):
    with pytest.raises((ValueError, UserError), match=match):
        config(**settings)


def test_one_scene_of_a_folder_is_trained_and_validated_on(roots, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(roots["llff"] / "scene a", tmp_path / name)
    data = module(datadir=str(tmp_path), scan="b", near_far=(123.0, 1234.0), image_scale=0.5)
    data.setup()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        batch = next(iter(loader))
        assert batch.scene == ("b",) and batch.near_far.tolist() == [[123, 1234]]
        assert batch.targets.size == (32, 40)
