"""Folders at a URL, of http(s) or object storage, through fsspec.

A folder on this machine stands for each. Its small files are fetched whole; of large ones the
pieces that are read, and those read last are kept on disk, up to a number of bytes that all
processes of the machine share. This module does not import torch.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from datasets.scene_cache import cache_of_user
from utils.errors import UserError
from utils.files import atomic_write, read_json

_STATED, _PIECES = "remote.json", "pieces"
_PAUSES = (0.5, 2.0, 8.0)
"""Seconds before a request that failed is tried again: networks and servers have bad moments."""
_LOOK_EVERY = 32
"""A process looks what is kept after it added this share of the limit, so that all keep to it but
for so much each."""
_LOG = logging.getLogger(__name__)


def is_url(place: str) -> bool:
    """Say whether a place is not a path of this machine."""
    return "://" in place


def folder_for(url: str) -> Path:
    """Return the folder that stands for a remote one, which need not exist yet."""
    url = url.rstrip("/")
    return cache_of_user(url.rpartition("/")[2], url)


def prepare_folder(url: str, cache_mb: int, needed: str, optional: Iterable[str] = ()) -> Path:
    """Fetch the files that say what a remote folder holds, and set how much of it is kept."""
    folder = folder_for(url)
    stated = json.dumps({"url": url.rstrip("/"), "cache_bytes": cache_mb << 20})
    _write(folder / _STATED, stated.encode())
    _write(folder / needed, _fetch(f"{url.rstrip('/')}/{needed}"))
    for name in optional:
        try:
            _write(folder / name, _fetch(f"{url.rstrip('/')}/{name}"))
        except _MissingError:
            (folder / name).unlink(missing_ok=True)
    return folder


def current_file(path: Path) -> Path:
    """Fetch a small file two levels below a folder that stands for a remote one; return its path.

    Files of folders of this machine are left as they are.
    """
    remote = _remote_of(path)
    if remote is not None:
        _write(path, _fetch(f"{remote.url}/{path.parent.name}/{path.name}"))
    return path


@dataclass(frozen=True)
class PiecewiseFile:
    """A large file two levels below a folder of this machine, or one that stands for a remote one.

    Can be pickled, for worker processes.
    """

    path: Path
    version: str
    """Names its content: pieces of another version are not taken for those of this one."""

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from ``start`` up to ``end``."""
        remote = _remote_of(self.path)
        data = self._read_local(start, end) if remote is None else remote.piece(self, start, end)
        if len(data) != end - start:
            raise UserError(
                f"{self.path}: ends after {start + len(data)} bytes, before the view at {start} "
                f"to {end}. Copy it again."
            )
        return data

    def _read_local(self, start: int, end: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                return file.read(end - start)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror}).") from error


@dataclass(frozen=True)
class _Remote:
    folder: Path
    url: str
    cache_bytes: int

    def piece(self, file: PiecewiseFile, start: int, end: int) -> bytes:
        """Return a piece of a file, from the disk if it is kept."""
        kept = self.folder / _PIECES / f"{file.version}-{start}-{end}"
        with contextlib.suppress(OSError):
            data = kept.read_bytes()
            os.utime(kept)
            if len(data) == end - start:
                return data
        url = f"{self.url}/{file.path.parent.name}/{file.path.name}"
        data = _fetch(url, start, end)
        if len(data) > end - start:
            # The server does not know ranges, and sends all.
            data = data[start:end]
        if len(data) <= self.cache_bytes:
            _write(kept, data)
            _keep_within(kept.parent, self.cache_bytes, len(data))
        return data


_added: dict[Path, int] = {}
"""Bytes that this process has added to a folder since it last looked what is kept there."""


def _keep_within(folder: Path, most: int, added: int) -> None:
    """Remove the pieces that nobody has read for longest, until so many bytes are left."""
    _added[folder] = _added.get(folder, 0) + added
    if _added[folder] * _LOOK_EVERY < most:
        return
    _added[folder] = 0
    kept = []
    for entry in os.scandir(folder):
        # Other processes remove some at the same time.
        with contextlib.suppress(OSError):
            kept.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
    total = sum(size for _, size, _ in kept)
    for _, size, path in sorted(kept):
        if total <= most:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
        total -= size


def _remote_of(path: Path) -> _Remote | None:
    folder = path.parents[1]
    if not (folder / _STATED).is_file():
        return None
    stated = read_json(folder / _STATED, "note of a remote folder", "Remove it.")
    return _Remote(folder, str(stated["url"]), int(stated["cache_bytes"]))


class _MissingError(UserError):
    """There is no such file at a URL."""


def _fetch(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """Return a file at a URL, or bytes of it."""
    import fsspec  # Here, so that what reads folders of this machine does without it.

    for pause in (*_PAUSES, None):
        try:
            files, path = fsspec.core.url_to_fs(url)
            return files.cat_file(path, start=start, end=end)
        except FileNotFoundError as error:
            raise _MissingError(f"{url}: no such file there.") from error
        except (ImportError, ValueError) as error:
            raise UserError(
                f"{url}: cannot be read ({error}). Object storage needs a package of its own: pip "
                "install s3fs for s3://, gcsfs for gs://, adlfs for az://"
            ) from error
        except Exception as error:  # noqa: BLE001  Each kind of storage has errors of its own.
            reason = f"{type(error).__name__}: {error}"[:200]
            if pause is None:
                raise UserError(
                    f"{url}: cannot be read ({reason}), {len(_PAUSES) + 1} times in a row. Is the "
                    "address right, and the server there? The run resumes with --ckpt."
                ) from error
            _LOG.warning("%s: %s; tried again in %g s", url, reason, pause)
            time.sleep(pause)
    raise AssertionError


def _write(path: Path, data: bytes) -> None:
    with atomic_write(path, "Free space on this disk.") as partial:
        partial.write_bytes(data)
