"""Tries the reader of recordings on broken and hostile files.

Every file must give a recording or one sentence that names it; nothing may crash, hang or take
memory without bound. Run it as ``python tests/fuzz_files.py [--count 600] [--seed 0]``; it prints
what came of each kind of damage.
"""

import argparse
import os
import random
import re
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
from recordings import WRITERS, recording, write_philips

from ecglib.cohort.reading import MAX_SECONDS, read_recording
from ecglib.cohort.source import ReadError

HUGE = [
    "0",
    "-1",
    "1e309",
    "nan",
    "99999999",
    "2147483647",
    "4294967296",
    "99999999999999999999",
    "",
    "x",
    "1.5",
]
UNITS = re.compile(rb"(?<![A-Za-z])(uV|mV|MICROVOLTS)(?![A-Za-z])")


def truncated(data, rng):
    return data[: rng.randrange(len(data))]


def flipped(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice([1, 10, 200])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def header_flipped(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice([1, 5, 20])):
        data[rng.randrange(min(1500, len(data)))] = rng.randrange(256)
    return bytes(data)


def piece_lost(data, rng):
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice([1, 7, 500, 20_000]) :]


def piece_doubled(data, rng):
    start = rng.randrange(len(data))
    piece = data[start : start + rng.choice([1, 50, 4000])]
    return data[:start] + piece * rng.choice([2, 50]) + data[start:]


def huge_counts(data, rng):
    """Replace numbers of the header, as text and as binary fields."""
    head, rest = data[:3000], data[3000:]
    numbers = list(re.finditer(rb"\d+", head))
    for match in rng.sample(numbers, min(len(numbers), rng.choice([1, 2, 4]))):
        if match.end() <= len(head):
            head = head[: match.start()] + rng.choice(HUGE).encode() + head[match.end() :]
    if b"DICM" in data[:132]:
        at = rng.randrange(132, len(head) - 4)
        head = (
            head[:at]
            + rng.choice([b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\xff\xff\xff\x7f"])
            + head[at + 4 :]
        )
    return head + rest


def rate_of_zero(data, rng):
    """Replace every number that is the rate or the step of time."""
    return (
        re.sub(rb"(?<![\d.])(500|0\.002)(?![\d.])", lambda m: b"0".ljust(len(m[0])), data[:4000])
        + data[4000:]
    )


def unknown_unit(data, rng):
    unit = rng.choice([b"adu", b"mmHg", b"furlong", b"??", b"K"])
    return UNITS.sub(lambda m: unit.ljust(len(m[0]))[: max(len(m[0]), 2)], data)


def entity_bomb(data, rng):
    lines = ['<!ENTITY a0 "ecgecgecg">'] + [
        f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12)
    ]
    outside = '<!ENTITY x SYSTEM "file:///etc/passwd">'
    root = rng.choice(["restingecgdata", "RestingECG", "AnnotatedECG"])
    entity = rng.choice(["&a11;", "&x;"])
    document = f'<?xml version="1.0"?><!DOCTYPE {root} [{"".join(lines)}{outside}]>'
    text = f"{document}<{root}>{entity}</{root}>"
    return text.encode(rng.choice(["utf-8", "utf-16"]))


def wrong_xml(data, rng):
    root = rng.choice(["restingecgdata", "RestingECG", "AnnotatedECG", "ECG", "html"])
    tags = re.findall(rb"<(\w+)", data[:3000]) or [b"Waveform", b"component", b"series"]
    depth = rng.choice([1, 30, 5000, 40_000, 200_000])
    tag = rng.choice(tags).decode()
    return (
        f"<{root}>"
        + f"<{tag}>" * depth
        + "x"
        + f"</{tag}>" * rng.choice([depth, depth - 1])
        + f"</{root}>"
    ).encode()


def tags_mixed(data, rng):
    tags = sorted(set(re.findall(rb"(?<=<)\w+", data)))
    if not tags:
        return flipped(data, rng)
    return data.replace(rng.choice(tags), rng.choice(tags))


def no_ecg(data, rng):
    return rng.choice(
        [
            b"",
            b"\n",
            b"\0" * 100_000,
            b"\x89PNG\r\n\x1a\n" + rng.randbytes(5000),
            b"%PDF-1.7\n" + rng.randbytes(5000),
            b"PK\x03\x04" + rng.randbytes(5000),
            b"SQLite format 3\0" + bytes(4096),
            rng.randbytes(rng.choice([1, 255, 4096, 100_000])),
            b'{"data": [1, 2, 3], "samples": {}}',
            b"name,age\nA,3\n",
            b"I,II,III\n1,2,3\n",
            b"I" * 300_000,
            b"," * 300_000,
            ("I (uV),II (uV)\n" + "1,2\n" * 10).encode(),
            b"\xff\xfe" + "ECG".encode("utf-16-le") * 1000,
            b"rec 12 500 5000\n" + b"rec.dat 16 200/mV 16 0 0 0 0 I\n" * 12,
            b"rec 1000000000 500 5000\n",
            b"rec 12 500 99999999999\n" + b"~ 0 200/mV 16 0 0 0 0 I\n" * 12,
            b"rec/3 12 500 9000000000\nlay 0\n~ 4500000000\n~ 4500000000\n",
            b"rec 2 500 5000\n../../../../etc/passwd 16 200/mV 16 0 0 0 0 I\n"
            b"/dev/zero 16 200/mV 16 0 0 0 0 II\n",
        ]
    )


DAMAGE = [
    *(
        truncated,
        flipped,
        header_flipped,
        piece_lost,
        piece_doubled,
        huge_counts,
        rate_of_zero,
        unknown_unit,
    ),
    *(entity_bomb, wrong_xml, tags_mixed, no_ecg),
]


def seeds(folder):
    """Whole recordings to be damaged: every format that can be written here, and real Philips files
    where they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    units = recording(11)
    files = [write(folder / name, units) for name, write in WRITERS.items()]
    files.append(write_philips(folder / "philips64.xml", units, encoding="Base64"))
    real = os.environ.get("ECGLIB_TEST_DATA")
    return files + (sorted(Path(real, "philips-xml").glob("*.[xX][mM][lL]")) if real else [])


def damaged_files(folder, count, seed):
    """Write `count` damaged files below `folder`, each with its own name; return them as (damage,
    path).
    """
    rng, made = random.Random(seed), []
    whole = seeds(folder / "whole")
    for i in range(count):
        damage, source = DAMAGE[i % len(DAMAGE)], whole[(i // len(DAMAGE)) % len(whole)]
        suffix = ".xml" if damage in (entity_bomb, wrong_xml) else source.suffix.lower()
        path = folder / f"{i:04d}_{damage.__name__}{suffix}"
        data = source.read_bytes()
        if suffix == ".hea":  # the header and its samples, of which one or both are damaged
            samples = source.with_suffix(".dat").read_bytes()
            data = data.replace(source.stem.encode(), path.stem.encode())
            which = (
                rng.choice(["header", "samples", "both"])
                if damage in (truncated, flipped, piece_lost)
                else "header"
            )
            path.with_suffix(".dat").write_bytes(
                samples if which == "header" else damage(samples, rng)
            )
            data = data if which == "samples" else damage(data, rng)
        else:
            data, whole_data = damage(data, rng), data
            # a damage that found nothing to change
            data = data if data != whole_data else flipped(data, rng)
        path.write_bytes(data)
        made.append((damage.__name__, path))
    return made


def attempt(path):
    """Read one file: outcome ('read', 'refused' or what is wrong), its sentence, seconds computing,
    peak MB so far.
    """
    begin, said = time.process_time(), ""
    try:
        signal, rate = read_recording(path)
        fine = (
            signal.shape[0] == 12
            and signal.dtype == np.float32
            and not np.isinf(signal).any()
            and 100 <= rate <= 10_000
        )
        outcome = "read" if fine else "WRONG SHAPE OR VALUES"
    except ReadError as error:
        said = str(error)
        outcome = (
            "refused"
            if "\n" not in said and said.startswith(path.name) and len(said) < 400
            else "BAD SENTENCE"
        )
    except Exception as error:
        outcome, said = "CRASHED", repr(error)
    return (
        outcome,
        said,
        time.process_time() - begin,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def fuzz(folder, count, seed):
    """Try `count` damaged files in another process; return a table of what came of each."""
    rows = []
    pool = ProcessPoolExecutor(1)
    pool.submit(attempt, seeds(folder / "first")[0]).result()  # what the libraries themselves need
    for damage, path in damaged_files(folder, count, seed):
        try:
            result = pool.submit(attempt, path).result(timeout=20 * MAX_SECONDS)
        except (BrokenProcessPool, TimeoutError) as error:
            result = (
                "CRASHED" if isinstance(error, BrokenProcessPool) else "HUNG",
                repr(error),
                np.nan,
                np.nan,
            )
            for process in (pool._processes or {}).values():
                process.kill()
            pool = ProcessPoolExecutor(1)
        rows.append((damage, path.name, *result))
    pool.shutdown()
    return pd.DataFrame(rows, columns=["damage", "file", "outcome", "said", "seconds", "megabytes"])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = fuzz(Path(folder), options.count, options.seed)
    print(pd.crosstab(table.damage, table.outcome, margins=True).to_string())
    print(
        f"slowest {table.seconds.max():.1f} s, "
        f"peak memory {table.megabytes.max():.0f} MB of one process"
    )
    print(
        table[table.outcome == "refused"]
        .groupby("damage")
        .said.apply(lambda s: s.sample(2, random_state=0))
        .to_string()
    )
    bad = table[~table.outcome.isin(["read", "refused"])]
    print(bad.to_string() if len(bad) else "no crash, no hang, every refusal one sentence")
    return int(len(bad) > 0)


if __name__ == "__main__":
    pd.set_option("display.width", 250, "display.max_colwidth", 200)
    sys.exit(main())
