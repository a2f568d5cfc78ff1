"""Loading processes: room for their batches is there, or one line says what to do."""

import errno
import shutil
from types import SimpleNamespace

import pytest
from torch import multiprocessing
from torch.utils.data import Dataset

from datasets import loading
from datasets.config import DataConfig
from datasets.data_module import SceneDataModule
from utils.errors import UserError, run_and_report


def free(monkeypatch, number):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=number))


def test_small_shared_memory_is_refused_before_anything_is_loaded(layouts, monkeypatch):
    config = DataConfig(
        dataset_name="transforms", datadir=str(layouts["transforms"]), num_workers=2
    )
    free(monkeypatch, 1 << 18)
    with pytest.raises(UserError, match=r"0\.25 MiB free, but 2 .* need .*--num_workers 0, or"):
        SceneDataModule(config).setup()
    free(monkeypatch, 1 << 26)
    SceneDataModule(config).setup()


def test_none_is_needed_without_processes(monkeypatch):
    free(monkeypatch, 0)
    loading.check_shared_memory(0, 1 << 30)


def test_tensors_are_shared_by_name_where_few_files_may_be_open(monkeypatch):
    chosen = []
    monkeypatch.setattr(multiprocessing, "set_sharing_strategy", chosen.append)
    for allowed in (1024, 1 << 20):
        monkeypatch.setattr(loading, "_open_files_limit", lambda allowed=allowed: allowed)
        loading.check_shared_memory(1, 1)
    assert chosen == ["file_system"]


def test_what_a_machine_does_to_loading_processes_ends_the_run_with_one_line(caplog):
    def job():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    assert run_and_report(job) == 1
    assert "pid 7" in caplog.text and "--num_workers" in caplog.text

    def torch_ran_out_of_files():
        raise RuntimeError("Too many open files. Communication with the workers is no longer ...")

    def the_system_ran_out_of_files():
        raise OSError(errno.EMFILE, "Too many open files")

    for job in (torch_ran_out_of_files, the_system_ran_out_of_files):
        caplog.clear()
        assert run_and_report(job) == 1
        assert "ulimit -n" in caplog.text and "--num_workers 0" in caplog.text
        assert caplog.text.count("Too many open files") == 1

    def other():
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        run_and_report(other)


class Numbers(Dataset):
    def __len__(self):
        return 3


@pytest.mark.parametrize(
    ("ranks", "workers", "method"), [(2, 1, "forkserver"), (2, 0, None), (1, 1, None)]
)
def test_how_processes_start(ranks, workers, method, monkeypatch):
    monkeypatch.setattr(loading.distributed, "is_initialized", lambda: ranks > 1)
    context = loading.SampleLoader(Numbers(), workers).multiprocessing_context
    assert (context and context.get_start_method()) == method
