"""Channels of one recording file: WFDB is read by wfdb, DICOM by pydicom, CSV and CardioSoft XML
here, and what else there is by ecgdatakit.

A sample that the format marks as missing is NaN. The README says which formats were tried on real
files.
"""

import binascii
import re
import struct
import warnings
from contextlib import suppress
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from ecgdatakit import CorruptedFileError, FileParser, UnsupportedFormatError

from ecglib.cohort.source import ReadError

RATES_HZ = (100, 10_000)
MAX_TAGS, MAX_COLUMNS = 100_000, 200  # of XML and of CSV
NAME = re.compile(r"(?:MDC_ECG_LEAD_|ECG|EKG|LEAD)?[ _]*(D?I{1,3}|D[123]|AV[RLF]|[VC][1-6])", re.I)
COLUMN = re.compile(NAME.pattern + r"(?:[ _]*[\[(]([^\])]*)[\])]|[ _]([nuµμm]?V))?", re.I)
TIME = re.compile(r"t(?:ime)?[ _]*[\[(]?(m?)s[\])]?", re.I)
DOUBT = re.compile(
    "mismatch|truncat|incomplete|shorter than|gaps between|no sampling frequency|experimental"
)
TABLES = (".csv", ".tsv", ".txt", ".xlsx", ".xls")
KNOWN = (
    "WFDB (name its .hea), CSV, XML of Philips, GE MUSE, GE CardioSoft and HL7, DICOM, SCP-ECG"
    " and EDF"
)
# ISO/IEEE 11073-10102, of DICOM's channel sources
CODES = dict(enumerate(["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"], 1))
CODES |= {61: "III", 62: "aVR", 63: "aVL", 64: "aVF"}

Channel = tuple[str, np.ndarray, str, float]
"""Label, samples, unit and rate in Hz."""


def lead_of(label: str) -> str | None:
    """Name of a lead in capitals, whatever its spelling (``DII``, ``D2``, ``Lead II``, ``C4``)."""
    if not (match := NAME.fullmatch(label.strip())):
        return None
    name = match[1].upper().removeprefix("D").replace("C", "V")
    return "I" * int(name) if name.isdigit() else name


def read_channels(path: Path) -> list[Channel]:
    """Read all channels of a file; its content tells the format, and its ending only what content
    can't.
    """
    data, ending = path.read_bytes(), path.suffix.lower()
    xml = data.replace(b"\0", b"") if b"<" in data.lstrip()[:8] else b""  # UTF-16 too
    if b"<!ENTITY" in xml or xml.count(b"<") > MAX_TAGS:
        raise ReadError("XML with entities, or with more tags than an ECG needs, is refused")
    if b"<CardiologyXML" in xml[:4096]:
        return _cardiosoft(data)
    header = path.with_suffix(".hea")
    if ending == ".hea" or (ending in (".dat", ".mat") and header.is_file()):
        return _wfdb(header if ending != ".hea" else path)
    start = data[:2] in (b"\2\0", b"\x08\0") and b"1.2.840.10008." in data[:4096]
    if data[128:132] == b"DICM" or start:  # the preamble may be lost
        return _dicom(path, data)
    return _csv(path, data) if ending in TABLES and not xml else _device(path, data)


def utf8(data: bytes) -> str:
    """Decode a table; `ReadError` if it is none of plain text in UTF-8."""
    try:
        if data[:4] not in (b"PK\3\4", b"\xd0\xcf\x11\xe0") and b"\0" not in data:
            return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    raise ReadError("the file isn't plain text in UTF-8; save it as CSV UTF-8")


def _device(path: Path, data: bytes) -> list[Channel]:
    """Read a device's file by ecgdatakit."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            record = FileParser.parse(path, units="uV")
        except UnsupportedFormatError as error:
            if "No parser found" not in str(error):
                raise
            raise ReadError(f"the file has none of the formats that can be read: {KNOWN}") from None
        except CorruptedFileError as error:
            if "invalid sample range 0-" not in str(error):
                raise
            with TemporaryDirectory() as aside:
                copy = Path(aside, path.name)
                copy.write_bytes(_scp_from_one(data))
                record = FileParser.parse(copy, units="uV")
    for message in (str(warning.message) for warning in told):
        if DOUBT.search(message):
            raise ReadError(f"the recording can't be trusted ({' '.join(message.split())[:200]})")
    return [(lead.label, lead.samples, lead.units, lead.sampling_rate) for lead in record.leads]


def _scp_from_one(data: bytes) -> bytes:
    """Let the leads of an SCP-ECG file begin at sample 1, as the standard has it, where a device
    wrote 0; checksums that were right stay right.
    """
    new, size = bytearray(data), struct.unpack_from("<I", data, 2)[0]
    for at in range(22, 6 + struct.unpack_from("<I", data, 10)[0], 10):
        section, length, index = struct.unpack_from("<HII", data, at)
        if section != 3:
            continue
        for lead in range(new[index + 15]):
            if new[index + 17 + 9 * lead : index + 21 + 9 * lead] == bytes(4):
                new[index + 17 + 9 * lead] = 1
        for begin, end in ((index - 1, index - 1 + length), (0, size)):
            right = binascii.crc_hqx(data[begin + 2 : end], 0xFFFF)
            if struct.unpack_from("<H", data, begin)[0] == right:
                now = binascii.crc_hqx(bytes(new[begin + 2 : end]), 0xFFFF)
                struct.pack_into("<H", new, begin, now)
    return bytes(new)


def _wfdb(path: Path) -> list[Channel]:
    """Read a WFDB record by ecgdatakit, which is three times as fast, or else by wfdb from a header
    without what it stumbles over: dates and endings in the name of the record, signs beyond ASCII.
    """
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("error")
        record = FileParser.parse(path, units="uV")
        if "invalid_sample_counts" not in record.raw_metadata:
            return [(it.label, it.samples, it.units, it.sampling_rate) for it in record.leads]
    import wfdb  # slow to import

    lines = path.read_text(encoding="utf-8", errors="replace").translate({181: "u", 956: "u"})
    lines = [line.split() for line in lines.splitlines() if line.strip() and line[0] != "#"]
    if len(lines[0]) < 3:
        raise ReadError("the header gives no sampling frequency")
    if "/" in lines[0][0]:  # several segments, each with its own header
        record = wfdb.rdrecord(str(path.with_suffix("")), physical=False)
    else:
        lines[0] = ["ecg", *lines[0][1:4]]
        names = [line[0] for line in lines[1:]]
        with TemporaryDirectory() as aside:
            for name, line in zip(names, lines[1:], strict=True):
                if len(line) > 2 and float(re.split(r"[(/]", line[2])[0]) == 0:
                    raise ReadError("a lead has a gain of 0, so its unit isn't known")
                line[0], file = f"s{names.index(name)}", path.with_name(name)
                if not Path(aside, line[0]).is_symlink():
                    Path(aside, line[0]).symlink_to(file.resolve())
            Path(aside, "ecg.hea").write_text("\n".join(map(" ".join, lines)) + "\n")
            record = wfdb.rdrecord(f"{aside}/ecg", physical=False)
    if set(record.samps_per_frame) == {1} and record.checksum:
        pairs = zip(record.sig_name, record.checksum, record.calc_checksum(), strict=True)
        # 0 is written where none was computed
        if wrong := [name for name, told, is_ in pairs if told and (told - is_) % 65536]:
            raise ReadError(
                f"the recording can't be trusted (checksum mismatch in {' '.join(wrong)})"
            )
    labels, samples = record.sig_name, record.dac().T  # NaN where marked as missing
    return [(*it, record.fs) for it in zip(labels, samples, record.units, strict=True)]


def _dicom(path: Path, data: bytes) -> list[Channel]:
    """Read the leads of DICOM that were recorded together: those of one group of channels."""
    import pydicom
    from pydicom.waveforms import multiplex_array

    if b"1.2.840.10008.1.2.1.99" in data[:4096]:
        raise ReadError("deflated DICOM isn't supported; store it uncompressed")
    dataset, groups = pydicom.dcmread(path, force=True), []
    if not dataset.original_encoding[1]:
        raise ReadError("big-endian DICOM isn't supported; store it as little-endian")
    for i, group in enumerate(dataset.get("WaveformSequence") or ()):
        told = f"{group.get('MultiplexGroupLabel')} {group.get('WaveformOriginality')}".upper()
        if re.search("MEDIAN|REPRESENTATIVE|AVERAGE|DERIVED", told):
            continue
        if group.WaveformSampleInterpretation[0] not in "SU":
            raise ReadError("DICOM with companded samples isn't supported; store linear ones")
        codes, x = multiplex_array(dataset, i), multiplex_array(dataset, i, as_raw=False)
        if padding := group.get("WaveformPaddingValue"):
            gap = codes == np.frombuffer(bytes(padding)[: codes.itemsize], codes.dtype)[0]
            others, code = codes[~gap], codes[gap][:1]
            # a value that lies amid the ECG's own is one of them
            if others.size and not ((others.min() < code) & (code < others.max())).all():
                x[gap] = np.nan
        labels, units = zip(*map(_dicom_channel, group.ChannelDefinitionSequence), strict=True)
        rate = float(group.SamplingFrequency)
        groups.append([(*it, rate) for it in zip(labels, x.T, units, strict=True)])
    if not groups:
        raise ReadError("the DICOM file contains no ECG recording")
    leads = [{lead_of(channel[0]) for channel in group} - {None} for group in groups]
    if len(set.union(*leads)) > max(map(len, leads)):
        raise ReadError(
            f"its leads are in {len(groups)} channel groups that were not recorded at the same time"
        )
    return groups[max(range(len(groups)), key=lambda i: len(leads[i]))]


def _dicom_channel(channel) -> tuple[str, str]:
    """Label and unit of a channel's definition, by code where there is one."""
    (source,) = channel.get("ChannelSourceSequence") or (None,)
    (unit,) = channel.get("ChannelSensitivityUnitsSequence") or (None,)
    label, code = str(channel.get("ChannelLabel", "")), ""
    if source is not None:
        code, label = str(source.get("CodeValue", "")), str(source.get("CodeMeaning", label))
    number = re.fullmatch(r"(?:2:|5\.6\.3-9-)(\d+)", code)
    label = CODES.get(int(number[1]), label) if number else code if lead_of(code) else label
    return re.split("[,(]", label)[0], "" if unit is None else str(unit.get("CodeValue", ""))


def _cardiosoft(data: bytes) -> list[Channel]:
    """Read GE CardioSoft XML of a resting ECG, which holds one strip."""
    from defusedxml import ElementTree

    strips = list(ElementTree.fromstring(data).iter("StripData"))
    if len(strips) != 1:
        raise ReadError(f"the file has {len(strips)} strips, but a resting ECG has one")
    step, rate = strips[0].find("Resolution"), float(strips[0].findtext("SampleRate"))
    unit = step.get("units", "").lower().removesuffix("perlsb")
    return [
        (wave.get("lead", ""), np.array(wave.text.split(","), float) * float(step.text), unit, rate)
        for wave in strips[0].iter("WaveformData")
    ]


def _csv(path: Path, data: bytes) -> list[Channel]:
    """Read the columns of a CSV file that are named as leads, and the names of the others."""
    lines, told, skip = StringIO(utf8(data)), {}, 0
    while (line := next(lines, "")).startswith("#"):
        skip += 1
        told |= re.findall(r"#\s*(rate|unit)\s*[:=]\s*([^\s,;]+)", line.lower())
    sep = max(",;\t", key=line.count)
    decimal = "," if sep == ";" and "," in next(lines, "") else "."
    if line.count(sep) > MAX_COLUMNS:
        raise ReadError(f"the table has more than {MAX_COLUMNS} columns")
    table = pd.read_csv(
        path, sep=sep, decimal=decimal, skiprows=skip, nrows=10 * RATES_HZ[1], encoding="utf-8-sig"
    )
    columns = {
        str(name).strip(): pd.to_numeric(x, errors="coerce").to_numpy(float)
        for name, x in table.items()
    }
    rate = float(told.get("rate", 0))
    for name in filter(TIME.fullmatch, list(columns)):
        steps = np.diff(columns.pop(name))
        step = steps.mean() if len(steps) else 0.0
        if not (step > 0 and np.abs(steps - step).max() < step):
            raise ReadError(f"the times in column '{name}' don't rise in equal steps")
        rate = round((1000.0 if TIME.fullmatch(name)[1] else 1.0) / step, 1)
    channels = []
    for name, x in columns.items():
        match = COLUMN.fullmatch(name)
        unit = match and (match[2] or match[3] or told.get("unit", ""))
        channels.append((match[1] if match else name, x, unit, rate))
    leads = [channel for channel in channels if channel[2] is not None]
    known = {"'# rate: 500'": rate, "'# unit: uV'": all(unit for _, _, unit, _ in leads)}
    if leads and (lacks := [line for line in known if not known[line]]):
        raise ReadError(
            f"the file doesn't give its {' and '.join(line[3:7] for line in lacks)}; begin it with"
            f" {' and '.join(lacks)}, one line each, with its own values"
        )
    return channels
