"""The table of a campaign: faults by class, and what came of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from evaluation.report import format_table

_COLUMNS = ("injected", "survived", "lost work", "hangs", "tracebacks", "memory", "other")


@dataclass
class Tally:
    """Counts of faults by class and outcome."""

    rows: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, kind: str, wrong: Collection[str], count: int = 1) -> None:
        """Count faults of a class; ``wrong`` holds what each did, if anything."""
        row = self.rows.setdefault(kind, Counter(dict.fromkeys(_COLUMNS, 0)))
        row["injected"] += count
        row["survived"] += count * (not wrong)
        for name in {name if name in _COLUMNS else "other" for name in wrong}:
            row[name] += count

    def lines(self) -> Iterator[str]:
        """Yield the lines of the table."""
        yield from format_table(self.rows, [(name, name, 1.0, 0) for name in _COLUMNS])
