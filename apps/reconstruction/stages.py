"""Resumable stages of a long job, announced with the estimated remaining time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apps.rendering.frames import format_duration
from utils.errors import UserError
from utils.records import read_record, write_record

_FILE_NAME = "stages.json"
_LOG = logging.getLogger(__name__)


@dataclass
class Stages:
    """The stages of a job in order, and the record of finished stages in a folder."""

    folder: Path
    key: str
    """Identifies the job; records of a job with another key are ignored."""
    expected: dict[str, float | None]
    """Estimated seconds of every stage; None: unknown."""
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    """``result`` and ``seconds`` of each finished stage."""

    @classmethod
    def opened(cls, folder: Path, key: str, expected: Mapping[str, float | None]) -> Stages:
        """Read which stages an earlier run of the same job finished."""
        record: Mapping[str, Any] = {}
        path = folder / _FILE_NAME
        if path.is_file():
            try:
                record = read_record(path, "list of finished stages")
            except UserError as error:
                _LOG.warning("%s; all stages run again", error)
        done = record["done"] if record.get("key") == key else {}
        return cls(folder, key, dict(expected), done)

    def run(self, name: str, job: Callable[[], Any], outputs: tuple[Path, ...] = ()) -> Any:  # noqa: ANN401
        """Run a stage unless it is finished and its outputs exist; return its result.

        The result must be serialisable as JSON. A text is logged.
        """
        names = list(self.expected)
        label = f"[{names.index(name) + 1}/{len(names)}] {name}"
        if name in self.done and all(path.exists() for path in outputs):
            _LOG.info("%s: already done", label)
            return self.done[name]["result"]
        _LOG.info("%s%s", label, self._estimate(name))
        start = time.perf_counter()
        result = job()
        seconds = time.perf_counter() - start
        if isinstance(result, str):
            _LOG.info("%s", result)
        _LOG.info("    took %s", format_duration(seconds))
        self.done[name] = {"result": result, "seconds": seconds}
        write_record(self.folder / _FILE_NAME, {"key": self.key, "done": self.done})
        return result

    def _estimate(self, name: str) -> str:
        """Return the estimated time of a stage and of the remaining stages, where known."""
        own = self.expected[name]
        names = list(self.expected)
        later = [self.expected[other] for other in names[names.index(name) + 1 :]]
        known = [seconds for seconds in later if seconds is not None]
        parts = [] if own is None else [f"about {format_duration(own)}"]
        if later and len(known) == len(later):
            parts.append(f"about {format_duration(sum(known))} for the remaining stages")
        return f": {', '.join(parts)}" if parts else ""
