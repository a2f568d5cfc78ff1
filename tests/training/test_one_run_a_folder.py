"""Two runs in one folder: the second is refused, and what it would have written is untouched."""

import subprocess
import sys

import pytest
from training_runs import train

from utils.errors import UserError

pytestmark = pytest.mark.filterwarnings("default")

HOLDER = """
import sys
from pathlib import Path
from utils.files import locked_folder
with locked_folder(Path(sys.argv[1]), ""):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("name", ["general", "scene"])
def test_the_second_run_is_refused(name, request, tmp_path):
    kind = request.getfixturevalue(name)
    last = tmp_path / kind.last
    last.parent.mkdir(parents=True)
    last.write_text("of the first run")
    folder = last.parents[1]
    command = [sys.executable, "-c", HOLDER, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"locked\n"
        with pytest.raises(UserError, match=f"{folder}: another run is writing to it .*--expname"):
            train(kind, tmp_path)
        holder.communicate()
    assert last.read_text() == "of the first run"
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "ckpts"]
