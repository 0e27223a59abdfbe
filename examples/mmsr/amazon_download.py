"""Fetch the files of the Amazon product data of 2014; nothing else in the example does.

By default what would be fetched is only said. A transfer that ends early leaves ``NAME.partial``,
from which the next one goes on. A file gets its name once it has the size that the server
announced, its gzip stream, if it is one, reads to its end, and its SHA-256 is that of a list of
checksums. Without a list the sum is recorded in ``NAME.sha256`` when the file is first whole, and
what is there already is compared with that record later.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from examples.mmsr.amazon_files import FILES, category_name, check_whole
from examples.mmsr.data import DataError

BASE_URL = "http://snap.stanford.edu/data/amazon/productGraph"
"""Where the authors of the data distribute them."""

Kind = Literal["ratings", "reviews", "reviews_5", "metadata", "image_features"]
CHUNK = 1 << 20


def download(
    category: str,
    out: str,
    files: tuple[Kind, ...] = ("ratings", "metadata", "image_features"),
    base_url: str = BASE_URL,
    checksums: str | None = None,
    dry_run: bool = True,
    timeout: float = 60.0,
) -> None:
    """Say which of Amazon's files of 2014 would be fetched; with dry_run false, fetch them.

    Args:
        category: beauty, clothing, sports, toys, kitchen or phone, or a name as in the files.
        out: the folder for the files.
        files: which kinds of files.
        base_url: the address that categoryFiles/ and image_features/categoryFiles/ are under.
        checksums: a file of lines "SHA256  NAME", as sha256sum writes them.
        dry_run: whether to fetch nothing, and only ask the server for sizes.
        timeout: seconds without an answer after which a transfer counts as interrupted.

    Raises:
        DataError: the server cannot be reached or refuses; a transfer ended early, in which case
            the same command goes on from there; or a file is not what it should be.
    """
    if urllib.parse.urlsplit(base_url).scheme not in ("http", "https"):
        raise DataError(f"base_url must begin with http:// or https://, not {base_url!r}")
    category = category_name(category)
    folder = Path(out)
    known = {} if checksums is None else read_checksums(checksums)
    wanted: list[_File] = []
    for kind in dict.fromkeys(files):
        name = FILES[kind].format(category)
        under = "image_features/categoryFiles" if kind == "image_features" else "categoryFiles"
        url = f"{base_url.rstrip('/')}/{under}/{name}"
        wanted.append(_File(folder / name, url, known.get(name), timeout))
    print(f"{'would fetch' if dry_run else 'fetching'} into {folder}:")
    for file in wanted:
        print(f"  {file.path.name}: {file.plan()}\n    {file.url}", flush=True)
    if dry_run:
        print("nothing was fetched; --dry_run false does it")
        return
    folder.mkdir(parents=True, exist_ok=True)
    for file in wanted:
        print(f"{file.path.name}: {file.bring()}", flush=True)


def read_checksums(path: str | Path) -> dict[str, str]:
    """Read SHA-256 sums by file name, as ``sha256sum`` writes them.

    Raises:
        DataError: there is no such file, or a line is not a sum and a name.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable list of checksums: {error}") from error
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        match = re.fullmatch(r"([0-9a-fA-F]{64})[ \t]+\*?(.+)", line.strip())
        if match is None:
            raise DataError(f'{path}, line {number}: expected "SHA256  NAME", got {line[:80]!r}')
        sums[Path(match[2]).name] = match[1].lower()
    return sums


@dataclass(frozen=True)
class _File:
    """A file to be fetched: where it shall be, where it comes from, its sum where that is known."""

    path: Path
    url: str
    sha256: str | None
    timeout: float

    @property
    def partial(self) -> Path:
        return self.path.with_name(f"{self.path.name}.partial")

    @property
    def origin(self) -> Path:
        """What the partial file is a part of: its address, and the server's version and size."""
        return self.path.with_name(f"{self.path.name}.partial.json")

    @property
    def record(self) -> Path:
        return self.path.with_name(f"{self.path.name}.sha256")

    def plan(self) -> str:
        """What there is to do, in words. Asks the server for the size and changes nothing."""
        if self.path.exists():
            return f"there already, {self.path.stat().st_size:,} bytes; to be verified"
        request = urllib.request.Request(self.url, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                length = _number(answer.headers.get("Content-Length"))
        except urllib.error.HTTPError as error:
            with error:
                size = f"size unknown ({_reason(error)})"
        except (OSError, http.client.HTTPException) as error:
            size = f"size unknown ({_reason(error)})"
        else:
            size = "size unknown (the server does not say)" if length is None else _bytes(length)
        have = self._have()
        return f"{size}; {_bytes(have)} of it there already" if have else size

    def bring(self) -> str:
        """Fetch the file unless it is there, verify it, and say what was done."""
        if self.path.exists():
            return f"there already, {self._verify(self.path)}"
        began = self._have()
        while not self._transfer():
            have = self._have()
            # Each new attempt must have brought something, or the server has stopped giving.
            if have <= began:
                raise DataError(
                    f"{self.url}: the transfer ended at byte {have:,}; the same command goes on "
                    f"from there ({self.partial})"
                )
            began = have
        size = _bytes(self.partial.stat().st_size)
        if self._read_origin().get("size") is None:
            size += " (the server named no size to compare with)"
        try:
            verified = self._verify(self.partial)
        except DataError as error:
            # Going on from it would never mend it.
            rejected = self.path.with_name(f"{self.path.name}.rejected")
            self.partial.replace(rejected)
            self.origin.unlink(missing_ok=True)
            raise DataError(f"{error}\nwhat came is kept as {rejected}") from error
        self.partial.replace(self.path)
        self.origin.unlink(missing_ok=True)
        return f"{size}, {verified}"

    def _have(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0

    def _transfer(self) -> bool:
        """One request, from where the partial file ends. Whether the file is whole after it."""
        have = self._have()
        origin = self._read_origin()
        if origin.get("url") != self.url:  # of another server, or not ours
            have = 0
        request = urllib.request.Request(self.url)
        if have:
            request.add_header("Range", f"bytes={have}-")
            if origin.get("version"):
                # Where the file has changed since, this asks for the whole of it.
                request.add_header("If-Range", origin["version"])
        try:
            answer = urllib.request.urlopen(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            with error:
                return self._refused(error, have)
        except (OSError, http.client.HTTPException) as error:
            raise DataError(f"{self.url}: {_reason(error)}") from error
        with answer:
            length = _number(answer.headers.get("Content-Length"))
            if answer.status == 206:
                start, total = _content_range(answer.headers.get("Content-Range"))
                if start != have:
                    raise DataError(
                        f"{self.url}: asked for what follows byte {have:,}, but the server answers "
                        f"Content-Range {answer.headers.get('Content-Range')!r}"
                    )
                if total is None and length is not None:
                    total = have + length
            else:  # the whole, whether or not a part was asked for
                have, total = 0, length
            version = _version(answer.headers)
            self.origin.write_text(json.dumps({"url": self.url, "version": version, "size": total}))
            whole = self._append(answer, have, total)
        return whole if total is None else self._have() == total

    def _append(self, answer: http.client.HTTPResponse, have: int, total: int | None) -> bool:
        """Write what comes; whether it came to an end by itself."""
        with (
            self.partial.open("ab" if have else "wb") as file,
            tqdm(
                initial=have,
                total=total,
                unit="B",
                unit_scale=True,
                desc=self.path.name,
                disable=None,  # only where there is a terminal
            ) as bar,
        ):
            while True:
                try:
                    piece = answer.read1(CHUNK)
                except (OSError, http.client.HTTPException):
                    return False
                if not piece:
                    return True
                file.write(piece)
                bar.update(len(piece))

    def _refused(self, error: urllib.error.HTTPError, have: int) -> bool:
        if error.code != 416 or not have:
            raise DataError(f"{self.url}: {_reason(error)}") from error
        _, total = _content_range(error.headers.get("Content-Range"))
        if total == have:
            return True
        # More is there than the server has: no part of its file.
        self.partial.unlink()
        return self._transfer()

    def _read_origin(self) -> dict[str, Any]:
        try:
            found = json.loads(self.origin.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _verify(self, path: Path) -> str:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        expected, source = self.sha256, "the list of checksums"
        if expected is None and self.record.exists():
            expected, source = read_checksums(self.record).get(self.path.name), str(self.record)
        if expected is not None and found != expected:
            raise DataError(
                f"{path}: its SHA-256 is {found}, but {source} has {expected}"
                + ("" if path == self.partial else "; remove it to fetch it again")
            )
        check_whole(path, self.path.name)
        if expected is None:
            self.record.write_text(f"{found}  {self.path.name}\n")
            return f"SHA-256 {found}, now recorded in {self.record.name}"
        return f"SHA-256 as in {source}"


def _version(headers: http.client.HTTPMessage) -> str:
    tag = headers.get("ETag", "")
    # A weak tag does not promise the same bytes.
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _content_range(header: str | None) -> tuple[int | None, int | None]:
    """The first byte and the whole size of a Content-Range, None where it does not say."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", header or "")
    return (None, None) if match is None else (_number(match[1]), _number(match[2]))


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    return f"no answer: {getattr(error, 'reason', error)}"


def _bytes(size: int) -> str:
    return f"{size:,} bytes" if size < 10**6 else f"{size:,} bytes ({size / 10**6:,.1f} MB)"
