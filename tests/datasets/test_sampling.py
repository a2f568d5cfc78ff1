"""Which samples make up an epoch: a pure function of a seed and the number of the epoch."""

import pytest

from datasets.sampling import ItemGroup, SceneBatchSampler


def batches(epoch=0, first_batch=0, num_items=20, **options):
    sampler = SceneBatchSampler([ItemGroup(0, num_items)], **options)
    sampler.set_epoch(epoch, first_batch)
    return list(sampler)


def indices(drawn):
    return [request.index for batch in drawn for request in batch]


def test_an_epoch_is_a_function_of_seed_and_number_and_visits_every_item_once():
    drawn = batches(scenes_per_batch=4)
    assert [len(batch) for batch in drawn] == [4] * 5
    assert sorted(indices(drawn)) == list(range(20))
    assert batches(3, seed=1) == batches(3, seed=1)
    assert indices(batches(3, seed=1)) != indices(batches(4, seed=1))
    assert indices(batches(3, seed=1)) != indices(batches(3, seed=2))
    seeds = [request.seed for epoch in (0, 1) for batch in batches(epoch) for request in batch]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("items", [[ItemGroup(0, 20)], [ItemGroup(0, 4), ItemGroup(4, 9)]])
def test_the_rest_of_an_epoch(items):
    sampler = SceneBatchSampler(items, scenes_per_batch=2, batches_per_epoch=9)
    sampler.set_epoch(2)
    whole = list(sampler)
    for first_batch in (0, 1, 7, 9):
        sampler.set_epoch(2, first_batch)
        assert list(sampler) == whole[first_batch:] and len(sampler) == len(whole) == 9


def test_ranks_share_an_epoch_and_the_number_of_sources_of_a_step():
    options = {"num_items": 401, "world_size": 2, "sources_range": (2, 4), "scenes_per_batch": 2}
    ranks = [batches(rank=rank, **options) for rank in range(2)]
    assert [len(drawn) for drawn in ranks] == [100, 100]
    seen = [index for drawn in ranks for index in indices(drawn)]
    assert len(set(seen)) == len(seen) == 400
    counts = [[{request.num_sources for request in batch} for batch in drawn] for drawn in ranks]
    assert counts[0] == counts[1]
    assert all(len(count) == 1 for count in counts[0])
    assert set.union(*counts[0]) == {2, 3, 4}


def test_long_epochs_and_large_batches_pass_over_the_data_several_times():
    drawn = indices(batches(num_items=3, batches_per_epoch=7))
    assert len(drawn) == 7
    assert sorted(drawn[:3]) == sorted(drawn[3:6]) == [0, 1, 2]
    assert [len(batch) for batch in batches(num_items=2, scenes_per_batch=4)] == [4]


@pytest.mark.parametrize("options", [{"num_items": 0}, {"rank": 2, "world_size": 2}])
def test_refuses_impossible_places(options):
    with pytest.raises(ValueError, match="rank"):
        batches(**options)


def test_ranks_agree_on_the_source_and_share_its_items():
    groups = [ItemGroup(0, 40), ItemGroup(40, 40, 2.0)]
    ranks = [
        list(SceneBatchSampler(groups, rank=r, world_size=2, batches_per_epoch=10)) for r in (0, 1)
    ]
    firsts, seconds = ([batch[0].index for batch in rank] for rank in ranks)
    assert [i < 40 for i in firsts] == [i < 40 for i in seconds]
    assert not set(firsts) & set(seconds)
