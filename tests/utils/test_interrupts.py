"""Ctrl-C during the imports of any script is one line and status 130."""

import ast
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from utils.errors import run_and_report
from utils.interrupts import raise_again, stop_at_once

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [
    path
    for pattern in ("*.py", "apps/**/*.py", "benchmarks/**/*.py")
    for path in sorted(ROOT.glob(pattern))
    if path.name == "__main__.py" or 'if __name__ == "__main__":' in path.read_text()
]
FIRST = """
if __name__ == '__main__':
    from utils.interrupts import stop_at_once
    stop_at_once()
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_begin_with_it(script):
    body = ast.parse(script.read_text()).body[1:]
    if isinstance(body[0], ast.ImportFrom) and body[0].module == "__future__":
        body = body[1:]
    assert ast.unparse(body[0]) == FIRST.strip()


def test_the_process_ends_in_the_middle_of_an_import():
    code = (
        "from utils.interrupts import stop_at_once; stop_at_once()\n"
        "try:\n    print('importing', flush=True)\n    import time\n    time.sleep(60)\n"
        "except BaseException as error:\n    raise ImportError from error"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True, **pipes) as process:
        assert process.stdout is not None and process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "stopped\n")
    assert process.returncode == 130


def test_jobs_can_be_interrupted_and_clean_up():
    before = signal.getsignal(signal.SIGINT)
    try:
        stop_at_once()
        assert run_and_report(lambda: signal.raise_signal(signal.SIGINT)) == 130
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise_again()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
