"""Stages of a long job: announced with the time left, and not done twice."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apps.rendering.cost import in_words
from utils.errors import UserError
from utils.files import read_json, write_text

_FILE_NAME = "stages.json"
_LOG = logging.getLogger(__name__)


@dataclass
class Stages:
    """The stages of a job, in their order, and what a folder keeps of those that are finished."""

    folder: Path
    key: str
    """Names the job: stages of another one do not count."""
    expected: dict[str, float | None]
    """Seconds of every stage; None: not known yet."""
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What finished stages returned, ``result``, and the ``seconds`` that they took."""

    @classmethod
    def opened(cls, folder: Path, key: str, expected: Mapping[str, float | None]) -> Stages:
        """Read what an earlier run of the same job finished in this folder."""
        kept: Mapping[str, Any] = {}
        path = folder / _FILE_NAME
        if path.is_file():
            try:
                kept = read_json(path, "list of finished stages")
            except UserError as error:
                _LOG.warning("%s; everything is done again", error)
        done = kept.get("done") if kept.get("key") == key else {}
        return cls(folder, key, dict(expected), dict(done) if isinstance(done, dict) else {})

    def run(self, name: str, job: Callable[[], Any], outputs: tuple[Path, ...] = ()) -> Any:  # noqa: ANN401
        """Do a stage unless it is done and its outputs are there; return what it returned.

        What it returns is kept as JSON; text is shown.
        """
        names = list(self.expected)
        place = f"[{names.index(name) + 1}/{len(names)}] {name}"
        if name in self.done and all(path.exists() for path in outputs):
            _LOG.info("%s: done before", place)
            return self.done[name]["result"]
        _LOG.info("%s%s", place, self._times(name))
        started = time.perf_counter()
        result = job()
        seconds = time.perf_counter() - started
        if isinstance(result, str):
            _LOG.info("%s", result)
        _LOG.info("    took %s", in_words(seconds))
        self.done[name] = {"result": result, "seconds": seconds}
        content = {"key": self.key, "done": self.done}
        write_text(self.folder / _FILE_NAME, json.dumps(content, indent=1))
        return result

    def _times(self, name: str) -> str:
        """Say how long a stage takes, and how long all that follow take, as far as it is known."""
        own = self.expected[name]
        names = list(self.expected)
        later = [self.expected[other] for other in names[names.index(name) + 1 :]]
        parts = [] if own is None else [f"about {in_words(own)}"]
        if later and all(seconds is not None for seconds in later):
            rest = sum(seconds for seconds in later if seconds is not None)
            parts.append(f"about {in_words(rest)} for what follows")
        return f": {', '.join(parts)}" if parts else ""
