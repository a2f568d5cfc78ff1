"""Readers of the files that this program writes for itself: caches, records, finished frames."""

from __future__ import annotations

import json
import tempfile
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from apps.reconstruction.stages import Stages
from apps.rendering.frames import FrameStore
from benchmarks.faults.parsers.samples import LENS, POSES, Parser, image_file
from datasets.formats import depth_range
from datasets.formats.registry import recognise_format
from datasets.posed_scene import ViewPixels
from datasets.procedural.renderer.textures import load_photos
from datasets.shards.remote_folder import RangeFile
from models.scenes.renderable_scene import RenderedView
from utils.cameras import Cameras
from utils.records import write_record

_PIECE, _VERSION = b"content!", "1"
_CSV = b"#name,x,y,alt,heading,pitch,roll,f,px,py\na.png,1,2,3,4,5,6,35,0,0\n"


def record_parsers() -> list[Parser]:
    """Return the readers of all records, each of which finds what was written or nothing."""
    settings = {"url": "memory://shards", "cache_bytes": 1 << 20}
    cached = (f"pieces/{_VERSION}-0-{len(_PIECE)}", _PIECE)
    done: dict[str, object] = {"one": {"result": [1, 2], "seconds": 3.5}}
    return [
        Parser("remote.json", _record(settings), _read_range, (cached,)),
        Parser("stages.json", _record({"key": "a", "done": done}), partial(_read_stages, done)),
        Parser("estimated/near_far.json", _record(_depth_range()), _read_depth_range),
        Parser("frame_00000.npz", _frame(), lambda path: FrameStore(path.parent).read(0)),
        Parser("textures/a.png", image_file("RGB", "png"), lambda path: load_photos(path.parent)),
        Parser("unread/cameras.csv", _CSV, lambda path: recognise_format(path.parent)),
    ]


def _record(content: dict[str, object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.json"
        write_record(path, json.loads(json.dumps(content)))
        return path.read_bytes()


def _read_range(path: Path) -> object:
    """Read a range that is in the cache, so that none is fetched."""
    data = RangeFile(path.parent / "scene" / "shard.tar", _VERSION).read(0, len(_PIECE))
    assert data == _PIECE
    return data


def _read_stages(done: dict[str, object], path: Path) -> object:
    found = Stages.opened(path.parent, "a", {"one": 1.0}).done
    assert found in ({}, done), found
    return found


@cache
def _cameras() -> Cameras:
    lenses = torch.from_numpy(np.tile(LENS[:3, :3], (len(POSES), 1, 1)))
    return Cameras(lenses.float(), torch.from_numpy(POSES).float())


def _depth_range() -> dict[str, object]:
    key = depth_range.camera_key(_cameras())
    return {"transforms.json": {"cameras": key, "near": 1.5, "far": 3.5}}


def _read_depth_range(path: Path) -> object:
    """Read a measured range, which is measured again if it cannot be read: here in vain."""
    source = path.parent.parent / "transforms.json"
    black = ViewPixels(*(np.zeros(shape, np.float32) for shape in ((8, 12, 3), (8, 12), (8, 12))))
    found = depth_range.choose_near_far(None, None, _cameras(), lambda _: black, source)
    estimate = depth_range.estimate_near_far(_cameras(), str(source))
    assert found.tolist() == [1.5, 3.5] or found.equal(estimate), found
    return found


def _frame() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        view = RenderedView(torch.rand(3, 4, 6), torch.rand(4, 6), torch.rand(4, 6))
        FrameStore(Path(folder)).write(0, view)
        return next(Path(folder).iterdir()).read_bytes()
