"""The summary of all tests: what failed isn't called passed, and neither is what this machine can't
run.
"""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture
def everything(monkeypatch):
    spec = importlib.util.spec_from_file_location("everything", Path(__file__).with_name("all.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    script, tests = ([sys.executable, "-c"], [*module.PYTEST, "-p", "no:cacheprovider"])
    here = str(Path(__file__))
    parts = {
        "script": [*script, "print('done')"],
        "broken": [*script, "raise SystemExit('the disk is full')"],
        "elsewhere": [*script, 'print("can\'t run: there is no Slurm"); raise SystemExit(77)'],
        "tests": [*tests, here, "-k", "unknown_part"],
        "none": [*tests, here, "-k", "a_test_that_nobody_wrote"],
    }
    monkeypatch.setattr(module, "PARTS", parts)
    return module


def test_the_summary_says_what_became_of_each_part(everything, capfd):
    assert everything.main([]) == 1
    rows = capfd.readouterr().out.split("=== summary\n")[1].splitlines()
    found = {row.split()[0]: " ".join(row.split()[1:]) for row in rows}
    assert found["script"].startswith("passed") and found["tests"].startswith("passed")
    assert found["broken"].startswith("FAILED") and "the disk is full" in found["broken"]
    assert found["elsewhere"].startswith("can't run") and "there is no Slurm" in found["elsewhere"]
    assert found["none"].startswith("can't run") and "no such test" in found["none"]


def test_an_unknown_part_is_refused(everything, capsys):
    assert everything.main(["kill"]) == 1 and "There is no part kill" in capsys.readouterr().err
