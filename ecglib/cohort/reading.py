"""Reads one recording, of any format that ecgdatakit or wfdb knows or CSV: leads by name, in µV, at
most 10 s.

Files come from anywhere, so nothing in them is trusted: size, time and memory are bounded, and
whatever goes wrong in a library becomes one sentence.
"""

import re
import signal as signals
import warnings
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
from ecgdatakit import FileParser, UnsupportedFormatError

from ecglib.beat import LEADS
from ecglib.cohort.source import ReadError

# of one file: its size; what reading it may take
MAX_BYTES, MAX_MEMORY, MAX_SECONDS = 64_000_000, 1_000_000_000, 30
MAX_TAGS, MAX_COLUMNS = 100_000, 200  # of XML and of CSV
RATES_HZ = (100, 10_000)
# of the largest lead, 0.5th to 99.5th percentile: outside, the unit is wrong or it is no ECG
SPAN_UV = (20, 100_000)
MICROVOLT = {"nv": 1e-3, "uv": 1.0, "µv": 1.0, "μv": 1.0, "mv": 1e3, "v": 1e6}
NAME = re.compile(r"(?:MDC_ECG_LEAD_|ECG|EKG|LEAD)?[ _]*(I{1,3}|AV[RLF]|V[1-6])", re.I)
COLUMN = re.compile(NAME.pattern + r"(?:[ _]*[\[(]([^\])]*)[\])]|[ _]([nuµμm]?V))?", re.I)
TIME = re.compile(r"t(?:ime)?[ _]*[\[(]?(m?)s[\])]?", re.I)
DOUBT = re.compile(
    "mismatch|truncat|incomplete|shorter than|gaps between|no sampling frequency|experimental"
)


def read_recording(path: str | Path, shortest: float = 2.0) -> tuple[np.ndarray, float]:
    """Read one recording file: WFDB, CSV, XML of Philips, GE MUSE or HL7, DICOM, SCP-ECG, EDF,
    MFER, ISHNE and others.

    Missing limb leads are derived from I and II (Einthoven, Goldberger). Another missing lead, or
    one with a value that is no number, is all NaN; more than four of them are refused. Only the
    first 10 s are kept.

    A CSV file names its leads in the header in any order, with their unit as in ``I (mV)``, or else
    begins with a line ``# unit: mV``. Its rate comes from a column ``time (s)`` or ``time (ms)``,
    or from a first line ``# rate: 500``.

    Parameters
    ----------
    path : path
        The file; for WFDB its header.
    shortest : float
        Seconds below which a recording is refused.

    Returns
    -------
    signal : numpy.ndarray
        float32 ``(12, samples)`` in µV, in the order of `ecglib.LEADS`.
    rate : float
        Sampling rate in Hz, as recorded.

    Raises
    ------
    ReadError
        One sentence naming the file and the reason.
    """
    path = Path(path)
    try:
        size = path.stat().st_size if path.is_file() else -1
        if not 0 < size <= MAX_BYTES:
            raise ReadError(
                "no such file" if size < 0 else "larger than 64 MB" if size else "the file is empty"
            )
        with bounded(MAX_SECONDS, MAX_MEMORY):
            text = path.suffix.lower() in (".csv", ".tsv", ".txt")
            return _twelve(_read_csv(path) if text else _read_format(path), shortest)
    except ReadError as error:
        raise ReadError(f"{path.name}: {error}") from None
    except Exception as error:  # whatever a library meets in a broken file
        reason = " ".join(str(error).replace(f"{path.parent}/", "").split())[:200]
        raise ReadError(
            f"{path.name}: can't be read ({type(error).__name__}, {reason or 'no detail'})"
        ) from None


@contextmanager
def bounded(seconds: int, memory: int):
    """Bound computing time (`TimeoutError`) and, on Linux, added bytes (`MemoryError`) of a block
    in a main thread.
    """

    def stop(*_):
        raise TimeoutError(f"reading takes more than {seconds} s of computing")

    with ExitStack() as undo:
        # ValueError: not in a main thread
        with suppress(ImportError, AttributeError, OSError, ValueError):
            undo.callback(signals.signal, signals.SIGPROF, signals.signal(signals.SIGPROF, stop))
            undo.callback(signals.setitimer, signals.ITIMER_PROF, 0)
            # again every second, should a library catch it
            signals.setitimer(signals.ITIMER_PROF, seconds, 1)
            import resource

            limits = resource.getrlimit(resource.RLIMIT_AS)
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + memory, limits[1]))
            undo.callback(resource.setrlimit, resource.RLIMIT_AS, limits)
        yield


def _read_format(path: Path) -> list[tuple[str, np.ndarray, str, float]]:
    """Read a device's file: label, samples, unit and rate of each channel."""
    data = path.read_bytes()
    xml = data.replace(b"\0", b"") if b"<" in data.lstrip()[:8] else b""  # UTF-16 too
    if b"<!ENTITY" in xml or xml.count(b"<") > MAX_TAGS:
        raise ReadError("XML entities, or more tags than an ECG needs, are refused")
    if b"1.2.840.10008.1.2.1.99" in data[:4096]:
        raise ReadError("deflated DICOM is refused; store it uncompressed")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            record = FileParser.parse(path, units="uV")
    except UnsupportedFormatError:
        if path.suffix.lower() != ".hea":
            raise
        import wfdb  # slow to import, and needed for FLAC alone

        record = wfdb.rdrecord(str(path.with_suffix("")))
        return [
            (*channel, record.fs)
            for channel in zip(record.sig_name, record.p_signal.T, record.units, strict=True)
        ]
    for message in (str(warning.message) for warning in told):
        if DOUBT.search(message):
            raise ReadError(f"can't be trusted ({' '.join(message.split())[:200]})")
    for lead in record.leads:
        # WFDB's mark for "no sample"
        if lead.label in record.raw_metadata.get("invalid_sample_counts", ()):
            lead.samples = np.full(len(lead.samples), np.nan)
    return [(lead.label, lead.samples, lead.units, lead.sampling_rate) for lead in record.leads]


def _read_csv(path: Path) -> list[tuple[str, np.ndarray, str, float]]:
    """Read a CSV file: label, samples, unit and rate of each column that is named as a lead."""
    told, skip = {}, 0
    with path.open(encoding="utf-8-sig") as lines:
        while (line := next(lines, "")).startswith("#"):
            skip += 1
            told |= re.findall(r"#\s*(rate|unit)\s*[:=]\s*([^\s,;]+)", line.lower())
        sep = max(",;\t", key=line.count)
        decimal = "," if sep == ";" and "," in next(lines, "") else "."
    if line.count(sep) > MAX_COLUMNS:
        raise ReadError(f"more than {MAX_COLUMNS} columns")
    table = pd.read_csv(
        path, sep=sep, decimal=decimal, skiprows=skip, nrows=10 * RATES_HZ[1], encoding="utf-8-sig"
    )
    columns = {
        str(name).strip(): pd.to_numeric(x, errors="coerce").to_numpy(float)
        for name, x in table.items()
    }
    rate = float(told.get("rate", 0))
    for name in filter(TIME.fullmatch, columns):
        steps = np.diff(columns[name])
        step = steps.mean() if len(steps) else 0.0
        if not (step > 0 and np.abs(steps - step).max() < step):
            raise ReadError(f"the column '{name}' doesn't rise evenly")
        rate = round((1000.0 if TIME.fullmatch(name)[1] else 1.0) / step, 1)
    found = [(COLUMN.fullmatch(name), x) for name, x in columns.items()]
    return [
        (match[1], x, match[2] or match[3] or told.get("unit", ""), rate)
        for match, x in found
        if match
    ]


def _twelve(
    channels: list[tuple[str, np.ndarray, str, float]], shortest: float
) -> tuple[np.ndarray, float]:
    """Choose the leads by name, convert them to µV, derive limb leads, and check that this can be
    an ECG.
    """
    leads, shapes = {}, set()
    for label, x, unit, rate in channels:
        if match := NAME.fullmatch(label.strip()):
            name = next(lead for lead in LEADS if lead.upper() == match[1].upper())
            if name in leads or unit.strip().lower() not in MICROVOLT:
                what = (
                    "twice"
                    if name in leads
                    else f"in the unit '{unit}', which is none of uV, mV and V"
                )
                raise ReadError(f"lead {name} is given {what}")
            leads[name] = np.asarray(x, float) * MICROVOLT[unit.strip().lower()]
            shapes.add((len(x), float(rate)))
    if len(shapes) != 1:
        raise ReadError(
            "the leads differ in rate or length" if leads else "none of the 12 leads is named"
        )
    length, rate = shapes.pop()
    if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
        raise ReadError(
            f"a sampling rate of {rate:g} Hz is outside {RATES_HZ[0]} to {RATES_HZ[1]} Hz"
        )
    if length < shortest * rate:
        raise ReadError(f"only {length / rate:.2f} s long where {shortest:g} s are needed")
    with np.errstate(over="ignore"):
        leads = {name: x[: int(10 * rate)].astype(np.float32) for name, x in leads.items()}
    leads = {name: x for name, x in leads.items() if np.isfinite(x).all()}
    if {"I", "II"} <= set(leads):
        one, two = leads["I"], leads["II"]
        leads = {
            "III": two - one,
            "aVR": -(one + two) / 2,
            "aVL": one - two / 2,
            "aVF": two - one / 2,
        } | leads
    missing = [name for name in LEADS if name not in leads]
    if len(missing) > 4:
        raise ReadError(f"leads without usable samples: {' '.join(missing)}")
    span = max(np.diff(np.percentile(x, (0.5, 99.5)))[0] for x in leads.values())
    if not SPAN_UV[0] <= span <= SPAN_UV[1]:
        raise ReadError(
            f"the largest lead spans {span:.3g} µV, so the unit is wrong or it is no ECG"
        )
    empty = np.full_like(next(iter(leads.values())), np.nan)
    return np.stack([leads.get(name, empty) for name in LEADS]), rate
