import os
import random
import zipfile

import numpy as np
import pytest
import torch

import utils.checkpoints
from utils.checkpoints import check_archive, load_safely, resolve_checkpoint, save_atomically
from utils.errors import UserError
from utils.files import read_arrays

CONTENT = {"weights": {str(n): torch.arange(40.0) + n for n in range(4)}, "step": 7, "ids": [1, 2]}


@pytest.fixture
def path(tmp_path):
    save_atomically(CONTENT, tmp_path / "x.ckpt")
    return tmp_path / "x.ckpt"


def loads_the_same(path):
    """Whether a file is read with its content; a ``UserError`` is the only other way out."""
    try:
        content = load_safely(path)
    except UserError as error:
        assert path.name in str(error) and "Copy it again" in str(error)
        return False
    same = all(torch.equal(content["weights"][n], w) for n, w in CONTENT["weights"].items())
    assert same and (content["step"], content["ids"]) == (7, [1, 2])
    return True


def test_no_flipped_bit_is_read_as_other_weights(path):
    whole, draw = path.read_bytes(), random.Random(0)
    read = 0
    for _ in range(600):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        read += loads_the_same(path)
    # Padding and dates are no content.
    assert read < 300


def test_no_flipped_bit_of_the_directory_is_read_as_other_weights(path):
    whole = path.read_bytes()
    start = whole.index(b"data/2", whole.index(b"PK\x01\x02")) - len("archive/") - 60
    for bit in range(8 * start, 8 * (start + 160)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        loads_the_same(path)


def test_a_flipped_bit_of_a_weight_is_named_as_damage(path):
    whole = bytearray(path.read_bytes())
    place = whole.index(CONTENT["weights"]["2"].numpy().tobytes())
    whole[place + 8] ^= 1
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"x\.ckpt: .*damaged.*CRC.*data/2"):
        load_safely(path)


@pytest.mark.parametrize("kept", range(0, 3000, 97))
def test_truncated_files_are_damaged(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    assert not loads_the_same(path)


def rewrite(path, change):
    """Write the archive again; ``change`` gives how an entry is stored and its content."""
    with zipfile.ZipFile(path) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            archive.writestr(name, *change(name, content))


def test_compressed_archives_are_refused_before_they_are_read(path):
    bomb = bytes(1 << 24)
    rewrite(
        path,
        lambda name, content: (
            bomb if name.endswith("data/0") else content,
            zipfile.ZIP_DEFLATED,
        ),
    )
    assert path.stat().st_size < 1 << 16
    with pytest.raises(UserError, match="compressed, which torch.save never does"):
        load_safely(path)


def test_sizes_beyond_the_file_are_refused(path):
    whole = bytearray(path.read_bytes())
    # Of the first entry in the directory: compressed and plain size.
    place = whole.index(b"PK\x01\x02") + 20
    whole[place : place + 8] = (2_000_000_000).to_bytes(4, "little") * 2
    path.write_bytes(whole)
    with pytest.raises(UserError, match="declares 20000"):
        load_safely(path)


def test_tensors_beyond_the_file_are_refused(tmp_path):
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="a tensor declares 4398046511104 bytes"):
        load_safely(tmp_path / "x.ckpt")


def test_containers_that_hold_themselves_are_read_once(tmp_path):
    content = {}
    content["self"] = [content] * 9
    torch.save(content, tmp_path / "x.ckpt")
    assert load_safely(tmp_path / "x.ckpt").keys() == {"self"}


def test_files_of_early_versions_have_nothing_to_verify(tmp_path):
    torch.save(CONTENT, tmp_path / "x.ckpt", _use_new_zipfile_serialization=False)
    with (tmp_path / "x.ckpt").open("rb") as file:
        check_archive(file)
    assert loads_the_same(tmp_path / "x.ckpt")


def test_arrays_that_unpack_to_more_than_they_may_are_not_read(tmp_path):
    path = tmp_path / "cameras.npz"
    np.savez_compressed(path, a=np.zeros(1 << 20), b=np.arange(3))
    assert path.stat().st_size < 1 << 15
    with pytest.raises(ValueError, match="declares 83888"):
        read_arrays(path, 1 << 22)
    arrays = read_arrays(path, 1 << 24)
    assert arrays["a"].shape == (1 << 20,) and arrays["b"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive", b"\x93NUMPY"])
def test_files_that_are_no_archives_of_arrays(content, tmp_path):
    path = tmp_path / "cameras.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        read_arrays(path, 1 << 20)


def test_a_file_that_is_replaced_while_it_is_read_is_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "x.ckpt"
    save_atomically({"a": torch.zeros(10)}, path)
    check = utils.checkpoints.check_archive

    def check_and_replace(*arguments):
        check(*arguments)
        save_atomically({"a": torch.ones(1).expand(99)}, path)

    monkeypatch.setattr(utils.checkpoints, "check_archive", check_and_replace)
    assert torch.equal(load_safely(path)["a"], torch.zeros(10))


def test_what_is_not_written_to_its_end_is_no_checkpoint(tmp_path):
    partial = tmp_path / ".partial-1-0-last.ckpt"
    partial.touch()
    with pytest.raises(UserError, match="a folder without .ckpt files .no .ckpt file under"):
        resolve_checkpoint(str(tmp_path))
    save_atomically({"a": 1}, tmp_path / "last.ckpt")
    os.utime(tmp_path / "last.ckpt", (1, 1))
    assert resolve_checkpoint(str(tmp_path)).name == "last.ckpt"
