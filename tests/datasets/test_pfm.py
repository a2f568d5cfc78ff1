import struct

import numpy as np
import pytest

from datasets.formats.pfm import read_pfm, write_pfm
from utils.errors import UserError


def test_round_trip(tmp_path):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_pfm(tmp_path / "a.pfm", values)
    np.testing.assert_array_equal(read_pfm(tmp_path / "a.pfm"), values)


@pytest.mark.parametrize(("scale", "order"), [("-1.0", "<"), ("1", ">")])
def test_rows_run_from_bottom_to_top_in_either_byte_order(tmp_path, scale, order):
    data = struct.pack(f"{order}4f", 3.0, 4.0, 1.0, 2.0)
    (tmp_path / "a.pfm").write_bytes(f"Pf\n2 2\n{scale}\n".encode() + data)
    np.testing.assert_array_equal(read_pfm(tmp_path / "a.pfm"), [[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no PFM"),
        (b"PNG\n2 2\n-1\n" + bytes(16), "no PFM"),
        (b"PF\n2 2\n-1\n" + bytes(48), "colour"),
        (b"Pf\n2\n-1\n" + bytes(16), "malformed"),
        (b"Pf\n2 x\n-1\n" + bytes(16), "malformed"),
        (b"Pf\n2 2\nlittle\n" + bytes(16), "malformed"),
        (b"Pf\n2 -2\n-1\n" + bytes(16), "impossible"),
        (b"Pf\n2 2\n0\n" + bytes(16), "impossible"),
        (b"Pf\n2 2\nnan\n" + bytes(16), "impossible"),
        (b"Pf\n2 2\n-1\n" + bytes(15), "16 bytes"),
        (b"Pf\n2 2\n-1\n" + bytes(17), "16 bytes"),
        (b"Pf\n2000000000 2000000000\n-1\n" + bytes(16), "promises"),
        (b"Pf" + b"1" * 10_000_000, "no PFM"),
    ],
)
def test_refuses_what_is_no_depth_map(tmp_path, content, message):
    path = tmp_path / "bad.pfm"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_pfm(path)
    assert "bad.pfm" in str(error.value)
    assert len(str(error.value)) < 500


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.pfm"):
        read_pfm(tmp_path / "none.pfm")
