"""General training whose processes report their phases to memory-mapped files.

Usage: python -m benchmarks.faults.rank_program WATCH_FOLDER TRAINING_FLAGS. Lightning starts the
other processes with the same arguments.
"""

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import os
import sys
from pathlib import Path

from benchmarks.faults.kills import report_phases
from benchmarks.faults.processes import Watch
from train_vggt_nerf_pl import main

if __name__ == "__main__":
    folder, *flags = sys.argv[1:]
    watch = Watch.in_file(Path(folder) / os.environ.get("LOCAL_RANK", "0"))
    watch.counts.process = os.getpid()
    report_phases(watch)
    sys.exit(main(flags))
