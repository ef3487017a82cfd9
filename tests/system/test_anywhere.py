"""On machines without a GPU, without POSIX, without CUDA's libraries, and as root."""

import http.server
import os
import subprocess
import sys
import threading
import tomllib
import zipfile
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
import yaml

from ecglib.study import places

MISSING = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix_ipc", "syslog")
ELSEWHERE = f"""
import sys
sys.modules.update(dict.fromkeys({MISSING}))
import torch
torch.set_num_threads(1)
import ecglib
from ecglib import trainer
assert ecglib.load_model is trainer.load_model
import pathlib
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from tests.system.gpu import Part, made_up, trained
part = Part("here", "cpu", pathlib.Path(sys.argv[1]))
folder, facts = trained(part, "run", made_up(60), epochs=1)
print(sorted(file.name for file in folder.iterdir()))
trainer.load_model(folder)
"""


def test_core_and_trainer_work_without_posix(tmp_path):
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=places.ROOT)
    assert done.returncode == 0, done.stderr
    assert "predictions.parquet" in done.stdout and "weights.safetensors" in done.stdout


def test_without_a_gpu_its_tests_say_so_in_one_sentence():
    command = [sys.executable, "-m", "tests.system.gpu"]
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=places.ROOT, env=hidden)
    assert done.returncode == 77 and not done.stderr, done.stderr
    assert done.stdout.startswith("gpu can't run: there is no CUDA device here")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.slow
def test_what_a_gpu_should_show_holds_in_small_on_a_cpu(tmp_path):
    parts = ["agree", "repeat", "killed", "precision", "memory", "visible", "stream", "rotation"]
    command = [sys.executable, "-m", "tests.system.gpu", "--device", "cpu", "--minutes", "60"]
    command += ["--out", str(tmp_path), "--parts", *parts]
    done = subprocess.run(command, capture_output=True, text=True, cwd=places.ROOT)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "table.md").read_text().count("| passed |") >= len(parts)


# ---- PyTorch without CUDA

STUB = """#!/bin/sh
echo "$*" >> calls
case "$*" in
*--index-url*) shift 2; exec {python} -m pip "$@" --target asked --no-cache-dir ;;
*others.lock*) cp .venv/others.lock others ;;
esac
"""


def wheel(folder: Path, name: str, version: str) -> None:
    folder.mkdir(parents=True)
    inside = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", "")
        file.writestr(
            f"{inside}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        file.writestr(
            f"{inside}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{inside}/RECORD", "")


@pytest.fixture
def index(tmp_path):
    """A package index with PyTorch for CPUs; it notes what it is asked for."""
    root, asked = tmp_path / "index", []
    for name, version in (
        ("torch", "9.8.7+cpu"),
        ("torch", "9.9.0+cpu"),
        ("torchvision", "0.7.6+cpu"),
    ):
        wheel(root / name / version, name, version)
        page = "".join(
            f'<a href="{quote(f"{file.parent.name}/{file.name}")}">{file.name}</a>'
            for file in sorted((root / name).glob("*/*.whl"))
        )
        (root / name / "index.html").write_text(page)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given):
            super().__init__(*given, directory=str(root))

        def log_message(self, *_):
            asked.append(unquote(self.path))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux does PyPI's PyTorch bring CUDA")
def test_cpu_asks_for_pytorch_without_cuda_and_nothing_of_cuda(tmp_path, index):
    url, asked = index
    project = tmp_path / "project"
    (project / ".venv" / "bin").mkdir(parents=True)
    stub = project / ".venv" / "bin" / "python"
    stub.write_text(STUB.format(python=sys.executable))
    stub.chmod(0o755)
    (project / "Makefile").write_bytes((places.ROOT / "Makefile").read_bytes())
    (project / "pyproject.toml").touch()
    lock = (places.LOCK).read_text().splitlines()
    real = [line for line in lock if not line.startswith(("torch==", "torchvision=="))]
    (project / "requirements.lock").write_text(
        "\n".join([*real, "torch==9.8.7", "torchvision==0.7.6"]) + "\n"
    )
    command = ["make", ".venv/.ready", "CPU=1", f"CPU_INDEX={url}"]
    # without what pip is told on this machine
    plain = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    plain["PIP_CONFIG_FILE"] = os.devnull
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, env=plain)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path for path in asked if path.endswith(".whl")] == [
        "/torch/9.8.7+cpu/torch-9.8.7+cpu-py3-none-any.whl",
        "/torchvision/0.7.6+cpu/torchvision-0.7.6+cpu-py3-none-any.whl",
    ]
    others = (project / "others").read_text().splitlines()
    left_out = set(real) - set(others)
    assert set(others) <= set(real)
    assert {line.split("==")[0].split("-")[0] for line in left_out} == {"nvidia", "cuda", "triton"}
    assert not [line for line in others if "nvidia" in line or "cuda" in line]


# ---- root, and who to cite


def made(*words) -> str:
    done = subprocess.run(["make", "-n", *words], cwd=places.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_jupyterlab_starts_as_root_and_takes_more_words():
    root = hasattr(os, "getuid") and os.getuid() == 0
    told = made("lab", "ARGS=--no-browser --port 9999")
    assert ("--allow-root" in told) == root and "--no-browser --port 9999" in told


def test_the_citation_names_the_version_of_now():
    told = yaml.safe_load((places.ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((places.ROOT / "pyproject.toml").read_text())["project"]
    assert told["version"] == project["version"] and told["license"] == project["license"]
