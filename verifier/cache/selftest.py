"""Proof that a downloaded base is whole and of one piece, before it comes into use."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from verifier.cache.blocks import read_block
from verifier.cache.keys import MAX_KEY
from verifier.cache.schema import DAMAGE, open_base, read_meta
from verifier.codec.index import Index
from verifier.errors import CacheCorruptError


def check_base(path: Path, index: Index) -> int:
    """Read every block: checksums, order, no gap up to the last key, numbers as in `meta` and the index.

    Returns the number of keys; CacheCorruptError when anything does not fit.
    """
    try:
        with closing(open_base(path)) as connection:
            meta = read_meta(connection)
            expected = (index.region, index.base.seq, index.base.n, index.key_epoch)
            if (meta.region, meta.seq, meta.n, meta.key_epoch) != expected:
                raise CacheCorruptError("base: meta and index differ")
            next_low, keys = 0, 0
            for k, d in connection.execute("SELECT k, d FROM seg ORDER BY k"):
                low, block_keys, _values = read_block(k, d)
                if low != next_low:
                    raise CacheCorruptError("base: a gap between blocks")
                next_low, keys = k + 1, keys + len(block_keys)
    except (*DAMAGE, TypeError) as exc:
        raise CacheCorruptError("base: not readable") from exc
    if next_low != MAX_KEY + 1 or keys != meta.keys:
        raise CacheCorruptError("base: blocks are missing")
    return keys
