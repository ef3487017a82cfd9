"""Reads one recording, of any format that ecgdatakit or wfdb knows or CSV: leads by name, in µV, at
most 10 s.

Files come from anywhere, so nothing in them is trusted: size, time and memory are bounded, and
whatever goes wrong in a library becomes one sentence.
"""

import signal as signals
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecglib.beat import LEADS
from ecglib.cohort.formats import RATES_HZ, Channel, lead_of, read_channels
from ecglib.cohort.source import ReadError
from ecglib.signal.repair import limb_leads

# of one file: its size; what reading it may take
MAX_BYTES, MAX_MEMORY, MAX_SECONDS = 64_000_000, 1_000_000_000, 30
# of the largest lead, 0.5th to 99.5th percentile: outside, the unit is wrong or it is no ECG
SPAN_UV = (20, 100_000)
MICROVOLT = {"nv": 1e-3, "uv": 1.0, "µv": 1.0, "μv": 1.0, "mv": 1e3, "v": 1e6}


@dataclass(frozen=True)
class Recording:
    """One recording.

    Attributes
    ----------
    signal : numpy.ndarray
        float32 ``(12, samples)`` in µV, in the order of `ecglib.LEADS`; NaN where a sample or a
        lead is missing.
    rate : float
        Sampling rate in Hz, as recorded.
    unused : tuple of str
        Channels of the file that are none of the 12 leads.
    """

    signal: np.ndarray
    rate: float
    unused: tuple[str, ...]


def read_recording(path: str | Path, shortest: float = 2.0) -> tuple[np.ndarray, float]:
    """Read signal and rate alone of what `open_recording` reads."""
    found = open_recording(path, shortest)
    return found.signal, found.rate


def open_recording(path: str | Path, shortest: float = 2.0) -> Recording:
    """Read one recording file: WFDB, CSV, XML of Philips, GE MUSE, GE CardioSoft or HL7, DICOM,
    SCP-ECG, EDF and others.

    Missing limb leads are derived from any two others (Einthoven, Goldberger). Another missing lead
    is all NaN; more than four of them are refused. A sample that is no number, or that the format
    marks as missing, is NaN. Only the first 10 s are kept.

    A CSV file names its leads in the header in any order, with their unit as in ``I (mV)``, or else
    begins with a line ``# unit: mV``. Its rate comes from a column ``time (s)`` or ``time (ms)``,
    or from a first line ``# rate: 500``.

    Parameters
    ----------
    path : path
        The file; for WFDB its header.
    shortest : float
        Seconds below which a recording is refused.

    Raises
    ------
    ReadError
        One sentence naming the file and the reason.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ReadError("this is a folder; name one recording in it")
        size = path.stat().st_size if path.is_file() else -1
        if not 0 < size <= MAX_BYTES:
            raise ReadError(
                "no such file" if size < 0 else "larger than 64 MB" if size else "the file is empty"
            )
        with bounded(MAX_SECONDS, MAX_MEMORY):
            return _twelve(read_channels(path), shortest)
    except ReadError as error:
        raise ReadError(f"{path.name}: {error}") from None
    except Exception as error:  # whatever a library meets in a broken file
        reason = " ".join(str(error).replace(f"{path.parent}/", "").split())[:200]
        raise ReadError(
            f"{path.name}: the file can't be read ({type(error).__name__}, {reason or 'no detail'})"
        ) from None


@contextmanager
def bounded(seconds: int, memory: int):
    """Bound computing time (`TimeoutError`) and, on Linux, added bytes (`MemoryError`) of a block
    in a main thread.
    """

    def stop(*_):
        raise TimeoutError(f"reading takes more than {seconds} s of computing time")

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


def _twelve(channels: list[Channel], shortest: float) -> Recording:
    """Choose the leads by name, convert them to µV, derive limb leads, and check that this can be
    an ECG.
    """
    leads, shapes, unused = {}, set(), []
    for label, x, unit, rate in channels:
        if not (capitals := lead_of(label)):
            unused.append(" ".join(label.split())[:30])
            continue
        name = next(lead for lead in LEADS if lead.upper() == capitals)
        factor = MICROVOLT.get(unit.strip().lower())
        if name in leads or factor is None:
            unknown = f"in the unit '{unit}', which is not uV, mV or V"
            raise ReadError(f"lead {name} is given {'twice' if name in leads else unknown}")
        leads[name] = np.asarray(x, float) * factor
        shapes.add((len(x), float(rate)))
    others = f"; channels not used: {', '.join(unused[:12])}" if unused else ""
    if len(shapes) != 1:
        raise ReadError(
            "the leads differ in sampling rate or length"
            if leads
            else f"no channel has the name of one of the 12 leads{others}"
        )
    length, rate = shapes.pop()
    if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
        raise ReadError(
            f"the sampling rate of {rate:g} Hz is not between {RATES_HZ[0]} and {RATES_HZ[1]} Hz"
        )
    if length < shortest * rate:
        raise ReadError(f"the recording lasts {length / rate:.2f} s, but {shortest:g} s are needed")
    with np.errstate(over="ignore"):
        leads = {name: x[: int(10 * rate)].astype(np.float32) for name, x in leads.items()}
    leads = {name: np.where(np.isfinite(x), x, np.float32(np.nan)) for name, x in leads.items()}
    leads = {name: x for name, x in leads.items() if not np.isnan(x).all()}
    leads = _limb_leads(leads) | leads
    missing = [name for name in LEADS if name not in leads]
    if len(missing) > 4:
        raise ReadError(f"these leads have no usable samples: {' '.join(missing)}{others}")
    spans = [np.diff(np.percentile(x[~np.isnan(x)], (0.5, 99.5)))[0] for x in leads.values()]
    if not SPAN_UV[0] <= max(spans) <= SPAN_UV[1]:
        raise ReadError(
            f"the largest lead spans {max(spans):.3g} µV, so the unit is wrong or it isn't an ECG"
        )
    empty = np.full_like(next(iter(leads.values())), np.nan)
    return Recording(np.stack([leads.get(name, empty) for name in LEADS]), rate, tuple(unused))


def _limb_leads(leads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All six limb leads of any two, of the two with the fewest missing samples."""
    known = [i for i, name in enumerate(LEADS[:6]) if name in leads]
    if not 2 <= len(known) < 6:
        return {}
    known = sorted(known, key=lambda i: np.isnan(leads[LEADS[i]]).sum())[:2]
    two = np.stack([leads[LEADS[i]] for i in known])
    return dict(zip(LEADS, limb_leads(two, known), strict=False))
