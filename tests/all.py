"""`make test-all`: everything that is tested, part by part, and a summary that says what this
machine can't run.

python tests/all.py                 # all parts
python tests/all.py kills slurm     # some
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
CANNOT = 77
PYTEST = [sys.executable, "-m", "pytest", "-rs"]
NBVAL = [
    "--nbval-lax",
    "--nbval-current-env",
    "--nbval-kernel-startup-timeout",
    "120",
    "--nbval-cell-timeout",
    "300",
]
OTHERS = ["--ignore", "tests/test_faults.py", "--ignore", "tests/test_simulations.py"]
PARTS = {
    "units": [*PYTEST, "-m", "not slow"],
    "notebooks": [*PYTEST, *NBVAL, "notebooks"],
    "slow": [*PYTEST, "-m", "slow and not browser", *OTHERS],
    "kills": [*PYTEST, "-s", "-m", "slow", "tests/test_faults.py"],
    "slurm": [sys.executable, "tests/slurm/one_node.py"],
    "browser": [*PYTEST, "-m", "browser"],
    "simulations": [*PYTEST, "-m", "slow", "tests/test_simulations.py"],
    "fuzzing": [sys.executable, "tests/fuzz_files.py"],
    "gpu": [sys.executable, "-m", "tests.system.gpu"],
}


def run(name: str) -> tuple[str, str]:
    """Run one part; returns 'passed', 'FAILED' or "can't run", and the reason."""
    print(f"\n=== {name}", flush=True)
    lines = []
    environment = os.environ | {"ECGLIB_OFFLINE": "1"}
    with subprocess.Popen(
        PARTS[name],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    skipped = [line for line in lines if line.startswith("SKIPPED")]
    if process.returncode == CANNOT:
        return "can't run", next((line for line in lines if "can't run" in line), "").partition(
            ": "
        )[2]
    if process.returncode not in (0, 5):
        return "FAILED", lines[-1] if lines else ""
    if "pytest" in PARTS[name] and not re.search(r"\d+ passed", "\n".join(lines[-3:])):
        return "can't run", skipped[0].partition(": ")[2] if skipped else "there is no such test"
    return (
        "passed",
        f"but {len(skipped)} skipped, as: {skipped[0].partition(': ')[2]}" if skipped else "",
    )


def main(names: list[str]) -> int:
    """Run the parts of these names, or all; returns 1 if one failed."""
    if unknown := set(names) - set(PARTS):
        print(
            f"There is no part {', '.join(unknown)}; there are {', '.join(PARTS)}", file=sys.stderr
        )
        return 1
    rows = []
    for name in names or PARTS:
        begin = time.monotonic()
        rows.append((name, *run(name), time.monotonic() - begin))
    print("\n=== summary")
    for name, result, reason, seconds in rows:
        print(f"{name:<12} {result:<10} {seconds / 60:5.1f} min  {reason}")
    return int(any(result == "FAILED" for _, result, _, _ in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
