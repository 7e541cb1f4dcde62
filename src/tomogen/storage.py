"""Bytes on disk: no more read than a header declares and the file can hold; written whole or not at all."""

import contextlib
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import DataInvalid, InputMissing, Reason, RecipeMismatch, UsageFault

INFLATION = 1032
"""Deflate makes of one byte at most so many (RFC 1951: 258 bytes from two bits)."""

_CHUNK = 2**20

_SLICE = re.compile(r"\d{4,}\.(dcm|png|jpg)")
"""Names of the files in a folder of slices that we write, and so may remove."""


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name beside `path` to write a file or folder under; it becomes `path` when the block ends well.

    A file of that name is replaced in one step.

    Raises:
        UsageFault: `path` is a folder that is not empty.
    """
    if path.is_dir() and any(path.iterdir()):
        raise UsageFault("the output is there already and not empty", at=path, fix="another name, or remove it")
    partial = path.with_name(f"{path.name}.partial")
    _remove(partial)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        partial.replace(path)
    except BaseException as error:
        _remove(partial)
        if isinstance(error, OSError) and error.filename is None:
            # What found no room on a full disk; pydicom wraps the error that knows its number.
            cause = error if error.errno or not isinstance(error.__cause__, OSError) else error.__cause__
            if cause.errno:
                raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[None]:
    """A folder that is to be replaced steps aside, and comes back if the new one is not written."""
    if not path.is_dir():
        yield
        return
    aside = path.with_name(f"{path.name}.replaced")
    path.rename(aside)
    try:
        yield
    except BaseException:
        aside.rename(path)
        raise
    shutil.rmtree(aside)


def free(path: Path, overwrite: bool, source: Path | None = None) -> None:
    """Whether a scan may be written as `path`, a file or a folder of slices; `source` is what it is made from.

    Raises:
        UsageFault: something is there that may not be replaced, or `overwrite` is not given.
    """
    if source is not None and path.exists() and path.resolve() == source.resolve():
        raise UsageFault("the output is the scan itself", at=path, fix="another name")
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise UsageFault("the output is there already", at=path, fix="--overwrite, or another name")
    if path.is_dir() and not all(_SLICE.fullmatch(entry.name) for entry in path.iterdir()):
        raise UsageFault("the folder holds more than slices that we wrote", at=path, fix="another name")


def head(path: Path, size: int) -> bytes:
    """The first `size` bytes of a file, of its content if it is a gzip stream; fewer if it is shorter.

    Raises:
        InputMissing: it cannot be read.
        DataInvalid: no bytes, or a damaged gzip stream.
    """
    with opened(path) as file:
        start = file.read(max(size, 2))
        if not start:
            raise DataInvalid("no bytes", reason=Reason.EMPTY, at=path)
        if start[:2] != b"\x1f\x8b":
            return start[:size]
        file.seek(0)
        found = bytearray()
        with contextlib.suppress(StopIteration):
            pieces = _inflated(file, path)
            while len(found) < size:
                found += next(pieces)
        return bytes(found[:size])


def refuse_pickle(path: Path, fix: str) -> None:
    """Weights in a pickle can run any code when they are opened: they never are. A file that is not there passes.

    Raises:
        RecipeMismatch: by its name or its first bytes it is a pickle, or the zip archive that torch puts one into.
    """
    if not path.is_file():
        return
    with opened(path) as file:
        start = file.read(9)
    # The length that opens a safetensors file begins with 0x80 in one of 32; its ninth byte is always a brace.
    pickled = start[:4] == b"PK\x03\x04" or start[:1] == b"\x80"
    if (pickled and start[8:] != b"{") or path.suffix in (".pt", ".pth", ".ckpt", ".pkl"):
        raise RecipeMismatch("weights in a pickle are never loaded: opening one can run any code", at=path, fix=fix)


def is_gzip(path: Path) -> bool:
    """Whether a file starts as gzip streams do, whatever its name says."""
    with opened(path) as file:
        return file.read(2) == b"\x1f\x8b"


def stored(path: Path, size: int, *, offset: int = 0, skip: int = 0, deflated: bool = False) -> NDArray[np.uint8]:
    """`size` bytes of a file from `offset`, or, if deflated, of the zlib or gzip stream there after `skip` bytes.

    Memory is taken only once the file is long enough to hold so much.

    Raises:
        InputMissing: it cannot be read.
        DataInvalid: truncated, or a damaged stream.
    """
    with opened(path) as file:
        there = max(0, os.fstat(file.fileno()).st_size - offset)
        if there * (INFLATION if deflated else 1) < size + skip:
            raise _short(path, there, size, deflated)
        file.seek(offset + (0 if deflated else skip))
        out = np.empty(size, dtype=np.uint8)
        if not deflated:
            done = file.readinto(out)  # type: ignore[attr-defined]
        else:
            done = 0
            for piece in _inflated(file, path):
                dropped = min(skip, len(piece))
                skip -= dropped
                take = min(len(piece) - dropped, size - done)
                out[done : done + take] = np.frombuffer(piece, np.uint8, take, dropped)
                done += take
                if done == size and len(piece) - dropped > take:
                    break  # more than declared follows: rubbish, or a bomb
        if done < size:
            raise _short(path, done, size, False)
        return out


def numbers(path: Path, offset: int, dtype: "np.dtype[Any]", count: int, skip: int = 0) -> NDArray[Any]:
    """`count` numbers written as text from `offset`, after `skip` others.

    Raises:
        InputMissing: it cannot be read.
        DataInvalid: fewer numbers are there, or something else.
    """
    with opened(path) as file:
        there = max(0, os.fstat(file.fileno()).st_size - offset)
        if there < 2 * (count + skip) - 1:  # a digit and a space each
            raise _short(path, there, 2 * (count + skip), False)
        file.seek(offset)
        try:
            found = np.fromfile(file, dtype, count + skip, sep=" ")
        except ValueError:
            raise DataInvalid("text that is no number among the pixels", reason=Reason.CORRUPT, at=path) from None
    if len(found) < count + skip:
        raise DataInvalid(f"{len(found):,} of {count + skip:,} numbers", reason=Reason.TRUNCATED, at=path)
    return found[skip:]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file to read, or the reason why not.

    Raises:
        InputMissing: it is not there, is a folder, or may not be read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        whose = ""
        with contextlib.suppress(OSError):
            status = path.stat()
            whose = f" (owner {status.st_uid}, mode {status.st_mode & 0o777:o})"
        raise InputMissing(f"cannot read: {(error.strerror or 'unknown fault').lower()}{whose}", at=path) from None
    with file:
        yield file


def _inflated(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The content of zlib or gzip streams, one after another, in pieces of at most 1 MiB."""
    stream, first = zlib.decompressobj(wbits=47), True
    data = b""
    while True:
        data = data or file.read(_CHUNK)
        if not data:
            if not first and stream.eof:
                return
            raise DataInvalid("the compressed stream ends early", reason=Reason.TRUNCATED, at=path)
        if stream.eof:
            if data[:2] != b"\x1f\x8b":
                return
            stream = zlib.decompressobj(wbits=47)
        first = False
        try:
            piece = stream.decompress(data, _CHUNK)
        except zlib.error as error:
            raise DataInvalid(f"the compressed stream is damaged ({error})", reason=Reason.CORRUPT, at=path) from None
        data = stream.unused_data if stream.eof else stream.unconsumed_tail
        if piece:
            yield piece


def _short(path: Path, there: int, size: int, deflated: bool) -> DataInvalid:
    found = f"{there:,} compressed bytes cannot hold" if deflated else f"{there:,} of"
    return DataInvalid(f"{found} {size:,} bytes of pixels", reason=Reason.TRUNCATED, at=path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
