"""Remote folders (http(s) or object storage) with a local cache, through fsspec.

Small files are fetched whole into a local folder. Of large files only the requested byte ranges are
fetched; the most recently used ones stay on disk, up to a limit that all processes of the machine
share. This module does not import torch.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from datasets.scene_cache import user_cache
from utils.errors import UserError
from utils.files import atomic_write
from utils.records import read_record, write_record

_SETTINGS, _RANGES = "remote.json", "pieces"
_DISK_REMEDY = "Free space on this disk."
_RETRY_DELAYS = (0.5, 2.0, 8.0)
"""Seconds before a failed request is repeated."""
_CHECKS_PER_LIMIT = 32
"""A process enforces the cache limit whenever it has added this fraction of it, so that it exceeds
the limit by no more."""
_LOG = logging.getLogger(__name__)


def is_url(location: str) -> bool:
    """Tell a URL from a local path."""
    return "://" in location


def folder_for(url: str) -> Path:
    """Return the local folder of a remote one, which may not exist yet."""
    url = url.rstrip("/")
    return user_cache(url.rpartition("/")[2], url)


def prepare_folder(url: str, cache_mb: int, required: str, optional: Iterable[str] = ()) -> Path:
    """Fetch the files that list the contents of a remote folder, and set its cache limit in MiB."""
    folder, url = folder_for(url), url.rstrip("/")
    settings = {"url": url, "cache_bytes": cache_mb << 20}
    write_record(folder / _SETTINGS, settings, _DISK_REMEDY)
    _write(folder / required, _fetch(f"{url}/{required}"))
    for name in optional:
        try:
            _write(folder / name, _fetch(f"{url}/{name}"))
        except _MissingError:
            (folder / name).unlink(missing_ok=True)
    return folder


def current_file(path: Path) -> Path:
    """Fetch ``FOLDER/SCENE/FILE`` if the folder is remote; return its local path."""
    remote = _remote_of(path)
    if remote is not None:
        _write(path, _fetch(remote.url_of(path)))
    return path


@dataclass(frozen=True)
class RangeFile:
    """A large file ``FOLDER/SCENE/FILE`` of a local or remote folder, read by byte ranges.

    Can be pickled, for worker processes.
    """

    path: Path
    version: str
    """Identifies the content, so that cached ranges of other versions are ignored."""

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from ``start`` up to ``end``."""
        remote = _remote_of(self.path)
        if remote is None:
            data = self._read_local(start, end)
        else:
            data = remote.read(self.path, self.version, start, end)
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
class _RemoteFolder:
    folder: Path
    url: str
    cache_bytes: int

    def url_of(self, path: Path) -> str:
        return f"{self.url}/{path.parent.name}/{path.name}"

    def read(self, path: Path, version: str, start: int, end: int) -> bytes:
        """Return a byte range of a file through the cache on disk."""
        cached = self.folder / _RANGES / f"{version}-{start}-{end}"
        with contextlib.suppress(OSError):
            data = cached.read_bytes()
            os.utime(cached)
            if len(data) == end - start:
                return data
        data = _fetch(self.url_of(path), start, end)
        if len(data) > end - start:
            # The server ignores ranges and sends the whole file.
            data = data[start:end]
        if len(data) <= self.cache_bytes:
            _write(cached, data)
            _enforce_limit(cached.parent, self.cache_bytes, len(data))
        return data


_added: dict[Path, int] = {}
"""Bytes that this process has added to each cache since it last enforced the limit."""


def _enforce_limit(folder: Path, limit: int, added: int) -> None:
    """Remove the least recently used files from a cache that exceeds its limit in bytes."""
    _added[folder] = _added.get(folder, 0) + added
    if _added[folder] * _CHECKS_PER_LIMIT < limit:
        return
    _added[folder] = 0
    files = []
    for entry in os.scandir(folder):
        # Other processes may remove files at the same time.
        with contextlib.suppress(OSError):
            files.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
        total -= size


def _remote_of(path: Path) -> _RemoteFolder | None:
    folder = path.parents[1]
    if not (folder / _SETTINGS).is_file():
        return None
    settings = read_record(folder / _SETTINGS, "record of a remote folder", "Remove it.")
    return _RemoteFolder(folder, settings["url"], settings["cache_bytes"])


class _MissingError(UserError):
    """There is no such file at a URL."""


def _fetch(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """Download a file, or a byte range of it."""
    import fsspec  # Not needed for local folders.

    for delay in (*_RETRY_DELAYS, None):
        try:
            filesystem, path = fsspec.core.url_to_fs(url)
            return filesystem.cat_file(path, start=start, end=end)
        except FileNotFoundError as error:
            raise _MissingError(f"{url}: no such file there.") from error
        except (ImportError, ValueError) as error:
            raise UserError(
                f"{url}: cannot be read ({error}). Object storage needs a package of its own: pip "
                "install s3fs for s3://, gcsfs for gs://, adlfs for az://"
            ) from error
        except Exception as error:  # noqa: BLE001  Each kind of storage has errors of its own.
            reason = f"{type(error).__name__}: {error}"[:200]
            if delay is None:
                raise UserError(
                    f"{url}: cannot be read ({reason}), {len(_RETRY_DELAYS) + 1} times in a row. "
                    "Check the address and the server. The run resumes with --ckpt."
                ) from error
            _LOG.warning("%s: %s; retrying in %g s", url, reason, delay)
            time.sleep(delay)
    raise AssertionError


def _write(path: Path, data: bytes) -> None:
    with atomic_write(path, _DISK_REMEDY) as partial:
        partial.write_bytes(data)
