"""One-dimensional arrays on disk, in compressed pieces that are read and decoded without a lock.

HDF5 has one lock for the process, under which it also decompresses, and zarr-python one thread for its event loop. So
only the layout is asked for (of h5py, or the metadata that zarr writes as JSON); the pieces are read from the files as
bytes, and decoded by libraries that let go of the interpreter's lock: numcodecs, and isal or zlib for gzip. What is
stored in another way (lzf, virtual, other codecs, ...) is read through h5py or zarr.
"""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# HDF5's numbers of filters.
DEFLATE, SHUFFLE, BLOSC, ZSTD = 1, 2, 32001, 32015
# Values read at once of an array that is in one piece.
OWN_PIECE = 1 << 18
# How many tails of pieces are remembered, and of how many values at most.
TAILS, LONGEST_TAIL = 64, 1 << 17
# Up to so many bytes, a thread decodes all pieces into the same memory: new memory for each costs half of zstd's time.
LARGEST_SCRATCH, MARK = 1 << 26, np.frombuffer(b"no piece", np.uint8)

# Of a sparse matrix hardly any piece is all zero.
MISSING = "lost, or all zero, which zarr does not write and csraxis cannot tell from that"

_thread = threading.local()

# Bytes to bytes, in memory that is given or of their own.
Decode = Callable[[bytes, np.ndarray | None], Any]
# What gives the bytes of a piece, decoded; None where that is h5py's or zarr's business.
Load = Callable[[int, np.ndarray | None], Any] | None
# Of a file: when it was written, its size and its number. What is known of it is forgotten when these change.
Stamp = tuple[int, int, int]


class Traffic:
    """What was read in this process, of all arrays."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.n_bytes = self.n_values = 0

    def add(self, n_bytes: int, n_values: int) -> None:
        """So many more bytes on disk (of what is read through h5py or zarr, those in memory), and stored values."""
        with self._lock:
            self.n_bytes += n_bytes
            self.n_values += n_values


traffic = Traffic()


class Flat(NamedTuple):
    """An array on disk: where its pieces are, and how they are decoded."""

    path: Path
    name: str
    dtype: np.dtype
    length: int
    piece: int
    """Values in a piece; the last one is filled up."""
    n_bytes: int
    """On disk."""
    load: Load
    """None: `through` is all there is."""
    through: Callable[[], AbstractContextManager]
    """Opens it in h5py or zarr: a context manager of what can be sliced."""

    stamp: Stamp
    tails: dict[int, np.ndarray]
    """What has been decoded of a piece beyond the values wanted, by its position: another block begins there."""

    def values(self, lo: int, hi: int) -> np.ndarray:
        """The values [lo, hi). To be used before this thread reads others."""
        if self.load is None:
            return self._through(lo, hi)
        numbers = range(lo // self.piece, -(-hi // self.piece))
        if len(numbers) == 1:
            return self._of_piece(numbers[0], lo, hi)
        out = np.empty(hi - lo, self.dtype)
        for number in numbers:
            first, last = max(lo, number * self.piece), min(hi, (number + 1) * self.piece)
            out[first - lo : last - lo] = self._of_piece(number, lo, hi)
        return out

    def steps(self, lo: int, hi: int, size: int) -> list[tuple[int, int]]:
        """[lo, hi) in ranges of about `size` values that end where pieces do. The rest of a piece comes last.

        By then, the block that had its beginning has most likely decoded it.
        """
        size = max(1, size // self.piece) * self.piece
        edges = [lo, *range((lo // size + 1) * size, hi, size), hi]
        ranges = list(pairwise(edges)) if lo < hi else []
        return ranges[1:] + ranges[:1] if lo % self.piece else ranges

    def _through(self, lo: int, hi: int) -> np.ndarray:
        try:
            with self.through() as array:
                values = np.asarray(array[lo:hi])
        except Exception as error:  # of which there are as many kinds as filters
            raise self._damaged(lo, hi, error) from error
        traffic.add(values.nbytes, len(values) * self.name.endswith("/data"))
        return values

    def _of_piece(self, number: int, lo: int, hi: int) -> np.ndarray:
        """Those of [lo, hi) that are in one piece."""
        begin, end = number * self.piece, min((number + 1) * self.piece, self.length)
        known = self.tails.pop(lo, None) if lo > begin else None
        if known is not None:
            return known[: hi - lo]
        try:
            values = np.frombuffer(self._decoded(number), self.dtype, end - begin)
        except Exception as error:  # of which there are as many kinds as codecs
            raise self._damaged(begin, end, error) from error
        traffic.add(0, (end - begin) * self.name.endswith("/data"))
        if hi < end <= hi + LONGEST_TAIL:
            for old in list(self.tails)[: 1 - TAILS]:
                self.tails.pop(old, None)
            self.tails[hi] = values[hi - begin :].copy()
        return values[max(lo - begin, 0) : hi - begin]

    def _decoded(self, number: int) -> Any:
        load: Any = self.load
        out = scratch(self.piece * self.dtype.itemsize)
        if out is None:
            return load(number, None)
        last = slice(-min(len(MARK), self.dtype.itemsize), None)
        out[last] = MARK[last]
        decoded = np.frombuffer(load(number, out), np.uint8)
        if not np.may_share_memory(decoded, out):  # some codecs have memory of their own
            return decoded
        # Fewer bytes than there is room for would leave those of another piece.
        return load(number, None) if (out[last] == MARK[last]).all() else decoded

    def _damaged(self, lo: int, hi: int, error: Exception) -> OSError:
        return OSError(f"{self.path}: {self.name}[{lo}:{hi}] cannot be read: {error}")


def scratch(size: int) -> np.ndarray | None:
    """Memory of this thread, so many bytes; None for many."""
    if not 0 < size <= LARGEST_SCRATCH:
        return None
    if getattr(_thread, "memory", None) is None or len(_thread.memory) < size:
        _thread.memory = np.empty(size, np.uint8)
    return _thread.memory[:size]


def flat(path: Path, name: str) -> Flat:
    """The array of that name in a `.h5ad` file or `.zarr` folder, as it is there now."""
    file = path / name
    file = path if path.is_file() else file / "zarr.json" if (file / "zarr.json").exists() else file / ".zarray"
    try:
        stat = file.stat()
    except OSError as error:
        raise OSError(f"{path}: {name} cannot be read: {error}") from error
    return _flat(path, name, (stat.st_mtime_ns, stat.st_size, stat.st_ino))


def forget() -> None:
    """Nothing that is known of files is used any more: pieces of zarr may change without a trace in its metadata."""
    _flat.cache_clear()


@lru_cache(32)
def _flat(path: Path, name: str, stamp: Stamp) -> Flat:
    return _of_zarr(path, name, stamp) if path.is_dir() else _of_hdf5(path, name, stamp)


def _of_hdf5(path: Path, name: str, stamp: Stamp) -> Flat:
    places: list[Any] = []
    try:
        with _through_h5py(path, name) as array:
            if array.chunks is not None:
                array.id.chunk_iter(places.append)
            properties = array.id.get_create_plist()
            filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
            dtype, length, start = array.dtype, array.size, array.id.get_offset()
            piece = array.chunks[0] if array.chunks else OWN_PIECE
            if array.ndim != 1:
                raise KeyError(f"it must be 1-D, got shape {array.shape}")
            there = bool(places) or start is not None or not length
            plain = there and not (array.file.userblock_size or array.is_virtual or array.external)
            n_bytes = array.id.get_storage_size()
    except (OSError, RuntimeError, KeyError) as error:
        raise OSError(f"{path}: {name} cannot be read: {error}") from error
    decode = _hdf5_codec(filters, dtype) if plain and not any(place.filter_mask for place in places) else None
    where = {place.chunk_offset[0] // piece: (place.byte_offset, place.size) for place in places}
    if start is not None:  # neither compressed nor in pieces
        end, step = length * dtype.itemsize, piece * dtype.itemsize
        where = {at // step: (start + at, min(step, end - at)) for at in range(0, end, step)}
    load = None if decode is None else partial(_load_from_hdf5, path, where, decode)
    return Flat(path, name, dtype, length, piece, n_bytes, load, partial(_through_h5py, path, name), stamp, {})


def _load_from_hdf5(path: Path, where: dict[int, tuple[int, int]], decode: Decode, number: int, out: Any) -> Any:
    if number not in where:
        raise ValueError("it is not in the file")
    offset, size = where[number]
    with path.open("rb", buffering=0) as file:
        return decode(_part(file, offset, size), out)


def _part(file: Any, offset: int, size: int) -> bytes:
    """So many bytes of a file, counted."""
    file.seek(offset)
    raw = file.read(size)
    if len(raw) < size:
        raise ValueError(f"the file ends {size - len(raw)} bytes before its end")
    traffic.add(size, 0)
    return raw


def _hdf5_codec(filters: list[int], dtype: np.dtype) -> Decode | None:
    """What undoes the filters, or None if that is h5py's business."""
    shuffled = filters[:1] == [SHUFFLE]
    decode = {(): _as_it_is, (DEFLATE,): _inflated, (BLOSC,): _numcodec("blosc"), (ZSTD,): _numcodec("zstd")}.get(
        tuple(filters[shuffled:])
    )
    if decode is None or not shuffled:
        return decode
    unshuffle = _numcodec("shuffle", elementsize=dtype.itemsize)
    return None if unshuffle is None else partial(_both, decode, unshuffle)


@contextmanager
def _through_h5py(path: Path, name: str) -> Iterator[Any]:
    import h5py

    with h5py.File(path, "r") as file:
        yield file[name]


def _of_zarr(path: Path, name: str, stamp: Stamp) -> Flat:
    folder = path / name
    try:
        version = 3 if (folder / "zarr.json").exists() else 2
        about = json.loads((folder / ("zarr.json" if version == 3 else ".zarray")).read_text())
        with _through_zarr(path, name) as array:
            dtype, (length,), (piece,) = np.dtype(array.dtype), array.shape, array.chunks
        dtype, load = _zarr_3(about, folder, dtype) if version == 3 else _zarr_2(about, folder)
        n_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    except (OSError, ValueError, KeyError) as error:
        raise OSError(f"{path}: {name} cannot be read: {error}") from error
    return Flat(path, name, dtype, length, piece, n_bytes, load, partial(_through_zarr, path, name), stamp, {})


def _zarr_2(about: dict[str, Any], folder: Path) -> tuple[np.dtype, Load]:
    dtype, compressor = np.dtype(about["dtype"]), about.get("compressor")
    options = dict(compressor or {})
    decode = _as_it_is if compressor is None else _numcodec(options.pop("id"), **options)
    return dtype, None if decode is None or about.get("filters") else partial(_load_file, f"{folder}/", decode)


def _zarr_3(about: dict[str, Any], folder: Path, dtype: np.dtype) -> tuple[np.dtype, Load]:
    keys = about["chunk_key_encoding"]
    separator = keys.get("configuration", {}).get("separator", "/" if keys["name"] == "default" else ".")
    prefix = f"{folder}/c{separator}" if keys["name"] == "default" else f"{folder}/"
    codecs, shard = about["codecs"], None
    if codecs[0]["name"] == "sharding_indexed":
        if len(codecs) > 1:
            return dtype, None
        shard = codecs[0]["configuration"]
        codecs = shard["codecs"]
    first, *others = codecs
    if first["name"] != "bytes" or len(others) > 1 or about.get("storage_transformers"):
        return dtype, None
    if others and others[0]["name"] not in ("zstd", "blosc", "gzip"):
        return dtype, None
    decode = _numcodec(others[0]["name"]) if others else _as_it_is
    dtype = dtype.newbyteorder(">" if first.get("configuration", {}).get("endian") == "big" else "<")
    if decode is None or shard is None:
        return dtype, None if decode is None else partial(_load_file, prefix, decode)
    index = [codec["name"] for codec in shard["index_codecs"]]
    (whole,), (part,) = about["chunk_grid"]["configuration"]["chunk_shape"], shard["chunk_shape"]
    if index[:1] != ["bytes"] or index[1:] not in ([], ["crc32c"]):
        return dtype, None
    if shard["index_codecs"][0].get("configuration", {}).get("endian") == "big":
        return dtype, None
    size = 16 * (whole // part) + 4 * (len(index) - 1)
    at_end = shard.get("index_location", "end") == "end"
    return dtype, partial(_load_from_shard, prefix, decode, whole // part, size, at_end)


def _load_file(prefix: str, decode: Decode, number: int, out: Any) -> Any:
    try:
        with open(f"{prefix}{number}", "rb", buffering=0) as file:
            raw = file.read()
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename} is missing: {MISSING}") from error
    traffic.add(len(raw), 0)
    return decode(raw, out)


def _load_from_shard(
    prefix: str, decode: Decode, n_parts: int, index_size: int, at_end: bool, number: int, out: Any
) -> Any:
    shard, part = divmod(number, n_parts)
    with open(f"{prefix}{shard}", "rb", buffering=0) as file:
        file.seek(-index_size if at_end else 0, os.SEEK_END if at_end else os.SEEK_SET)
        offset, size = np.frombuffer(file.read(index_size), "<u8", 2, 16 * part).tolist()
        if offset == size == 2**64 - 1:
            raise ValueError("it is not in the shard")
        return decode(_part(file, offset, size), out)


@contextmanager
def _through_zarr(path: Path, name: str) -> Iterator[Any]:
    import zarr

    yield zarr.open_array(str(path / name), mode="r")


def _numcodec(name: str, **options: Any) -> Decode | None:
    """A codec of numcodecs, if that is installed and has it; gzip's not."""
    if name in ("gzip", "zlib"):
        return _inflated
    try:
        import numcodecs

        return numcodecs.get_codec({"id": name, **options}).decode
    except (ImportError, ValueError, TypeError):
        return None


def _inflated(raw: bytes, out: Any) -> bytes:
    """Of gzip and zlib. isal takes half of zlib's time."""
    try:
        from isal.isal_zlib import decompress
    except ImportError:
        from zlib import decompress
    return decompress(raw, wbits=31 if raw[:2] == b"\x1f\x8b" else 15)


def _both(first: Decode, second: Decode, raw: bytes, out: Any) -> Any:
    return second(first(raw, None), out)


def _as_it_is(raw: bytes, out: Any) -> bytes:
    return raw
