"""Shards hold what the data set held, from a disk and over the network."""

import json
import shutil

import numpy as np
import pytest
import torch
from scene_layouts import WRITERS, open_dataset

from apps.make_shards import ShardConfig, main, make_shards
from datasets.config import DataConfig
from datasets.data_module import SceneDataModule, build_dataset
from datasets.formats.options import ReadOptions
from datasets.formats.registry import open_scene, recognise_format
from datasets.scene_dataset import SamplingRules
from datasets.shards import remote_folder
from datasets.views import SampleRequest
from utils.errors import UserError

RULES = SamplingRules(num_nearest=4, num_targets=1, max_sources=2)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """The cache of the user; failed requests are tried again at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remote_folder, "_RETRY_DELAYS", (0.0, 0.0))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache" / "vggt-nerf"


@pytest.fixture(scope="session")
def shards(tiny_dtu, tmp_path_factory):
    """The tiny scans of DTU as shards."""
    out = tmp_path_factory.mktemp("shards")
    assert "2 new" not in make_shards(ShardConfig("dtu", str(tiny_dtu), out=str(out)))
    return out


def config(place, **settings):
    """Training data from shards."""
    counts = {"min_sources": 2, "max_sources": 2, "num_source_views": 2, "num_nearest": 4}
    return DataConfig(mix=(f"shards:{place}",), num_workers=0, **counts, **settings)


def samples(dataset, count=6):
    requests = [SampleRequest(3 * n % len(dataset), n, num_sources=2) for n in range(count)]
    return [dataset[request] for request in requests]


def same_samples(ours, theirs):
    for one, other in zip(samples(ours), samples(theirs), strict=True):
        assert (one.scene, one.source_ids, one.target_ids) == (
            *(other.scene, other.source_ids),
            other.target_ids,
        )
        assert torch.equal(one.near_far, other.near_far)
        for views, others in ((one.sources, other.sources), (one.targets, other.targets)):
            for name in ("images", "depths", "masks"):
                assert torch.equal(getattr(views, name), getattr(others, name))
            assert torch.equal(views.cameras.c2w, others.cameras.c2w)
            assert torch.equal(views.cameras.intrinsics, others.cameras.intrinsics)
    return True


@pytest.mark.parametrize("split", ["train", "val"])
def test_samples_are_those_of_the_data_set(shards, tiny_dtu, serve, split):
    original = open_dataset("dtu", tiny_dtu, split, nearest=4, sources=2)
    for place in (shards, serve(shards).url, serve(shards, knows_ranges=False).url):
        assert same_samples(build_dataset(config(place), split, RULES), original)


@pytest.mark.parametrize("name", WRITERS)
def test_a_scene_of_any_format_comes_back(layouts, tmp_path, name):
    out = tmp_path / "shards"
    make_shards(ShardConfig(name, str(layouts[name]), out=str(out)))
    assert recognise_format(out) == "shards"
    before, after = open_scene(name, layouts[name]), open_scene("shards", out / "scene a")
    for field in ("name", "view_ids", "view_names", "image_size", "unit", "neighbours"):
        ours, theirs = getattr(after, field), getattr(before, field)
        if field == "neighbours":
            ours = {view: list(ranked) for view, ranked in ours.items() if ranked}
            theirs = {view: list(ranked) for view, ranked in theirs.items()}
        assert ours == theirs, field
    assert torch.equal(after.cameras.c2w, before.cameras.c2w)
    assert torch.equal(after.range_of([1, 2]), before.range_of([1, 2]))
    ours, theirs = after.load_views(after.view_ids), before.load_views(before.view_ids)
    assert torch.equal(ours.masks, theirs.masks) and torch.equal(ours.depths, theirs.depths)
    torch.testing.assert_close(ours.images, theirs.images, atol=0.5 / 255 + 1e-6, rtol=0)
    small = open_scene("shards", out / "scene a", ReadOptions(size=(32, 40), near_far=(1.0, 9.0)))
    assert small.load_views([1]).images.shape == (1, 3, 32, 40)
    torch.testing.assert_close(2 * small.cameras.intrinsics[:, :2], after.cameras.intrinsics[:, :2])
    assert small.range_of([1]).tolist() == [1, 9]


def test_writing_goes_on_where_it_stopped(tiny_dtu, shards, tmp_path, capsys, caplog):
    out = shutil.copytree(shards, tmp_path / "shards")
    (out / "scan2" / "shard.json").unlink()
    kept = (out / "scan1" / "shard.tar").stat().st_mtime_ns
    said = make_shards(ShardConfig("dtu", str(tiny_dtu), out=str(out)))
    assert "1 of them new" in said and (out / "scan1" / "shard.tar").stat().st_mtime_ns == kept
    assert (out / "scan2" / "shard.tar").read_bytes() == (shards / "scan2/shard.tar").read_bytes()
    flags = ["--dataset_name", "dtu", "--datadir", str(tiny_dtu), "--out", str(out)]
    assert main([*flags, "--quality", "90"]) == 2 and "with other settings" in caplog.text
    assert main(["--dataset_name", "procedural", "--out", str(out)]) == 2


def test_jpeg_is_smaller_and_close(layouts, tmp_path):
    sizes, images = [], []
    for quality in (100, 90):
        out = tmp_path / str(quality)
        make_shards(ShardConfig("llff", str(layouts["llff"]), out=str(out), quality=quality))
        sizes.append((out / "scene a" / "shard.tar").stat().st_size)
        images.append(open_scene("shards", out / "scene a").load_views([0]).images)
    assert sizes[1] < 0.6 * sizes[0] and 0 < (images[1] - images[0]).abs().mean() < 0.03


def test_what_is_kept_on_disk_is_bounded_and_read_again(shards, serve, cache):
    server = serve(shards)
    data = build_dataset(config(server.url, shard_cache_mb=1), "train", RULES)
    samples(data)
    asked = sum(path.endswith(".tar") for path in server.asked)
    (pieces,) = cache.glob("*/pieces")
    assert asked and len(list(pieces.iterdir())) == asked
    again = build_dataset(config(server.url, shard_cache_mb=1), "train", RULES)
    same_samples(again, data)
    assert sum(path.endswith(".tar") for path in server.asked) == asked
    # A piece that a crash has cut is fetched again.
    cut = next(pieces.iterdir())
    cut.write_bytes(cut.read_bytes()[:-1])
    same_samples(build_dataset(config(server.url, shard_cache_mb=1), "train", RULES), data)
    assert sum(path.endswith(".tar") for path in server.asked) == asked + 1
    (pieces / "old").write_bytes(bytes(3 << 19))
    remote_folder._enforce_limit(pieces, 1 << 20, 1 << 20)
    assert sum(path.stat().st_size for path in pieces.iterdir()) <= 1 << 20
    nothing = build_dataset(config(server.url, shard_cache_mb=0), "train", RULES)
    shutil.rmtree(pieces)
    samples(nothing)
    assert not pieces.exists()


def test_a_server_that_fails_is_asked_again(shards, serve, caplog):
    server = serve(shards)
    server.failures = 2
    assert samples(build_dataset(config(server.url), "train", RULES), 1)
    assert caplog.text.count("retrying in") == 2
    server.failures = 100
    with pytest.raises(UserError, match=r"scenes\.json: cannot be read .*3 times in a row"):
        build_dataset(config(server.url), "train", RULES)
    server.failures = 0
    with pytest.raises(UserError, match=r"absent/scenes\.json: no such file there"):
        build_dataset(config(f"{server.url}/absent"), "train", RULES)
    with pytest.raises(UserError, match="pip install s3fs"):
        build_dataset(config("s3://bucket/shards"), "train", RULES)
    with pytest.raises(UserError, match="only shards can be read from a URL"):
        DataConfig(mix=(f"dtu:{server.url}",))


def test_workers_read_over_the_network(shards, serve, monkeypatch):
    data = SceneDataModule(config(serve(shards).url, batches_per_epoch=4), seed=1)
    here = [batch.targets.images for batch in data.train_dataloader()]
    data._config = data._config.__class__(**(vars(data._config) | {"num_workers": 2}))
    there = [batch.targets.images for batch in data.train_dataloader()]
    assert len(here) == 4 and all(map(torch.equal, here, there))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda record: record.update(version=9), "of version 9"),
        (lambda record: record.pop("offsets"), "offsets"),
        (lambda record: record["offsets"][0].reverse(), "offsets of a view are too far apart"),
        (lambda record: record["offsets"][0].__setitem__(2, 1 << 40), "too far apart, or not"),
        (lambda record: record.update(lights=-1), "offsets"),
        (lambda record: record["cameras"].update(c2w=[[0]]), "expected"),
        (lambda record: record.update(size=["x", 3]), "not a readable shard"),
        (lambda record: record.update(size=[8, 99999999]), r"shard\.json: .* pixels"),
        (lambda record: record.update(size=[True, 3]), "expected a whole number"),
        (lambda record: record["view_ids"].__setitem__(0, 1), "have the same number"),
        (lambda record: record["ranked"][0].__setitem__(0, 99), "names views that it does not"),
        (lambda record: record["splits"].update(train=[99]), "names views that it does not"),
        (lambda record: record["cameras"]["c2w"][0][0].__setitem__(0, 9.0), "not a rotation"),
        (lambda record: record["cameras"]["intrinsics"][0][0].__setitem__(0, 1e9), "focal length"),
        (lambda record: record["cameras"]["intrinsics"][0][0].__setitem__(1, 1e300), "pinhole"),
        (lambda record: record.update(near_far=[3.0, 1.0]), "0 < near < far"),
    ],
)
def test_damaged_records_are_refused(shards, tmp_path, damage, said):
    folder = shutil.copytree(shards / "scan1", tmp_path / "scan1")
    record = json.loads((folder / "shard.json").read_text())
    damage(record)
    (folder / "shard.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=said) as caught:
        open_scene("shards", folder)
    assert "shard.json" in str(caught.value)


def test_damaged_archives_are_refused(shards, tmp_path):
    folder = shutil.copytree(shards / "scan1", tmp_path / "scan1")
    scene, path = open_scene("shards", folder), folder / "shard.tar"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(30):
        damaged = bytearray(whole)
        for place in rng.integers(0, scene.read_view.offsets[0][2], 20):
            damaged[place] ^= 255
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"shard\.tar: (view 0|a piece) is damaged"):
            scene.read_view(0)
    # Pillow finds a damaged chunk of a PNG only when it decodes the pixels.
    place = whole.index(b"IDAT")
    path.write_bytes(whole[:place] + b"[[[[" + whole[place + 4 :])
    with pytest.raises(UserError, match=r"shard\.tar: view \d+ is damaged"):
        scene.load_views(scene.view_ids)
    path.write_bytes(whole[:1000])
    with pytest.raises(UserError, match=r"shard\.tar: ends after"):
        scene.read_view(3)
    path.unlink()
    with pytest.raises(UserError, match=r"shard\.tar: cannot be read"):
        scene.read_view(0)
