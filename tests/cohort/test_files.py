"""A user's own cohort: reading recordings of many formats, the table, ready median beats, bad
input.
"""

import dataclasses
import pickle
import struct
import threading
import time
from itertools import combinations

import fuzz_files
import numpy as np
import pandas as pd
import pytest
import recordings
import wfdb

from ecglib.beat import LEADS
from ecglib.cohort import files, ptbxl, reading
from ecglib.cohort.build import build_cohort, open_source
from ecglib.cohort.reading import read_recording
from ecglib.cohort.source import ReadError, SourceError
from ecglib.folds import build_folds
from ecglib.settings import FilesCohort, Signal
from ecglib.signal import process

UNITS = recordings.recording(11)  # in 5 µV
TRUTH = UNITS[:, :5000] * 5.0  # µV


# ---- one recording


@pytest.mark.parametrize("name", recordings.WRITERS)
def test_every_format_gives_the_same_recording(tmp_path, name):
    signal, rate = read_recording(recordings.WRITERS[name](tmp_path / name, UNITS))
    assert signal.dtype == np.float32 and rate == 500
    np.testing.assert_allclose(signal, TRUTH, atol=0.01)  # and what follows 10 s is cut


def test_flac_is_read_by_wfdb(tmp_path):
    signal, _ = read_recording(recordings.write_wfdb(tmp_path / "flac", UNITS, fmt="516"))
    np.testing.assert_allclose(signal, TRUTH, atol=0.01)


def test_philips_plain_text_has_fillers_and_a_calibration_pulse(tmp_path):
    units = UNITS.copy()
    units[:, 5000:] = 200  # 1 mV in the 11th second
    for fillers in (0, 4):
        for encoding in ("Plain", "Base64"):
            path = recordings.write_philips(
                tmp_path / "mrx.xml", units, fillers=fillers, encoding=encoding
            )
            signal, _ = read_recording(path)
            np.testing.assert_array_equal(signal, TRUTH)


def test_leads_are_found_by_name_in_any_order_and_case(tmp_path):
    order = [LEADS[i] for i in np.random.default_rng(3).permutation(12)]
    np.testing.assert_allclose(
        read_recording(recordings.write_csv(tmp_path / "a.csv", UNITS, leads=order))[0], TRUTH
    )
    np.testing.assert_allclose(
        read_recording(recordings.write_wfdb(tmp_path / "a", UNITS, leads=order))[0], TRUTH
    )
    table = pd.read_csv(tmp_path / "a.csv").rename(columns={"time (s)": "Time_s"})
    table = table.rename(columns=lambda name: name if name == "Time_s" else f"Lead {name.upper()}")
    table.to_csv(tmp_path / "b.csv", index=False)
    np.testing.assert_allclose(read_recording(tmp_path / "b.csv")[0], TRUTH)


def test_units_and_rates_are_converted(tmp_path):
    for unit in ("uV", "mV", "V"):
        np.testing.assert_allclose(
            read_recording(recordings.write_csv(tmp_path / "a.csv", UNITS, unit=unit))[0],
            TRUTH,
            rtol=1e-5,
        )
    for rate in (250, 977, 1000):
        units = recordings.recording(11, rate)
        for write, name in ((recordings.write_csv, "r.csv"), (recordings.write_dicom, "r.dcm")):
            signal, found = read_recording(write(tmp_path / name, units, rate=rate))
            assert found == rate and signal.shape == (12, 10 * rate)


def test_csv_dialects(tmp_path):
    table = pd.DataFrame({lead: x / 200 for lead, x in zip(LEADS, UNITS, strict=True)})  # mV
    path = tmp_path / "a.csv"
    path.write_text("# Rate: 500 Hz\n# unit = mV\n" + table.to_csv(index=False))
    np.testing.assert_allclose(read_recording(path)[0], TRUTH, rtol=1e-5)
    path.write_text(
        "\ufeff"
        + table.assign(t_ms=np.arange(5500) * 2)
        .rename(columns=lambda c: c if c == "t_ms" else f"{c}_mV")
        .to_csv(index=False, sep=";", decimal=","),
        encoding="utf-8",
    )
    np.testing.assert_allclose(read_recording(path)[0], TRUTH, rtol=1e-5)
    path.write_text(
        "#unit:µV\n#rate:500\n" + (table * 1000).to_csv(index=False, sep="\t"), encoding="utf-8"
    )
    np.testing.assert_allclose(read_recording(path)[0], TRUTH, rtol=1e-5)
    for text, message in (
        (
            table.to_csv(index=False),
            "give its rate and unit; begin it with '# rate: 500' and '# unit: uV', one line each",
        ),
        (
            "# unit: mV\n" + table.to_csv(index=False),
            "doesn't give its rate; begin it with '# rate: 500',",
        ),
        (
            "# rate: 500\n" + table.to_csv(index=False),
            "doesn't give its unit; begin it with '# unit: uV',",
        ),
        (
            "# unit: mV\n# rate: 500\n" + table.assign(i=0).to_csv(index=False),
            "lead I is given twice",
        ),
        (
            "# unit: mV\n" + table.assign(time_s=0).to_csv(index=False),
            "'time_s' don't rise in equal steps",
        ),
    ):
        path.write_text(text)
        with pytest.raises(ReadError, match=message):
            read_recording(path)


def test_missing_leads_are_derived_or_nan(tmp_path):
    def read(*without):
        leads = [lead for lead in LEADS if lead not in without]
        return read_recording(recordings.write_csv(tmp_path / "a.csv", UNITS, leads=leads))[0]

    np.testing.assert_allclose(read("III", "aVR", "aVL", "aVF"), TRUTH, atol=0.01)
    np.testing.assert_allclose(read("aVR"), TRUTH, atol=0.01)
    for one, two in combinations(LEADS[:6], 2):  # any two limb leads tell the others
        others = [lead for lead in LEADS[:6] if lead not in (one, two)]
        np.testing.assert_allclose(read(*others), TRUTH, atol=0.01)
    for without in (["V3"], ["V1", "V2", "V3", "V4"]):
        signal, keep = read(*without), [lead not in without for lead in LEADS]
        assert np.isnan(signal[~np.array(keep)]).all()
        np.testing.assert_allclose(signal[keep], TRUTH[keep], atol=0.01)
    with pytest.raises(
        ReadError, match=r"a.csv: these leads have no usable samples: V2 V3 V4 V5 V6"
    ):
        read("V2", "V3", "V4", "V5", "V6")
    table = pd.read_csv(recordings.write_csv(tmp_path / "a.csv", UNITS))
    table["V5 (uV)"] = "off"
    table.to_csv(tmp_path / "a.csv", index=False)
    signal = read_recording(tmp_path / "a.csv")[0]
    assert np.isnan(signal[10]).all() and np.isfinite(np.delete(signal, 10, axis=0)).all()


def test_a_missing_sample_costs_no_lead(tmp_path):
    table = pd.read_csv(recordings.write_csv(tmp_path / "a.csv", UNITS))
    table["V4 (uV)"] = table["V4 (uV)"].astype(object)
    table.loc[70:72, "V4 (uV)"] = ["", "off", "1e300"]
    table.to_csv(tmp_path / "a.csv", index=False)
    units = UNITS.copy()
    units[9, 70:73] = -32768
    paths = [
        tmp_path / "a.csv",
        recordings.write_wfdb(tmp_path / "b", units),
        recordings.write_dicom(tmp_path / "c.dcm", units, padding=-32768),
    ]
    for path in paths:
        signal = read_recording(path)[0]
        assert np.argwhere(np.isnan(signal)).tolist() == [[9, 70], [9, 71], [9, 72]]
        np.testing.assert_allclose(np.nan_to_num(signal - TRUTH), 0, atol=0.01)


def test_limb_leads_are_derived_from_those_that_are_whole(tmp_path):
    units = UNITS.copy()
    units[0, 100:120] = units[1, 50:500] = -32768
    path = recordings.write_wfdb(tmp_path / "a", units, leads=("I", "II", "III", "aVL", *LEADS[6:]))
    signal = read_recording(path)[0]
    np.testing.assert_allclose(signal[[2, 3, 4, 5]], TRUTH[[2, 3, 4, 5]], atol=0.01)
    assert np.isnan(signal[0, 100:120]).all() and np.isnan(signal[1, 50:500]).all()


@pytest.mark.parametrize(
    "spelling",
    [
        ["DI", "DII", "DIII", "AVR", "AVL", "AVF", "C1", "C2", "C3", "C4", "C5", "C6"],
        ["D1", "D2", "D3", "avr", "avl", "avf", "v1", "v2", "v3", "v4", "v5", "v6"],
        [f"Lead {lead}" for lead in (*LEADS[:6], *(f"c{i}" for i in range(1, 7)))],
        [f"MDC_ECG_LEAD_{lead.upper()}" for lead in LEADS],
    ],
)
def test_spellings_of_leads(tmp_path, spelling):
    path = recordings.write_csv(tmp_path / "a.csv", UNITS)
    table = pd.read_csv(path).rename(
        columns={f"{lead} (uV)": f"{name} (uV)" for lead, name in zip(LEADS, spelling, strict=True)}
    )
    table.to_csv(path, index=False)
    np.testing.assert_allclose(read_recording(path)[0], TRUTH, atol=0.01)


def test_channels_that_are_not_used_are_named(tmp_path):
    table = pd.read_csv(recordings.write_csv(tmp_path / "a.csv", UNITS))
    table["MLII (uV)"] = table["-aVR (uV)"] = table["II (uV)"]
    table.to_csv(tmp_path / "a.csv", index=False)
    assert reading.open_recording(tmp_path / "a.csv").unused == ("MLII (uV)", "-aVR (uV)")
    table = table.rename(columns=lambda name: f"{name}!" if name[0] == "V" else name)
    table.to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(ReadError, match=r"V1 V2 V3 V4 V5 V6; channels not used: V1 \(uV\)!, V2"):
        read_recording(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text("time,pressure\n1,2\n")
    with pytest.raises(
        ReadError, match=r"no channel has the name of one of the 12 leads; .*: time, pressure"
    ):
        read_recording(tmp_path / "c.csv")


def test_short_recordings(tmp_path):
    assert read_recording(recordings.write_csv(tmp_path / "a.csv", UNITS[:, :1000]))[0].shape == (
        12,
        1000,
    )
    with pytest.raises(ReadError, match=r"the recording lasts 1.99 s, but 2 s are needed"):
        read_recording(recordings.write_csv(tmp_path / "a.csv", UNITS[:, :995]))


@pytest.mark.parametrize(
    "name", ["csv.csv", "muse.xml", "hl7.xml", "edf.edf", "dicom.dcm", "cardiosoft.xml"]
)
def test_an_unknown_unit_is_refused(tmp_path, name):
    path = recordings.WRITERS[name](tmp_path / name, UNITS)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"MICROVOLTS", b"LIGHTYEARS").replace(b"uV", b"mA"))
    with pytest.raises(ReadError, match=f"{name}: .*unit") as error:
        read_recording(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", recordings.WRITERS)
def test_a_rate_of_zero_is_refused(tmp_path, name):
    path = recordings.WRITERS[name](tmp_path / name, UNITS)
    data = path.read_bytes()
    if name == "csv.csv":
        path.write_text(
            "# rate: 0\n# unit: uV\n" + pd.read_csv(path).iloc[:, 1:].to_csv(index=False)
        )
    elif name == "edf.edf":
        path.write_bytes(data[:244] + b"0       " + data[252:])  # seconds a record lasts
    elif name == "scp.scp":
        path.write_bytes(data.replace(struct.pack("<HH", 5000, 2000), struct.pack("<HH", 5000, 0)))
    else:
        head = (
            data[:3000]
            .replace(b" 500 ", b" 0 ")
            .replace(b">500<", b">0<")
            .replace(b"0.002", b"0.000")
        )
        path.write_bytes(head.replace(b"\x04\x00500 ", b"\x04\x000   ") + data[3000:])
    with pytest.raises(ReadError, match=f"{name}: "):
        read_recording(path)


def test_a_wrong_unit_shows_in_the_size(tmp_path):
    for unit, wrong in (("uV", "(mV)"), ("V", "(uV)")):
        path = recordings.write_csv(tmp_path / "a.csv", UNITS, unit=unit)
        path.write_text(path.read_text().replace(f"({unit})", wrong))
        with pytest.raises(ReadError, match="the unit is wrong or it isn't an ECG"):
            read_recording(path)


def test_damaged_samples_are_refused_where_the_format_has_a_checksum(tmp_path):
    path = recordings.write_wfdb(tmp_path / "a", UNITS)
    data = bytearray(path.with_suffix(".dat").read_bytes())
    data[5000] ^= 4
    path.with_suffix(".dat").write_bytes(data)
    with pytest.raises(
        ReadError, match=r"a.hea: the recording can't be trusted .*checksum mismatch"
    ):
        read_recording(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xml", b"", "the file is empty"),
        (
            "a.xml",
            b'<!DOCTYPE a [<!ENTITY b "c">]><restingecgdata>&b;</restingecgdata>',
            "XML with entities",
        ),
        (
            "a.xml",
            "<!DOCTYPE a [<!ENTITY b 'c'>]><RestingECG/>".encode("utf-16"),
            "XML with entities",
        ),
        ("a.xml", b"<restingecgdata>" + b"<a>" * 200_000, "more tags than an ECG needs"),
        ("a.dcm", bytes(128) + b"DICM" + b"1.2.840.10008.1.2.1.99", "deflated DICOM"),
        ("a.hea", b"a 12 500 9000000000\n" + b"~ 0 200/mV 16 0 0 0 0 I\n" * 12, "can't be read"),
        ("a.hea", b"a 1 500 5000\na.dat 16 0/mV 16 0 0 0 0 I\n", "has a gain of 0"),
        ("a.hea", b"a 1\na.dat 16 200/mV 16 0 0 0 0 I\n", "the header gives no sampling frequency"),
        ("a.hea", b"a 1 500 9\n/etc/passwd 16 200/mV 16 0 0 0 0 I\n", "can't be read"),
        ("a.csv", b"," * 300_000, "the table has more than 200 columns"),
        ("a.csv", b"\xff\xfe\x00", "isn't plain text in UTF-8; save it as CSV UTF-8"),
        ("a.csv", "I (µV),II (µV)\n1,2\n".encode("cp1252"), "save it as CSV UTF-8"),
        ("a.csv", "I (µV),II (µV)\n1,2\n".encode("utf-16"), "save it as CSV UTF-8"),
        ("a.csv", "I (µV),II (µV)\n1,2\n".encode("utf-16-le"), "save it as CSV UTF-8"),
        ("a.xlsx", b"PK\x03\x04 a workbook", "save it as CSV UTF-8"),
        ("a.jpg", b"\xff\xd8\xff\xe0 no ECG", "none of the formats that can be read: WFDB"),
        ("a.dcm", b"\x08\0\x16\0 1.2.840.10008.5.1.4.1.1.2", "contains no ECG recording"),
        ("a.xml", b"<CardiologyXML><x/></CardiologyXML>", "the file has 0 strips"),
    ],
)
def test_hostile_files_get_one_sentence(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ReadError, match=f"^{name}: .*{message}") as error:
        read_recording(path)
    assert "\n" not in str(error.value) and str(tmp_path) not in str(error.value)


def rewrite(path, old, new):
    """Change the header's text; `old` must be there."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "line",
    [
        "a 12 500 5500 05-May-2020 09:49:17",
        "a 12 500 5500 09:49:17 12-May-2020",
        "a 12 500 5500 2020-05-12 9:49",
        "a.mat 12 500 5500 12-May-2020 12:33:59",
        "an ecg.mat 12 500 5500".replace("an ecg", "an-ecg.v2"),
        "a 12 500",
    ],
)
def test_headers_that_wfdb_or_ecgdatakit_refuse(tmp_path, line):
    path = recordings.write_wfdb(tmp_path / "a", UNITS)
    np.testing.assert_allclose(read_recording(rewrite(path, "a 12 500 5500", line))[0], TRUTH)


def test_signal_files_of_wfdb(tmp_path):
    """As ``.mat`` with a header of its own, in a folder and with a name that hold odd signs."""
    folder = tmp_path / "ECGs of May, µ"
    folder.mkdir()
    path = recordings.write_wfdb(folder / "a", UNITS)
    data = (folder / "a.dat").read_bytes()
    (folder / "a.dat").unlink()
    (folder / "a.b.mat").write_bytes(bytes(24) + data)
    rewrite(path, "a.dat 16", "a.b.mat 16x1+24")
    np.testing.assert_allclose(read_recording(path)[0], TRUTH, atol=0.01)
    np.testing.assert_allclose(
        read_recording(rewrite(path, "200.0(0)/mV", "0.2(0)/µV"))[0], TRUTH, atol=0.01
    )
    (folder / "a.mat").write_bytes(b"")  # its name stands for the record's
    assert read_recording(folder / "a.hea")[1] == 500
    (folder / "a.mat").write_bytes(b"x")
    np.testing.assert_allclose(read_recording(folder / "a.mat")[0], TRUTH, atol=0.01)
    (folder / "a.b.mat").unlink()
    with pytest.raises(ReadError, match=r"a.hea: the file can't be read \(FileNotFoundError"):
        read_recording(path)


def test_checksums_that_are_unset_are_none(tmp_path):
    path = recordings.write_wfdb(tmp_path / "a", UNITS)
    lines = [line.split() for line in path.read_text().splitlines()]
    for value in ("0", None):
        for line in lines[1:]:
            line[6:] = [value, "0", line[-1]] if value else []
        if value is None:  # nor is the name of the lead
            continue
        path.write_text("\n".join(map(" ".join, lines)) + "\n")
        np.testing.assert_allclose(read_recording(path)[0], TRUTH, atol=0.01)


def test_xml_is_recognised_whatever_its_ending(tmp_path):
    for name in ("philips.xml", "muse.xml", "hl7.xml", "cardiosoft.xml"):
        path = recordings.WRITERS[name](tmp_path / name, UNITS)
        for ending in (".XML.txt", ".csv", ".ecg", ""):
            moved = path.rename(tmp_path / f"moved{ending}")
            np.testing.assert_allclose(read_recording(moved)[0], TRUTH, atol=0.01)
            path = moved


def test_dicom_without_preamble(tmp_path):
    path = recordings.write_dicom(tmp_path / "a.dcm", UNITS, preamble=False)
    assert b"DICM" not in path.read_bytes()[:200]
    np.testing.assert_allclose(read_recording(path)[0], TRUTH)
    np.testing.assert_allclose(read_recording(path.rename(tmp_path / "a"))[0], TRUTH)


def test_a_padding_value_amid_the_signal_is_signal(tmp_path):
    for padding in (0, 3):
        assert padding in UNITS
        path = recordings.write_dicom(tmp_path / "a.dcm", UNITS, padding=padding)
        np.testing.assert_allclose(read_recording(path)[0], TRUTH)


def test_dicom_leads_in_groups_one_after_the_other_are_refused(tmp_path):
    for groups in (2, 4):
        path = recordings.write_dicom(tmp_path / "a.dcm", UNITS, groups=groups)
        with pytest.raises(
            ReadError, match=f"in {groups} channel groups .*not recorded at the same time"
        ):
            read_recording(path)


def test_scp_leads_that_count_from_0(tmp_path):
    path = recordings.write_scp(tmp_path / "a.scp", UNITS, first=0)
    np.testing.assert_allclose(read_recording(path)[0], TRUTH)
    data = bytearray(path.read_bytes())
    data[-7] ^= 4
    path.write_bytes(data)
    with pytest.raises(ReadError, match=r"the recording can't be trusted .*CRC mismatch"):
        read_recording(path)


def test_cardiosoft_of_an_exercise_test_is_refused(tmp_path):
    path = recordings.write_cardiosoft(tmp_path / "a.xml", UNITS)
    rewrite(path, "</CardiologyXML>", "<StripData></StripData></CardiologyXML>")
    with pytest.raises(ReadError, match="the file has 2 strips, but a resting ECG has one"):
        read_recording(path)


def test_absent_and_oversized_files(tmp_path):
    with pytest.raises(ReadError, match=r"a.csv: no such file"):
        read_recording(tmp_path / "a.csv")
    with pytest.raises(ReadError, match="this is a folder; name one recording in it"):
        read_recording(tmp_path)
    with open(tmp_path / "b.csv", "wb") as file:
        file.truncate(reading.MAX_BYTES + 1)
    with pytest.raises(ReadError, match=r"b.csv: larger than 64 MB"):
        read_recording(tmp_path / "b.csv")


def test_time_and_memory_of_a_read_are_bounded():
    # what is bounded is computing, so that a busy machine refuses no file
    begin = time.process_time()
    with pytest.raises(TimeoutError, match="more than 1 s of computing"), reading.bounded(1, 10**9):
        while True:
            pass
    assert time.process_time() - begin < 5
    with pytest.raises(MemoryError), reading.bounded(30, 10**8):
        np.ones(3 * 10**7)
    assert np.ones(3 * 10**7).nbytes > 10**8  # the limit is gone
    while time.process_time() - begin < 4:  # and so is the timer
        pass


def test_a_thread_can_read_too(tmp_path):
    path, found = recordings.write_csv(tmp_path / "a.csv", UNITS), []
    thread = threading.Thread(target=lambda: found.append(read_recording(path)))
    thread.start()
    thread.join()
    np.testing.assert_allclose(found[0][0], TRUTH)


# ---- real recordings


def test_real_philips_files(real_data):
    paths = sorted((real_data / "philips-xml").glob("*.[xX][mM][lL]"))
    assert len(paths) == 3
    for path in paths:
        signal, rate = read_recording(path)
        assert signal.shape == (12, 5000) and rate == 500
        one, two, three, avr, avl, avf = signal[:6]
        for law in (
            one + three - two,
            avr + (one + two) / 2,
            avl - (one - three) / 2,
            avf - (two + three) / 2,
        ):
            assert np.abs(law).max() <= 10  # µV: two units of rounding
        assert np.abs(np.diff(signal, axis=1)).max() < 1500  # no step of a calibration pulse


def test_real_wfdb_files(real_data):
    for path in (real_data / "ludb/data/7.hea", real_data / "ptb-xl/records500/00000/00444_hr.hea"):
        signal, rate = read_recording(path)
        record = wfdb.rdrecord(str(path.with_suffix("")))
        assert rate == record.fs
        np.testing.assert_allclose(signal, record.p_signal.T * 1000, atol=1e-3)
    np.testing.assert_array_equal(signal, ptbxl.read_record(path.with_suffix(""))[0])


def test_hard_files(real_data):
    """Recordings as people have them, each changed in one property."""
    folder, read = real_data / "hard-files", []
    refused = {
        "four-groups-of-three.dcm": "channel groups that were not recorded at the same time",
        "no-rate-no-unit.csv": "doesn't give its rate and unit; begin it with",
    }
    for path in sorted(folder.glob("*/*")):
        if path.name in refused:
            with pytest.raises(ReadError, match=refused[path.name]):
                read_recording(path)
        elif path.suffix not in (".dat", ".mat"):
            found = reading.open_recording(path)
            assert found.signal.shape[0] == 12 and not found.unused
            one, two, three, avr, avl, avf = found.signal[:6]
            law = [one + three - two, avr + (one + two) / 2, avl - (one - three) / 2]
            assert np.nanmax(np.abs([*law, avf - (two + three) / 2])) <= 25  # rounding
            read.append((path.name, found.rate, int(np.isnan(found.signal).sum())))
    assert read == [
        ("dummy_ecg.xml", 500, 0),
        ("E07506.hea", 500, 0),
        ("padding-value-0.dcm", 500, 0),
        ("last-20-ms.hea", 500, 120),
        ("one-in-V1.hea", 500, 1),
        ("a.hea", 500, 0),
        ("MUSE_20190101_120000_57000.XML.txt", 500, 0),
        ("E07513_padded.hea", 400, 0),
        ("E07513_same7s_unpadded.hea", 400, 0),
        ("HR06001_padded.hea", 400, 0),
        ("HR06001_same7s_unpadded.hea", 400, 0),
        ("lead-range-from-0.scp", 1000, 0),
    ]
    same, _ = read_recording(folder / "challenge-date/E07506.hea")
    np.testing.assert_array_equal(same, read_recording(folder / "lead-names/a.hea")[0])
    assert np.isnan(read_recording(folder / "invalid-samples/one-in-V1.hea")[0][6]).sum() == 1
    last = read_recording(folder / "invalid-samples/last-20-ms.hea")[0]
    assert np.isnan(last[:, -10:]).all() and np.isfinite(last[:, :-10]).all()
    beat = process(*read_recording(folder / "dicom/padding-value-0.dcm"), Signal())
    assert 60_000 / beat.rr_ms == pytest.approx(71, abs=1)


# ---- the cohort


def settings(folder, **options):
    told = {
        "name": "own",
        "table": "table.csv",
        "label_kind": "synthetic",
        "label_meaning": "drawn for a test",
    }
    return FilesCohort(source="files", folder=str(folder), **(told | options))


@pytest.fixture
def folder(tmp_path):
    """Six recordings in six formats and depths, and their table."""
    own = tmp_path / "own"
    (own / "deep/er").mkdir(parents=True)
    recordings.write_csv(own / "e1.csv", UNITS)
    recordings.write_wfdb(own / "deep/e2", UNITS)
    recordings.write_philips(own / "deep/er/e3.xml", UNITS)
    recordings.write_muse(own / "e4.xml", UNITS)
    recordings.write_edf(own / "e5.edf", UNITS)
    recordings.write_dicom(own / "e6.dcm", UNITS)
    pd.DataFrame(
        {
            "record_id": [f"e{i}" for i in range(1, 7)],
            "patient_id": ["p1", "p1", "p2", "p3", "p4", "p5"],
            "site": ["A", "A", "B", "B", "", "A"],
            "age": ["61", "61", "", "40.5", "90", "18"],
            "sex": ["F", "female", "Male", "m", "", "MALE"],
            "label": [1, 0, 0, 1, 0, 0],
        }
    ).to_csv(own / "table.csv", index=False)
    return own


def change(folder, edit):
    table = pd.read_csv(folder / "table.csv", dtype=str, keep_default_na=False)
    edit(table).to_csv(folder / "table.csv", index=False)


def test_a_folder_becomes_a_source(folder):
    source = open_source(settings(folder), 42)
    records = source.records
    assert (
        records.record_id.tolist() == ["e1", "e2", "e3", "e4", "e5", "e6"]
        and len(source.rejected) == 0
    )
    assert records.sex[:4].tolist() == ["female", "female", "male", "male"] and pd.isna(
        records.sex[4]
    )
    assert records.site[4] == "unknown" and np.isnan(records.age[2]) and records.age.dtype == float
    assert records.label.tolist() == [1, 0, 0, 1, 0, 0] and not source.beats
    assert source.counts["usable rows"] == {
        "ecgs": 6,
        "patients": 5,
        "positive_ecgs": 2,
        "positive_patients": 2,
    }
    assert (source.name, source.label_kind, source.label_meaning) == (
        "own",
        "synthetic",
        "drawn for a test",
    )
    read = pickle.loads(pickle.dumps(source.read))
    for row in records.itertuples():
        np.testing.assert_allclose(read(row)[0], TRUTH, atol=0.01)
    # data_dir stands in
    assert open_source(settings("elsewhere"), 42, folder).version == source.version


def test_tables_of_other_forms(folder):
    table = pd.read_csv(folder / "table.csv")
    table.to_parquet(folder / "table.parquet")
    source = open_source(settings(folder), 42)
    parquet = open_source(settings(folder, table="table.parquet"), 42)
    pd.testing.assert_frame_equal(parquet.records, source.records)
    table.to_csv(folder / "semicolon.csv", sep=";", index=False)
    pd.testing.assert_frame_equal(
        open_source(settings(folder, table="semicolon.csv"), 42).records, source.records
    )
    paths = ["e1.csv", "./deep/e2.hea", "deep/er/e3.xml", "e4.xml", "e5.edf", "e6.dcm"]
    table.drop(columns=["record_id", "site", "age", "sex"]).assign(path=paths).to_csv(
        folder / "places.csv", index=False
    )
    found = open_source(settings(folder, table=str(folder / "places.csv")), 42).records
    assert found.path.tolist() == source.records.path.tolist() and found.record_id.tolist() == [
        f"e{i}" for i in range(1, 7)
    ]
    assert found.sex.isna().all() and found.age.isna().all() and (found.site == "unknown").all()


def test_companions_are_no_second_recordings(folder):
    (folder / "deep/e2.dat").rename(folder / "deep/e2.mat")
    rewrite(folder / "deep/e2.hea", "e2.dat", "e2.mat")
    for name in ("deep/e2.xyz", "deep/e2.atr", "deep/e2.pdf", "e1.pdf", "e4.txt", "e6.png"):
        (folder / name).write_bytes(b"x")
    (folder / "e4.xml").rename(folder / "e4.XML")
    source = open_source(settings(folder), 42)
    assert len(source.rejected) == 0 and source.counts["files without a row"] == {"ecgs": 0}
    paths = ["e1.csv", "deep/e2.hea", "deep/er/e3.xml", "e4.XML", "e5.edf", "e6.dcm"]
    assert source.records.path.tolist() == paths
    for row in source.records.itertuples():
        np.testing.assert_allclose(source.read(row)[0], TRUTH, atol=0.01)
    # a signal file stands for its record, so that no record comes twice
    table = pd.read_csv(folder / "table.csv")
    table = table.assign(path=paths, record_id=[f"r{i}" for i in range(6)])
    both = pd.concat([table, table.iloc[[1]].assign(path="deep/e2.mat", record_id="again")])
    both.to_csv(folder / "table.csv", index=False)
    source = open_source(settings(folder), 42)
    assert source.rejected.values.tolist() == [
        ["r1", "shares its file with another row"],
        ["again", "shares its file with another row"],
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "record_id;patient_id;site;label\ne1;p1;Köln;1\n".encode("cp1252")),
        ("t.csv", b"record_id;patient_id;label\ne1;p1;1\n".decode().encode("utf-16")),
        ("t.csv", b"record_id;patient_id;label\ne1;p1;1\n".decode().encode("utf-16-le")),
        ("t.xlsx", b"PK\x03\x04 a workbook"),
    ],
)
def test_tables_saved_by_a_spreadsheet(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(
        SourceError, match=f"^{name}: the file isn't plain text in UTF-8; save it as CSV UTF-8$"
    ):
        open_source(settings(folder, table=name), 42)


def test_bad_rows_are_named_and_the_others_stay(folder):
    recordings.write_csv(folder / "e5.csv", UNITS)
    recordings.write_csv(folder / "spare.csv", UNITS)
    rows = [
        ("e2", "p1", "A", "61", "female", "0", "is listed more than once"),
        ("e5", "p4", "A", "90", "", "0", "matches several files: e5.csv, e5.edf"),
        ("x1", "p6", "A", "50", "female", "0", "has no file in the folder"),
        ("../table", "p6", "A", "50", "female", "0", "has no file in the folder"),
        ("e1.csv", "p6", "A", "50", "female", "0", "shares its file with another row"),
        ("e6", "", "A", "50", "female", "0", "has no patient_id"),
        ("", "p9", "A", "50", "female", "0", "has neither record_id nor path"),
    ]

    def edit(table):
        table = table[~table.record_id.isin(["e5", "e6"])]
        return pd.concat([table, pd.DataFrame([row[:6] for row in rows], columns=table.columns)])

    change(folder, edit)
    source = open_source(settings(folder), 42)
    said = dict(zip(source.rejected.record_id, source.rejected.reason, strict=True))
    assert said == {row[0] or "row 12": row[6] for row in rows} | {
        "e1": "shares its file with another row"
    }
    assert source.records.record_id.tolist() == ["e3", "e4"]
    assert source.counts["in the table"]["ecgs"] == 11 and source.counts["files without a row"] == {
        "ecgs": 3
    }


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("label", "2", "has the label '2', which is neither 0 nor 1"),
        ("label", "", "has the label '', which is neither 0 nor 1"),
        ("label", "OMI", "has the label 'OMI', which is neither 0 nor 1"),
        ("sex", "3", "has the sex '3', which is neither female nor male"),
        ("age", "old", "has the age 'old', which is not between 0 and 120 years"),
        ("age", "300", "has the age '300', which is not between 0 and 120 years"),
        ("sex", "male", "belongs to a patient listed with both sexes"),
    ],
)
def test_bad_values_are_named(folder, column, value, message):
    change(folder, lambda t: t.assign(**{column: t[column].mask(t.record_id == "e2", value)}))
    source = open_source(settings(folder), 42)
    both = {"e1": message, "e2": message} if "both sexes" in message else {"e2": message}
    assert dict(zip(source.rejected.record_id, source.rejected.reason, strict=True)) == both
    assert len(source.records) == 6 - len(both)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.drop(columns="patient_id"), "lacks the column patient_id; it has record_id"),
        (lambda t: t.drop(columns="record_id"), "lacks the column record_id"),
        (lambda t: t.assign(label=0), "no usable row with the label 1; rows rejected: 0"),
        (
            lambda t: t.assign(label="yes"),
            r"no usable row with the label 1; rows rejected: 6 \(the first: e1 has the label",
        ),
        (lambda t: t.iloc[:0], "no usable row with the label 1"),
    ],
)
def test_unusable_tables_are_refused(folder, edit, message):
    change(folder, edit)
    with pytest.raises(SourceError, match=message) as error:
        open_source(settings(folder), 42)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("edit", [lambda t: t.drop(columns="label"), lambda t: t.assign(label="")])
def test_where_no_row_has_a_label_there_are_none(folder, edit, tmp_path):
    change(folder, edit)
    source = open_source(settings(folder), 42)
    assert len(source.records) == 6 and source.records.label.isna().all()
    assert source.rejected.empty and source.counts["usable rows"]["positive_ecgs"] == 0
    source.records = source.records.head(2)
    built = build_cohort(source, Signal(), tmp_path / "cohort")
    assert built.records.label.isna().all() and len(built.beats) == 2
    with pytest.raises(ValueError, match="patients, but there are 0"):
        build_folds(built.records, 3, 0)


def test_absent_and_unreadable_tables_and_folders_are_named(folder):
    with pytest.raises(SourceError, match=r"nothing.csv does not exist"):
        open_source(settings(folder, table="nothing.csv"), 42)
    with pytest.raises(SourceError, match="nowhere does not exist"):
        open_source(settings(folder / "nowhere", table=str(folder / "table.csv")), 42)
    for name, content in (
        ("a.parquet", b"no table"),
        ("b.csv", b""),
    ):
        (folder / name).write_bytes(content)
        with pytest.raises(SourceError, match=f"{name} can't be read as a table"):
            open_source(settings(folder, table=name), 42)


# ---- ready median beats


def beats(n, seed=0):
    """int (n, 12, 600) in 5 µV: one beat, R at sample 300, in `n` sizes."""
    rng = np.random.default_rng(seed)
    beat = recordings.recording(3)[:, 250:850]  # the second R peak lies at 0.3 s + 0.8 s
    return np.stack([np.rint(beat * size) for size in rng.uniform(0.5, 2, n)])


def beats_table(path, names):
    label = np.arange(len(names)) % 3 == 0
    pd.DataFrame({"record_id": names, "patient_id": names, "label": label.astype(int)}).to_csv(
        path, index=False
    )


def test_beats_in_one_array(tmp_path):
    truth = beats(7) * 5
    names = [f"b{i}" for i in range(7)]
    beats_table(tmp_path / "table.csv", names)
    table = str(tmp_path / "table.csv")
    np.save(tmp_path / "all.npy", (truth / 1000).astype(np.float32))
    np.savez_compressed(
        tmp_path / "all.npz", beats=truth[::-1].astype(np.int16), record_id=np.array(names[::-1])
    )
    for name, unit in (("all.npy", "mV"), ("all.npz", "uV")):
        source = open_source(settings(tmp_path / name, table=table, beats_unit=unit), 42)
        assert source.beats and len(source.records) == 7
        read = pickle.loads(pickle.dumps(source.read))
        for row, beat in zip(source.records.itertuples(), truth, strict=True):
            signal, rate = read(row)
            assert rate == 500 and signal.dtype == np.float32
            np.testing.assert_allclose(signal, beat, rtol=1e-5)
    beats_table(tmp_path / "table.csv", [*names, "b7"])
    source = open_source(settings(tmp_path / "all.npz", table=table, beats_unit="uV"), 42)
    assert source.rejected.values.tolist() == [["b7", "has no beat in the file"]]
    with pytest.raises(SourceError, match=r"all.npy has 7 beats, but 8 names are given; give each"):
        open_source(settings(tmp_path / "all.npy", table=table, beats_unit="mV"), 42)


def test_beats_in_files_of_their_own(tmp_path):
    truth = beats(4) * 5
    beats_table(tmp_path / "table.csv", ["b0", "b1", "b2", "b3"])
    np.save(tmp_path / "b0.npy", truth[0].astype(np.int16))
    recordings.write_wfdb(tmp_path / "b1", (truth[1] / 5).astype(int))
    np.save(tmp_path / "b2.npy", truth[2][:, :599])
    np.save(tmp_path / "b3.npy", np.where(truth[3] > 300, np.nan, truth[3]))
    source = open_source(settings(tmp_path, beats_unit="uV"), 42)
    rows = list(source.records.itertuples())
    for i in (0, 1):
        np.testing.assert_allclose(source.read(rows[i])[0], truth[i], atol=0.01)
    for i, message in (
        (2, r"b2.npy: the beat is \(12, 599\) at 500 Hz, not"),
        (3, "b3.npy: the beat spans nan µV"),
    ):
        with pytest.raises(ReadError, match=message):
            source.read(rows[i])
    (tmp_path / "b2.npy").write_bytes(
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'shape': (12, 99999999999)"
    )
    with pytest.raises(ReadError, match=r"b2.npy: the file can't be read"):
        source.read(rows[2])


def test_beats_that_are_not_as_described_are_refused(tmp_path):
    truth = beats(5) * 5
    beats_table(tmp_path / "table.csv", list("abcde"))

    def refuse(array, message, unit="uV"):
        np.save(tmp_path / "all.npy", array)
        files._stack.cache_clear()
        table = str(tmp_path / "table.csv")
        with pytest.raises(SourceError, match=message):
            open_source(settings(tmp_path / "all.npy", table=table, beats_unit=unit), 42)

    refuse(
        truth[:, [0, 1, 2, 4, 3, 5, *range(6, 12)]],
        "contradict each other; put the leads in the order I II III aVR",
    )
    refuse(
        np.roll(truth, 100, axis=2), "Beats peak near sample 400; move their R peak to sample 300"
    )
    refuse(truth[:, :, :400], r"\(5, 12, 400\), but \(n, 12, 600\) is needed")
    refuse(np.array([{}] * 5), "can't be read as beats")


def test_real_beats_are_as_described(real_data, tmp_path):
    made, names = [], []
    for header in sorted((real_data / "ptb-xl/records500/00000").glob("*.hea"))[:12]:
        made.append(process(*ptbxl.read_record(header.with_suffix("")), Signal()).beat)
        names.append(header.stem)
    np.save(tmp_path / "all.npy", np.array(made))
    beats_table(tmp_path / "table.csv", names)
    table = str(tmp_path / "table.csv")
    assert (
        len(open_source(settings(tmp_path / "all.npy", table=table, beats_unit="uV"), 42).records)
        == 12
    )


# ---- broken files among whole ones


def test_the_rest_of_a_folder_with_broken_files_becomes_a_cohort(folder, tmp_path):
    from ecglib.cohort.build import build_cohort

    broken = [
        path
        for _, path in fuzz_files.damaged_files(tmp_path / "fuzz", 48, seed=5)
        if path.suffix == ".xml"
    ]
    for path in broken:
        path.rename(folder / path.name)
    rows = pd.DataFrame(
        {"record_id": [path.name for path in broken], "patient_id": [path.stem for path in broken]}
    )
    change(folder, lambda t: pd.concat([t, rows.assign(label="0")]).fillna(""))
    source = open_source(settings(folder), 42)
    assert len(source.records) == 6 + len(broken)
    source = dataclasses.replace(source, duplicates="keep")  # the six hold the same recording
    cohort = build_cohort(source, Signal(), tmp_path / "cohort")
    assert {f"e{i}" for i in range(1, 7)} <= set(cohort.records.record_id)
    rejected = pd.read_csv(tmp_path / "cohort/rejected.csv")
    assert len(rejected) + len(cohort.records) == 6 + len(broken) and len(rejected) >= 5
    assert all(
        reason.startswith(name)
        for name, reason in zip(rejected.record_id, rejected.reason, strict=True)
    )


def test_sixty_fuzzed_files(tmp_path):
    table = fuzz_files.fuzz(tmp_path, 60, seed=1)
    assert set(table.outcome) <= {"read", "refused"}, table[
        ~table.outcome.isin(["read", "refused"])
    ].to_string()
    assert len(table) == 60 and (table.outcome == "refused").sum() >= 30


@pytest.mark.slow
def test_a_huge_count_of_channels_stays_within_memory(tmp_path):
    path = recordings.write_philips(tmp_path / "a.xml", UNITS)
    path.write_text(path.read_text().replace("allocated>16<", "allocated>2000000000<"))
    with pytest.raises(ReadError, match=r"a.xml: .*(MemoryError|TimeoutError)"):
        read_recording(path)


@pytest.mark.fuzzing
def test_six_hundred_fuzzed_files(tmp_path):
    table = fuzz_files.fuzz(tmp_path, 600, seed=2)
    assert set(table.outcome) <= {"read", "refused"}, table[
        ~table.outcome.isin(["read", "refused"])
    ].to_string()
    assert len(table) == 600 and table.megabytes.max() < 1500 and table.seconds.max() < 35
