"""Downloads: whole and verified or not there, and gone on with after a cut."""

import hashlib
import socket

import pytest
from web import served

from ecglib import download as module
from ecglib.download import DownloadError, Wanted, download

BODY = bytes(range(256)) * 100


def digest(body: bytes, kind: str = "sha256") -> str:
    return f"{kind}:{hashlib.new(kind, body).hexdigest()}"


@pytest.fixture
def web(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_S", 0.001)
    with served({"a.bin": BODY}) as state:
        yield state


def fetch(web, tmp_path, told="", tries=3, **options):
    download([Wanted(f"{web.url}a.bin", tmp_path / "a.bin", told)], "the shop", tries, **options)
    assert not list(tmp_path.glob("*.part"))
    return (tmp_path / "a.bin").read_bytes()


DIGESTS = {"none": "", "md5": digest(BODY, "md5"), "sha256": digest(BODY)}
DIGESTS["start"] = digest(BODY)[:15]


@pytest.mark.parametrize("told", DIGESTS.values(), ids=DIGESTS)
def test_a_file_is_verified_as_far_as_its_digest_goes(web, tmp_path, told):
    assert fetch(web, tmp_path, told) == BODY
    assert web.log == [("a.bin", 0)]


@pytest.mark.parametrize("kind, name", [("sha256", "SHA-256"), ("md5", "MD5")])
def test_another_file_is_refused_and_the_older_one_stays(web, tmp_path, kind, name):
    (tmp_path / "a.bin").write_bytes(b"older")
    told = rf"{web.url}a.bin was not downloaded \(its {name} differs from the shop's\); start again"
    with pytest.raises(DownloadError, match=told) as error:
        fetch(web, tmp_path, digest(b"other", kind))
    assert error.value.answered and len(web.log) == 3
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"older"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_file_is_gone_on_with(web, tmp_path, ranges):
    web.cut, web.ranges = {"a.bin"}, ranges
    assert fetch(web, tmp_path, digest(BODY)) == BODY
    assert [first for _, first in web.log] == [0, 12_288 if ranges else 0]


def test_what_a_stopped_download_left_is_gone_on_with_later(web, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(BODY[:7000])
    assert fetch(web, tmp_path, digest(BODY)) == BODY
    assert web.log == [("a.bin", 7000)]


@pytest.mark.parametrize("left", [BODY, BODY + b"x", b"x" * 7000], ids=["whole", "longer", "other"])
def test_a_part_is_taken_only_if_it_is_right(web, tmp_path, left):
    (tmp_path / "a.bin.part").write_bytes(left)
    assert fetch(web, tmp_path, digest(BODY)) == BODY
    assert len(web.log) == (1 if left == BODY else 2)


def test_a_passing_fault_is_tried_again_and_a_refusal_is_not(web, tmp_path):
    web.failing = {"a.bin": 503}
    assert fetch(web, tmp_path) == BODY and len(web.log) == 2
    web.failing = {"a.bin": 403}
    with pytest.raises(DownloadError, match=r"a.bin was refused: 403 Forbidden"):
        fetch(web, tmp_path)
    assert len(web.log) == 3


def test_many_files_come_side_by_side_and_one_failure_ends_it(web, tmp_path):
    web.files |= {f"{k}.txt": str(k).encode() for k in range(300)}
    wanted = [
        Wanted(f"{web.url}{k}.txt", tmp_path / f"{k % 7}/{k}.txt", digest(str(k).encode()))
        for k in range(300)
    ]
    download(wanted, "the shop", tries=1)
    assert all(one.file.read_text() == one.file.stem for one in wanted)
    web.log.clear()
    del web.files["3.txt"]
    with pytest.raises(DownloadError, match=r"3.txt was refused: 404"):
        download(wanted, "the shop", tries=1)
    assert len(web.log) < 200


@pytest.mark.parametrize("fault", ["refused", "silent"])
def test_no_answer_is_told_from_a_wrong_one(tmp_path, monkeypatch, fault):
    monkeypatch.setattr(module, "PAUSE_S", 0.001)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if fault == "silent" else 9
        wanted = [Wanted(f"http://127.0.0.1:{port}/a.bin", tmp_path / "a.bin")]
        with pytest.raises(DownloadError, match=r"a.bin was not downloaded") as error:
            download(wanted, "the shop", tries=2, timeout_s=0.1)
    assert not error.value.answered and not list(tmp_path.iterdir())


def test_progress_is_told(web, tmp_path, capsys):
    fetch(web, tmp_path)
    assert "a.bin: 100%" in capsys.readouterr().err.split("\r")[-1]
