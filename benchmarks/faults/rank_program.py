"""General training that tells of its phases, once in each of its processes.

python -m benchmarks.faults.rank_program WATCHES TRAINING FLAGS: Lightning starts the other
processes with the same words.
"""

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import os
import sys
from pathlib import Path

from benchmarks.faults.kills import mark_phases
from benchmarks.faults.processes import Watch
from train_vggt_nerf_pl import main

if __name__ == "__main__":
    folder, *flags = sys.argv[1:]
    watch = Watch.shared(Path(folder) / os.environ.get("LOCAL_RANK", "0"))
    watch.counts.process = os.getpid()
    mark_phases(watch)
    sys.exit(main(flags))
