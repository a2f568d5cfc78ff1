"""Run a campaign; PyTorch, imported later, computes in one thread as forked processes must."""

import os
import sys

from benchmarks.faults import main

os.environ["OMP_NUM_THREADS"] = "1"
sys.exit(main())
