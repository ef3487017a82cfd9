"""Files from the web: whole and verified or not there, and gone on with where a try was cut."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import requests
from tqdm import tqdm

from ecglib.errors import Refusal

CONNECTIONS, PAUSE_S = 8, 1.0  # files at once; first pause between two tries of a file


class Wanted(NamedTuple):
    """A file to be downloaded.

    `digest` is "sha256:" or "md5:" with hexadecimal digits, all or the first of them; without one
    the file is taken as it comes.
    """

    url: str
    file: Path
    digest: str = ""


class DownloadError(Refusal, OSError):
    """A file that can't be had: its `url`, the `problem`, and whether any server `answered`."""

    def __init__(self, url: str, told: str, problem, answered: bool = True):
        super().__init__(f"{url} {told}")
        self.url, self.problem, self.answered = url, problem, answered


def download(wanted: list[Wanted], owner: str, tries: int, timeout_s: float = 60) -> None:
    """Download files, several at once; the first that can't be had stops the others.

    A file gets its name only once it is whole and verified, and replaces an older one. Until then
    it lies beside it as ``.part``; what a cut connection left is gone on with, later as well, if
    the server can.

    Parameters
    ----------
    wanted : list of Wanted
    owner : str
        Whose files they are, for messages.
    tries : int
        Of each file; the pause between them doubles from `PAUSE_S`.
    timeout_s : float
        Longest wait for an answer.

    Raises
    ------
    DownloadError
        If a server refuses a file, or it is not there, or not as `digest` says, after all tries.
    """
    if not wanted:
        return
    alone = len(wanted) == 1
    look = {"unit": "B", "unit_scale": True} if alone else {"total": len(wanted), "unit": "file"}
    with (
        requests.Session() as session,
        tqdm(desc=wanted[0].file.name if alone else f"From {owner}", **look) as bar,
        ThreadPoolExecutor(CONNECTIONS) as pool,
    ):
        for scheme in ("https://", "http://"):
            session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=CONNECTIONS))

        def fetch(one):
            _fetch(session, one, owner, tries, timeout_s, bar if alone else None)

        for _ in pool.map(fetch, wanted):  # a failure cancels what has not begun
            bar.update(not alone)


def _fetch(session, one: Wanted, owner: str, tries: int, timeout_s: float, bar) -> None:
    part = one.file.with_name(f"{one.file.name}.part")
    kind, _, digits = one.digest.partition(":")
    for attempt in range(tries):
        time.sleep(PAUSE_S * 2 ** (attempt - 1) if attempt else 0)
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            _receive(session, one.url, part, timeout_s, bar)
            if not digits or _digest(part, kind).startswith(digits):
                part.replace(one.file)
                return
        except DownloadError:
            raise
        except (requests.RequestException, OSError) as error:
            problem = error
            continue
        part.unlink()
        problem = f"its {kind.upper().replace('SHA', 'SHA-')} differs from {owner}'s"
    silent = isinstance(problem, requests.ConnectionError | requests.Timeout)
    told = f"was not downloaded ({problem}); start again to resume it"
    raise DownloadError(one.url, told, problem, answered=not silent)


def _receive(session, url: str, part: Path, timeout_s: float, bar) -> None:
    """Write what the server sends behind what is there, or instead of it if it knows no ranges."""
    have = part.stat().st_size if part.exists() else 0
    asked = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    limits = (min(timeout_s, 10), timeout_s)  # of connecting, of waiting
    with session.get(url, headers=asked, stream=True, timeout=limits) as reply:
        if reply.status_code in (403, 404):
            problem = f"{reply.status_code} {reply.reason}"
            raise DownloadError(url, f"was refused: {problem}", problem)
        if reply.status_code == 416:  # nothing is left to send: the part is whole, or wrong
            return
        reply.raise_for_status()
        goes_on = reply.status_code == 206
        if bar is not None:
            left = int(reply.headers.get("Content-Length", 0))
            bar.reset(total=(have * goes_on + left) or None)
            bar.update(have * goes_on)
        with part.open("ab" if goes_on else "wb") as out:
            for chunk in reply.iter_content(4096):  # a cut loses what a chunk lacks
                out.write(chunk)
                if bar is not None:
                    bar.update(len(chunk))


def _digest(file: Path, kind: str) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, kind).hexdigest()
