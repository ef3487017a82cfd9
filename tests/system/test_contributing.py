"""A network added as CONTRIBUTING.md says: three files, and the contract tests take it up."""

import os
import shutil
import subprocess
import sys

import pytest

from ecglib.study import places

pytestmark = pytest.mark.slow

NETWORK = '''"""A network for a test."""

import torch
from torch import nn

from ecglib.models import check_input


class MyNet(nn.Module):
    """One convolution over leads and time."""

    def __init__(self, leads=12):
        super().__init__()
        self.leads = leads
        self.conv1 = nn.Conv2d(1, 4, (leads, 9), padding=(0, 4))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        check_input(x, self.leads)
        return self.fc(self.flatten(self.avgpool(torch.tanh(self.conv1(x)))))
'''
ENTRY = '    "my_net": Entry("My net", "ecglib.models.my_net:MyNet"),\n'
EXPECTED = (
    '    "my_net": (446, {"conv1": "4x1x400", "avgpool": "4x1x1", "flatten": "4", "fc": "2"}),\n'
)


@pytest.fixture
def project(tmp_path):
    """A copy of the project to which a contributor adds a network."""
    for name in ("ecglib", "tests"):
        shutil.copytree(
            places.ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy2(places.ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def add(file, after, text):
    """Add text after a line of a file."""
    before = file.read_text()
    assert before.count(after) == 1
    file.write_text(before.replace(after, after + text))


def contract(project):
    """Run the contract tests of the network in the copy."""
    environment = os.environ | {"PYTHONPATH": str(project)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "tests/models/test_models.py",
        "-k",
        "my_net",
    ]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)


def test_a_network_touches_three_files(project):
    guide = (
        (places.ROOT / "CONTRIBUTING.md").read_text().split("## Add a network")[1].split("\n## ")[0]
    )
    touched = (
        "ecglib/models/my_net.py",
        "ecglib/models/__init__.py",
        "tests/models/test_models.py",
    )
    assert all(f"`{file}`" in guide for file in touched)
    (project / touched[0]).write_text(NETWORK)
    add(project / touched[1], "\nNETWORKS = {\n", ENTRY)
    forgotten = contract(project)
    assert forgotten.returncode == 1 and "KeyError: 'my_net'" in forgotten.stdout, (
        "a network without a line fails"
    )
    expected = next(
        line
        for line in (project / touched[2]).read_text().splitlines()
        if line.startswith("EXPECTED")
    )
    add(project / touched[2], expected + "\n", EXPECTED)
    done = contract(project)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-3000:]
    study = "from ecglib.study.params import load_study; print(load_study('params/my.yaml').models)"
    shutil.copytree(places.ROOT / "params", project / "params")
    smoke = (project / "params" / "smoke.yaml").read_text().replace("name: smoke", "name: my")
    added = "\nmodels:\n  my_net: {learning_rate: 1.0e-4}\n"
    (project / "params" / "my.yaml").write_text(smoke.replace("\nmodels:\n", added))
    (project / "notebooks").mkdir()
    environment = os.environ | {"PYTHONPATH": str(project)}
    told = subprocess.run(
        [sys.executable, "-c", study], cwd=project, env=environment, capture_output=True, text=True
    )
    assert "'my_net'" in told.stdout, told.stderr
