"""The README's code runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


def test_first_two_commands_set_everything_up():
    first = [line for block in COMMANDS for line in block.splitlines()][:2]
    assert first == ['pip install -e ".[demo]" && eventlog demo', 'pip install -e ".[test]" && pytest']


def test_there_are_blocks():
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[0][:60])
def test_block_runs_in_an_empty_directory(block, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", block],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
