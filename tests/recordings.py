"""Writes one recording in several formats, after their public descriptions; for tests of the
readers.
"""

import base64
import binascii
import struct

import numpy as np
import pandas as pd
import wfdb

from ecglib.beat import LEADS

EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def recording(seconds=10, rate=500, seed=0):
    """int (12, samples) in units of 5 µV: beats of a dipole that obeys Einthoven's and Goldberger's
    laws exactly.
    """
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate % 0.8
    shape = np.exp(-(((t - 0.3) / 0.012) ** 2)) + 0.25 * np.exp(-(((t - 0.55) / 0.05) ** 2))
    wave = np.cumsum(rng.normal(size=t.size)) * 0.002 + shape
    # even, so that halves stay whole
    one, two = (np.rint(wave * size).astype(int) * 2 for size in (70, 100))
    limb = [one, two, two - one, -(one + two) // 2, (2 * one - two) // 2, (2 * two - one) // 2]
    return np.stack(
        limb + [np.rint(wave * size).astype(int) for size in (-120, 60, 200, 240, 180, 130)]
    )


def write_wfdb(path, units, rate=500, leads=LEADS, fmt="16", **options):
    """WFDB, 200 units per mV; `path` without ending."""
    units = np.stack([units[LEADS.index(lead)] for lead in leads], axis=1)
    wfdb.wrsamp(
        path.name,
        fs=rate,
        units=["mV"] * len(leads),
        sig_name=list(leads),
        d_signal=units,
        fmt=[fmt] * len(leads),
        adc_gain=[200.0] * len(leads),
        baseline=[0] * len(leads),
        write_dir=str(path.parent),
        **options,
    )
    return path.with_suffix(".hea")


def write_csv(path, units, rate=500, leads=LEADS, unit="uV"):
    """CSV with a time column and the unit beside each lead."""
    scale = {"uV": 5.0, "mV": 0.005, "V": 5e-6}[unit]
    table = {"time (s)": np.arange(units.shape[1]) / rate}
    table |= {f"{lead} ({unit})": units[LEADS.index(lead)] * scale for lead in leads}
    pd.DataFrame(table).to_csv(path, index=False)
    return path


def write_philips(path, units, rate=500, fillers=4, encoding="Plain"):
    """Philips XML 1.03 with uncompressed waveforms, 5 µV a unit: 12 leads one after the other, then
    filler channels.
    """
    units = np.vstack([units, np.zeros((fillers, units.shape[1]), int)])
    if encoding == "Plain":
        data = "\n".join(" ".join(map(str, channel)) for channel in units)
    else:
        data = base64.b64encode(units.astype("<i2").tobytes()).decode()
    duration = round(units.shape[1] * 1000 / rate)
    path.write_text(
        f"""<?xml version="1.0" encoding="UTF-8"?>
<restingecgdata xmlns="http://www3.medical.philips.com">
<documentinfo><documenttype>SierraECG</documenttype><documentversion>1.03</documentversion></documentinfo>
<dataacquisition><machine>HeartStartMRx</machine><signalcharacteristics><samplingrate>{rate}</samplingrate>
<signalresolution>5</signalresolution><acquisitiontype>STD-12</acquisitiontype><bitspersample>16</bitspersample>
<signaloffset>0</signaloffset><signalsigned>True</signalsigned>
<numberchannelsallocated>{len(units)}</numberchannelsallocated>
<numberchannelsvalid>12</numberchannelsvalid>
<leadset>STD-12</leadset></signalcharacteristics></dataacquisition>
<waveforms><parsedwaveforms compressflag="False" dataencoding="{encoding}"
durationperchannel="{duration}" nbitspersample="16">{data}</parsedwaveforms></waveforms>
</restingecgdata>
"""
    )
    return path


def write_muse(path, units, rate=500, leads=EIGHT, unit="MICROVOLTS"):
    """GE MUSE XML: eight leads, Base64, 5 µV a bit."""
    parts = "".join(
        f"<LeadData><LeadByteCountTotal>{2 * units.shape[1]}</LeadByteCountTotal>"
        "<LeadAmplitudeUnitsPerBit>5</LeadAmplitudeUnitsPerBit>"
        f"<LeadAmplitudeUnits>{unit}</LeadAmplitudeUnits><LeadSampleSize>2</LeadSampleSize>"
        f"<LeadID>{lead}</LeadID><WaveFormData>"
        f"{base64.b64encode(units[LEADS.index(lead)].astype('<i2').tobytes()).decode()}</WaveFormData></LeadData>"
        for lead in leads
    )
    path.write_text(
        f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<RestingECG><MuseInfo><MuseVersion>8</MuseVersion></MuseInfo><Waveform><WaveformType>Rhythm</WaveformType><SampleBase>{rate}</SampleBase><SampleExponent>0</SampleExponent>
{parts}</Waveform></RestingECG>"""
    )
    return path


def write_hl7(path, units, rate=500, unit="uV"):
    """HL7 aECG: one rhythm series, digits of 5 µV."""
    parts = "".join(
        f'<component><sequence><code code="MDC_ECG_LEAD_{lead.upper()}" '
        'codeSystem="2.16.840.1.113883.6.24"/><value xsi:type="SLIST_PQ">'
        f'<origin value="0" unit="{unit}"/><scale value="5" unit="{unit}"/>'
        f"<digits>{' '.join(map(str, x))}</digits></value></sequence></component>"
        for lead, x in zip(LEADS, units, strict=True)
    )
    path.write_text(
        f"""<?xml version="1.0" encoding="UTF-8"?>
<AnnotatedECG xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<component><series><code code="RHYTHM" codeSystem="2.16.840.1.113883.5.4"/>
<component><sequenceSet><component>
<sequence><code code="TIME_ABSOLUTE" codeSystem="2.16.840.1.113883.5.4"/><value xsi:type="GLIST_TS">
<head value="20200101000000"/><increment value="{1 / rate}" unit="s"/></value>
</sequence></component>{parts}</sequenceSet></component></series></component></AnnotatedECG>"""
    )
    return path


def write_edf(path, units, rate=500, unit="uV"):
    """EDF: twelve signals, records of one second, 5 µV a unit."""
    n, seconds = len(units), units.shape[1] // rate
    head = (
        f"{'0':8}{'X':80}{'X':80}01.01.2000.00.00{256 * (n + 1):<8}{'':44}{seconds:<8}{1:<8}{n:<4}"
    )
    fields = [
        (16, LEADS),
        (80, [""] * n),
        (8, [unit] * n),
        (8, ["-163840"] * n),
        (8, ["163835"] * n),
    ]
    fields += [
        (8, ["-32768"] * n),
        (8, ["32767"] * n),
        (80, [""] * n),
        (8, [str(rate)] * n),
        (32, [""] * n),
    ]
    head += "".join(f"{value:<{width}}" for width, values in fields for value in values)
    records = units[:, : seconds * rate].reshape(n, seconds, rate).transpose(1, 0, 2)
    path.write_bytes(head.encode("ascii") + records.astype("<i2").tobytes())
    return path


def write_dicom(path, units, rate=500, unit="uV", preamble=True, padding=None, groups=1):
    """DICOM 12-lead waveform, 5 µV a unit; its leads in as many groups, one after the other."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sequence import Sequence
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    def code(value, scheme, meaning):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
        return Sequence([item])

    def channel(lead):
        channel = Dataset()
        channel.ChannelSourceSequence = code(f"MDC_ECG_LEAD_{lead.upper()}", "MDC", f"Lead {lead}")
        channel.ChannelSensitivity, channel.ChannelSensitivityCorrectionFactor = "5", "1"
        channel.ChannelSensitivityUnitsSequence = code(unit, "UCUM", unit)
        channel.ChannelBaseline, channel.WaveformBitsStored = "0", 16
        return channel

    def group(leads, units):
        group = Dataset()
        group.WaveformOriginality, group.NumberOfWaveformChannels = "ORIGINAL", len(units)
        group.NumberOfWaveformSamples, group.SamplingFrequency = units.shape[1], str(rate)
        group.ChannelDefinitionSequence = Sequence([channel(lead) for lead in leads])
        group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
        if padding is not None:
            group.WaveformPaddingValue = struct.pack("<h", padding)
        group.WaveformData = units.T.astype("<i2").tobytes()
        return group

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.9.1.1"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    parts = zip(np.array_split(np.array(LEADS), groups), np.array_split(units, groups), strict=True)
    data.Modality, data.WaveformSequence = "ECG", Sequence([group(*part) for part in parts])
    data.save_as(path, enforce_file_format=True)
    if not preamble:  # as a dataset sent over the network is kept by some archives
        head = path.read_bytes()
        path.write_bytes(head[132 + 12 + struct.unpack_from("<I", head, 140)[0] :])
    return path


def write_cardiosoft(path, units, rate=500, unit="uV"):
    """GE CardioSoft XML: a median beat, then the strip of the recording, 5 µV a unit."""
    waves = "".join(
        f'<WaveformData lead="{lead}">\t\t{",".join(map(str, x))}</WaveformData>'
        for lead, x in zip(LEADS, units, strict=True)
    )
    path.write_text(
        f"""<?xml version="1.0" encoding="ISO8859-1" ?>
<CardiologyXML><ObservationType>RestECG</ObservationType><RestingECGMeasurements><MedianSamples>
<SampleRate units="Hz">{rate}</SampleRate><Resolution units="{unit}perLsb">5</Resolution>
<WaveformData lead="I">1,2,3</WaveformData></MedianSamples></RestingECGMeasurements>
<StripData><NumberOfLeads>12</NumberOfLeads><SampleRate units="Hz">{rate}</SampleRate>
<ChannelSampleCountTotal>{units.shape[1]}</ChannelSampleCountTotal>
<Resolution units="{unit}perLsb">5</Resolution>{waves}</StripData></CardiologyXML>"""
    )
    return path


def write_scp(path, units, rate=500, first=1):
    """SCP-ECG: sections 0, 3 (leads, whose samples count from `first`) and 6 (samples of 5 µV)."""
    codes = (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8)
    ranges = [struct.pack("<IIB", first, units.shape[1], code) for code in codes]
    sizes = struct.pack("<12H", *[2 * units.shape[1]] * 12)
    samples = struct.pack("<HHBB", 5000, 1_000_000 // rate, 0, 0) + sizes
    bodies = {3: bytes([12, 0x64]) + b"".join(ranges), 6: samples + units.astype("<i2").tobytes()}

    def section(number, body):
        content = struct.pack("<HIBB6x", number, 16 + len(body), 13, 13) + body
        return struct.pack("<H", binascii.crc_hqx(content, 0xFFFF)) + content

    sections, at = [section(*item) for item in bodies.items()], 7 + 16 + 120
    pointers = struct.pack("<HII", 0, 16 + 120, 7)
    for number in range(1, 12):
        length = len(section(number, bodies[number])) if number in bodies else 0
        pointers += struct.pack("<HII", number, length, at if length else 0)
        at += length
    content = b"".join([section(0, pointers), *sections])
    content = struct.pack("<I", 6 + len(content)) + content
    path.write_bytes(struct.pack("<H", binascii.crc_hqx(content, 0xFFFF)) + content)
    return path


WRITERS = {
    "wfdb.hea": lambda path, units: write_wfdb(path.with_suffix(""), units),
    "csv.csv": write_csv,
    "philips.xml": write_philips,
    "muse.xml": write_muse,
    "hl7.xml": write_hl7,
    "edf.edf": write_edf,
    "dicom.dcm": write_dicom,
    "cardiosoft.xml": write_cardiosoft,
    "scp.scp": write_scp,
}
"""File name by format -> function that writes a recording of `recording` there."""
