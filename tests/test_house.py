"""The house's one rule: imports go down only, and the core stands alone on its ground."""

import shutil
import subprocess
import sys

import pytest

from ecglib.study import places

LINT = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"
CORE = """
import sys
sys.modules |= dict.fromkeys(("fcntl", "resource", "pwd", "grp"))  # as where there are none
import ecglib.trainer
wings = ("study", "plots", "analysis", "trees", "cohort", "signal")
print([name for name in sys.modules if name.startswith(tuple(f"ecglib.{w}" for w in wings))])
"""


def lint(folder):
    """What import-linter says of the package in a folder."""
    command = [sys.executable, "-c", LINT, "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture
def house(tmp_path):
    """A copy of the package, with the contract."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(places.PACKAGE, tmp_path / "ecglib", ignore=ignored)
    shutil.copy2(places.CODE / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contract_is_kept(house):
    done = lint(house)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "added", "told"),
    [
        ("trainer.py", "from ecglib.study import places", "ecglib.trainer -> ecglib.study.places"),
        ("trees/features.py", "import ecglib.analysis.tables", "ecglib.trees is not allowed"),
        ("beat.py", "import ecglib.errors", "ecglib.beat is not allowed to import ecglib.errors"),
    ],
)
def test_an_import_that_goes_up_or_next_door_breaks_it(house, module, added, told):
    with open(house / "ecglib" / module, "a") as file:
        file.write(f"\n{added}\n")
    done = lint(house)
    assert done.returncode == 1 and told in done.stdout, done.stdout + done.stderr


def test_a_module_without_a_floor_breaks_it(house):
    (house / "ecglib" / "extra.py").write_text("")
    done = lint(house)
    assert done.returncode == 1 and "extra" in done.stdout + done.stderr


def test_the_core_loads_no_wing_and_nothing_that_only_posix_has():
    done = subprocess.run([sys.executable, "-c", CORE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
