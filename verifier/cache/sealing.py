"""What is encrypted under the epoch key: then a lost card shows not even values without plates.

ChaCha20-Poly1305 (RFC 8439). The key is HKDF-SHA256 (RFC 5869) of the epoch key with a salt drawn for each file. In
place of a block's checksum, a pair of table and k is used once under a key and can be the nonce; a box is a whole file,
or all rows of one, and the only text under its key.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from verifier.cache.keys import KeyHasher
from verifier.cache.schema import SALT_LENGTH, BaseMeta
from verifier.errors import CacheCorruptError, EpochKeyError

TAG = 16  # bytes behind the ciphertext
BOX = b"MCS1"  # begins a box
DELTA_BOX, HOT_BOX = b"markcheck delta", b"markcheck hot"  # what is in one
_TABLES: Final = {"seg": b"seg\0", "exact": b"exct", "replated": b"repl"}


class Seal:
    """Seals and opens the blocks of one file. EpochKeyError for a salt of another length."""

    def __init__(self, epoch_key: bytes, salt: bytes, region: str, seq: int) -> None:
        if len(salt) != SALT_LENGTH:
            raise EpochKeyError("epoch key: no block key from this salt")
        self._cipher = _cipher(epoch_key, salt, b"markcheck block|" + region.encode() + b"|" + str(seq).encode())

    def close(self, table: str, k: int, body: bytes) -> bytes:
        """The d of a block or group: ciphertext and tag, which covers k too."""
        associated = k.to_bytes(8, "little")
        return self._cipher.encrypt(_TABLES[table] + associated, body, associated)

    def open(self, table: str, k: int, d: bytes) -> bytes:
        """The body of a d; CacheCorruptError when the tag does not fit."""
        try:
            associated = k.to_bytes(8, "little")
            return self._cipher.decrypt(_TABLES[table] + associated, d, associated)
        except (InvalidTag, OverflowError) as exc:
            raise CacheCorruptError("block: tag") from exc


def open_seal(meta: BaseMeta, epoch_key: bytes | None) -> Seal:
    """The seal of a file whose `meta` has a salt; EpochKeyError without its key."""
    if epoch_key is None or meta.salt is None or KeyHasher(epoch_key).check_value != meta.key_check:
        raise EpochKeyError("epoch key: sealed blocks need the one they were made under")
    return Seal(epoch_key, meta.salt, meta.region, meta.seq)


def close_box(epoch_key: bytes, what: bytes, data: bytes, draw: Callable[[int], bytes] = secrets.token_bytes) -> bytes:
    """The data in a box, 52 bytes more; `draw` makes the salt."""
    salt = draw(SALT_LENGTH)
    return BOX + salt + _cipher(epoch_key, salt, what).encrypt(bytes(12), data, None)


def open_box(epoch_key: bytes | None, what: bytes, box: bytes) -> bytes:
    """What is in a box whose bytes a signature has proved; EpochKeyError without the key that it was closed under."""
    start = len(BOX) + SALT_LENGTH
    if epoch_key is None or not box.startswith(BOX) or len(box) < start + TAG:
        raise EpochKeyError("epoch key: sealed rows need the one they were made under")
    try:
        return _cipher(epoch_key, box[len(BOX) : start], what).decrypt(bytes(12), box[start:], None)
    except InvalidTag as exc:
        raise EpochKeyError("epoch key: not the one these rows were sealed under") from exc


def _cipher(epoch_key: bytes, salt: bytes, info: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(HKDF(SHA256(), 32, salt, info).derive(epoch_key))
