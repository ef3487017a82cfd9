"""Faults in scientific lines, planted one by one in a copy of the package: a test must catch each.

    python -m tests.system.planted_faults [word ...]     # make test-planted

Words choose faults by name. It prints which test caught a fault, and fails where none did.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRAINER, SYNTHETIC, PTBXL = (
    f"tests/{name}.py" for name in ("test_trainer", "cohort/test_synthetic", "cohort/test_ptbxl")
)
STEP = 'self.plateau.step(row["val_score"])'
TESTED = """row["test_score"] = metrics.score(
            bank.labels.cpu().numpy()[splits["test"]], predict(state.network, bank, splits["test"])
        )
        state.note(row, probability)"""

# name: test file, the test that should catch it, and (file below ecglib, right, wrong) …
FAULTS = {
    "the plateau steps on the test score": (
        (TRAINER, "rate_falls"),
        ("trainer.py", "state.note(row, probability)", TESTED),
        ("state.py", STEP, 'self.plateau.step(row.get("test_score", row["val_score"]))'),
    ),
    "the plateau takes a rising score for a bad one": (
        (TRAINER, "rate_falls"),
        ("state.py", 'mode="max"', 'mode="min"'),
    ),
    "the plateau never steps": ((TRAINER, "rate_falls"), ("state.py", STEP, "pass")),
    "the plateau's factor is ignored": (
        (TRAINER, "rate_falls"),
        ("state.py", "factor=settings.plateau_factor,", ""),
    ),
    "the plateau's patience is ignored": (
        (TRAINER, "rate_falls"),
        ("state.py", "patience=settings.plateau_patience,", ""),
    ),
    "the best epoch is that of the AUC alone": (
        (TRAINER, "best_epoch_is_that_of_the_score"),
        (
            "state.py",
            'if row["val_score"] > self.best["score"]:',
            'row = row | {"val_score": row["val_auc"]}\n'
            '        if row["val_score"] > self.best["score"]:',
        ),
    ),
    "every epoch draws the same negatives": (
        (TRAINER, "other_negatives"),
        (
            "trainer.py",
            "settings.batch_size, state.shuffler)",
            "settings.batch_size, torch.Generator().manual_seed(1))",
        ),
    ),
    "weights decay by 0.1": (
        (TRAINER, "weights_do_not_decay"),
        ("state.py", "lr=rate, fused=fused", "lr=rate, fused=fused, weight_decay=0.1"),
    ),
    "all rotations have one seed": (
        (TRAINER, "starts_elsewhere"),
        ("state.py", "{identity['network']}/{identity['rotation']}", "{identity['network']}"),
    ),
    "label 1 has twice the simulated noise": (
        (SYNTHETIC, "who_is_ill"),
        (
            "cohort/synthetic.py",
            "LOUDER.get(row.disturbance, 1)",
            "np.multiply(LOUDER.get(row.disturbance, 1), 1 + row.label)",
        ),
    ),
    "label 1 has a heart rate higher by 25": (
        (SYNTHETIC, "who_is_ill"),
        (
            "cohort/synthetic.py",
            'np.clip(records.pop("rate")',
            'np.clip(records.pop("rate") + 25 * records["label"]',
        ),
    ),
    "Stadium II counts as acute": (
        (PTBXL, "stages_i_and"),
        ("cohort/ptbxl.py", '"Stadium I-II")', '"Stadium I-II", "Stadium II")'),
    ),
}


def make_copy(folder: Path) -> None:
    """Package and tests, and links to what they read."""
    for name in ("ecglib", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params", "notebooks", "outputs", "pyproject.toml", "requirements.lock"):
        (folder / name).symlink_to(ROOT / name)


def failed_tests(folder: Path, chosen: set[tuple[str, str]]) -> list[str]:
    """Names of the tests that fail; `SystemExit` where they can't be run."""
    files, words = ({pair[i] for pair in chosen} for i in (0, 1))
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", "-p"]
    command += ["no:xdist", "-k", " or ".join(sorted(words)), *sorted(files)]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("ECGLIB_TEST_DATA", None)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode > 1:
        sys.exit(f"The tests can't be run:\n{done.stdout}{done.stderr}")
    return re.findall(r"^FAILED \S+::(\w+)", done.stdout, flags=re.M)


def main() -> int:
    """Plant each fault; returns the number of those that no test caught."""
    words = sys.argv[1:]
    faults = {n: f for n, f in FAULTS.items() if not words or any(word in n for word in words)}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_copy(folder)
        if failed := failed_tests(folder, {fault[0] for fault in faults.values()}):
            sys.exit(f"Without a fault, {', '.join(failed)} must pass")
        missed = 0
        for name, (test, *changes) in faults.items():
            kept = {file: (folder / "ecglib" / file).read_text() for file, *_ in changes}
            for file, right, wrong in changes:
                if kept[file].count(right) != 1:
                    sys.exit(f"{name}: {file} holds no single {right!r}; write the fault anew")
                (folder / "ecglib" / file).write_text(kept[file].replace(right, wrong))
            caught = sorted(set(failed_tests(folder, {test})))
            missed += not caught
            print(f"{'caught' if caught else 'MISSED'}  {name}: {', '.join(caught)}", flush=True)
            for file, text in kept.items():
                (folder / "ecglib" / file).write_text(text)
    print(f"{len(faults) - missed} of {len(faults)} planted faults are caught")
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main())
