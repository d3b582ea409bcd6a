"""SM2 signatures with SM3 (GB/T 32918.2 and .5), verified by the system's libcrypto: OpenSSL 3, through ctypes.

`cryptography` has no SM2. The library is sought at the first use; where it is absent, so is the algorithm.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping
from ctypes import CDLL, POINTER, byref, c_char_p, c_int, c_long, c_size_t, c_uint, c_void_p
from functools import cache, cached_property
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from verifier.codec.cose import SIGNATURE_LENGTH
from verifier.errors import CodeError
from verifier.types import CodeFault

USER_ID = b"1234567812345678"  # GM/T 0009, for signers that were given no id of their own
# The curve y^2 = x^3 + Ax + B over the field of PRIME and the order of its group, GB/T 32918.5.
PRIME = 0xFFFFFFFE_FFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_00000000_FFFFFFFF_FFFFFFFF
A = PRIME - 3
B = 0x28E9FA9E_9D9F5E34_4D5A9E4B_CF6509A7_F39789F5_15AB8F92_DDBCBD41_4D940E93
ORDER = 0xFFFFFFFE_FFFFFFFF_FFFFFFFF_FFFFFFFF_7203DF6B_21C6052B_53BBF409_39D54123

# SubjectPublicKeyInfo of an SM2 key (RFC 5480, GM/T 0006) up to its 65 bytes 04 X Y.
SPKI_PREFIX = bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d034200")

_BASE_POINT = bytes.fromhex(
    "04"
    "32c4ae2c1f1981195f9904466a39c9948fe30bbff2660be1715a4589334c74c7"
    "bc3736a2f4f6779c59bdcee36b692153d0a9877cc62a474002df32e52139f0a0"
)

Prototypes = Mapping[str, tuple[Any, tuple[Any, ...]]]

_FUNCTIONS: Prototypes = {
    "OPENSSL_version_major": (c_uint, ()),
    "ERR_clear_error": (None, ()),
    "d2i_PUBKEY": (c_void_p, (c_void_p, POINTER(c_char_p), c_long)),
    "EVP_PKEY_free": (None, (c_void_p,)),
    "EVP_PKEY_CTX_set1_id": (c_int, (c_void_p, c_char_p, c_int)),
    "EVP_MD_CTX_new": (c_void_p, ()),
    "EVP_MD_CTX_free": (None, (c_void_p,)),
    "EVP_DigestVerifyInit_ex": (
        c_int,
        (c_void_p, POINTER(c_void_p), c_char_p, c_void_p, c_char_p, c_void_p, c_void_p),
    ),
    "EVP_DigestVerify": (c_int, (c_void_p, c_char_p, c_size_t, c_char_p, c_size_t)),
}


class Sm2PublicKey:
    """A public key for libcrypto. Several threads may verify with it at once."""

    def __init__(self, library: CDLL, key: bytes) -> None:
        """From 65 bytes 04 X Y; ValueError when they are no point of the curve."""
        check_point(key)
        self.encoded = key
        self._library = library

    @cached_property
    def _pointer(self) -> int:
        """The key inside libcrypto, loaded when first used: that costs a thousandth of a second for each of a list.

        CodeError ALG_UNAVAILABLE. Two threads may load it at once; both copies live as long as the key.
        """
        spki = SPKI_PREFIX + self.encoded
        pointer: int | None = self._library.d2i_PUBKEY(None, byref(c_char_p(spki)), len(spki))
        if not pointer:
            raise CodeError(CodeFault.ALG_UNAVAILABLE, "libcrypto does not take the key")
        weakref.finalize(self, self._library.EVP_PKEY_free, pointer)
        return pointer

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sm2PublicKey) and self.encoded == other.encoded

    def __hash__(self) -> int:
        return hash(self.encoded)

    def verify(self, message: bytes, signature: bytes, user_id: bytes = USER_ID) -> bool:
        """Whether the 64-byte signature r || s of the message verifies for a signer of that id.

        CodeError ALG_UNAVAILABLE when libcrypto could not try.
        """
        if len(signature) != SIGNATURE_LENGTH:
            return False
        r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
        if not (0 < r < ORDER and 0 < s < ORDER):
            return False
        try:
            answer = self._answer(encode_dss_signature(r, s), message, user_id)
        finally:
            # The queue belongs to the thread and is shared with Python's own modules.
            self._library.ERR_clear_error()
        if answer not in (0, 1):
            raise CodeError(CodeFault.ALG_UNAVAILABLE, "libcrypto failed")
        return answer == 1

    def _answer(self, der: bytes, message: bytes, user_id: bytes) -> int:
        """1 or 0 as EVP_DigestVerify says, something else when it could not be asked."""
        library = self._library
        context, settings = library.EVP_MD_CTX_new(), c_void_p()  # `settings` belongs to the context
        try:
            if (
                not context
                or library.EVP_DigestVerifyInit_ex(
                    context, byref(settings), b"SM3", None, None, self._pointer, None
                ) != 1
                or library.EVP_PKEY_CTX_set1_id(settings, user_id, len(user_id)) != 1
            ):  # fmt: skip
                return -1
            return int(library.EVP_DigestVerify(context, der, len(der), message, len(message)))
        finally:
            library.EVP_MD_CTX_free(context)


def check_point(key: bytes) -> None:
    """ValueError when these are not the 65 bytes 04 X Y of a point of the curve; needs no library."""
    x, y = int.from_bytes(key[1:33]), int.from_bytes(key[33:])
    # The cofactor is 1: every point is in the group.
    on_curve = x < PRIME and y < PRIME and (y * y - (x * x + A) * x - B) % PRIME == 0
    if len(key) != 65 or key[0] != 4 or not on_curve:
        raise ValueError("key: not a point of the SM2 curve")


@cache
def libcrypto() -> CDLL | None:
    """This machine's libcrypto with SM2, sought at the first call; None where there is none."""
    return load_libcrypto(library_names())


def library_names() -> Iterator[str]:
    """Names under which the loader may know OpenSSL 3's libcrypto."""
    yield "libcrypto.so.3"
    # It starts programs of the compiler's, hence second; and only here is what it finds an OpenSSL.
    if sys.platform == "linux":
        from ctypes.util import find_library  # noqa: PLC0415 - loads much that no other check needs

        if found := find_library("crypto"):
            yield found


def load_libcrypto(names: Iterable[str]) -> CDLL | None:
    """The first library among these that is OpenSSL 3 or later and verifies SM2 signatures, or None."""
    for name in names:
        try:
            library = CDLL(name)
            declare(library, _FUNCTIONS)
        except (OSError, AttributeError):
            continue  # not here, or older, or another maker's
        if library.OPENSSL_version_major() >= 3 and _verifies_sm2(library):
            return library
    return None


def declare(library: CDLL, functions: Prototypes) -> None:
    """Set result and argument types; AttributeError for a function that the library does not have."""
    for name, (result, arguments) in functions.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments


def _verifies_sm2(library: CDLL) -> bool:
    """Whether a wrong signature is called wrong: without the curve, SM3 or the signer's id it would be an error."""
    one = (1).to_bytes(32)
    try:
        return not Sm2PublicKey(library, _BASE_POINT).verify(b"", one + one)
    except CodeError:
        return False
