"""Proof that a downloaded base, and the changes made over it, are whole and of one piece before they come into use."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from verifier.cache.blocks import LOW, ROW
from verifier.cache.keys import MAX_KEY
from verifier.cache.schema import BaseMeta, check_same_base
from verifier.cache.sealing import TAG
from verifier.cache.tables import Table, open_table
from verifier.codec.index import Index
from verifier.errors import CacheCorruptError


def check_base(path: Path, index: Index, epoch_key: bytes | None = None) -> int:
    """Read every block: checksums, no gap up to the last key, numbers as in `meta` and the index.

    The order of the rows inside a block is the publisher's word, signed with the file's digest. Returns the number of
    keys; CacheCorruptError when anything does not fit. Of a sealed base only what stands outside the seal can be read
    without the epoch key.
    """
    with closing(open_table(path, epoch_key)) as table:
        meta = table.meta
        expected = (index.region, index.base.seq, index.base.n, index.key_epoch, None)
        if (meta.region, meta.seq, meta.n, meta.key_epoch, meta.base_seq) != expected:
            raise CacheCorruptError("base: meta and index differ")
        return _check_blocks(table, epoch_key)


def check_changes(path: Path, base: BaseMeta, index: Index, epoch_key: bytes | None = None) -> int:
    """The same for changes.db, which must be of this base and as new as the index."""
    with closing(open_table(path, epoch_key)) as table:
        check_same_base(table.meta, base)
        if table.meta.seq != index.seq:
            raise CacheCorruptError("changes: not as new as the index")
        return _check_blocks(table, epoch_key)


def read_base_meta(path: Path) -> BaseMeta:
    """The `meta` of a base; CacheCorruptError."""
    with closing(open_table(path)) as table:
        return table.meta


def _check_blocks(table: Table, epoch_key: bytes | None) -> int:
    outside = table.meta.salt is not None and epoch_key is None
    keys = _count_outside(table) if outside else table.count_rows()
    if keys != table.meta.keys:
        raise CacheCorruptError("base: blocks are missing")
    return keys


def _count_outside(table: Table) -> int:
    """The rows of sealed blocks by the blocks' lengths."""
    last, keys = -1, 0
    for k, d in table.stored("seg"):
        if k <= last:
            raise CacheCorruptError("base: blocks out of order")
        last, keys = k, keys + (len(d) - TAG - LOW) // ROW
    if last != MAX_KEY:
        raise CacheCorruptError("base: blocks are missing")
    return keys
