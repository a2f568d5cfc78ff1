"""Run a campaign; PyTorch, imported later, computes in one thread as forked processes must."""

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import os
import sys

from benchmarks.faults.campaigns import main

os.environ["OMP_NUM_THREADS"] = "1"
sys.exit(main())
