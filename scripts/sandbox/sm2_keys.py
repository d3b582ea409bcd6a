"""SM2 private keys of the sandbox authority, inside the libcrypto that `verifier.sm2` found."""

from __future__ import annotations

import weakref
from base64 import b64decode, b64encode
from collections.abc import Callable
from ctypes import CDLL, POINTER, byref, c_char_p, c_int, c_long, c_size_t, c_void_p, cast, create_string_buffer
from functools import cache
from textwrap import wrap
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from verifier.sm2 import SPKI_PREFIX, USER_ID, Prototypes, declare, libcrypto

_HEAD, _TAIL = b"-----BEGIN PRIVATE KEY-----\n", b"-----END PRIVATE KEY-----\n"
_ALGORITHM = SPKI_PREFIX[2:23]  # the same in PKCS 8: id-ecPublicKey with the SM2 curve

_FUNCTIONS: Prototypes = {
    "EVP_PKEY_CTX_new_from_name": (c_void_p, (c_void_p, c_char_p, c_char_p)),
    "EVP_PKEY_CTX_free": (None, (c_void_p,)),
    "EVP_PKEY_keygen_init": (c_int, (c_void_p,)),
    "EVP_PKEY_generate": (c_int, (c_void_p, POINTER(c_void_p))),
    "d2i_AutoPrivateKey": (c_void_p, (c_void_p, POINTER(c_char_p), c_long)),
    "i2d_PUBKEY": (c_int, (c_void_p, c_void_p)),
    "EVP_PKEY2PKCS8": (c_void_p, (c_void_p,)),
    "i2d_PKCS8_PRIV_KEY_INFO": (c_int, (c_void_p, c_void_p)),
    "PKCS8_PRIV_KEY_INFO_free": (None, (c_void_p,)),
    "EVP_DigestSignInit_ex": (c_int, (c_void_p, POINTER(c_void_p), c_char_p, c_void_p, c_char_p, c_void_p, c_void_p)),
    "EVP_DigestSign": (c_int, (c_void_p, c_char_p, POINTER(c_size_t), c_char_p, c_size_t)),
}


class Sm2PrivateKey:
    """A private key inside libcrypto."""

    def __init__(self, pointer: int) -> None:
        """Takes an EVP_PKEY over and frees it in the end."""
        self._library = _library()
        self._pointer = pointer
        weakref.finalize(self, self._library.EVP_PKEY_free, pointer)

    @classmethod
    def generate(cls) -> Sm2PrivateKey:
        """A fresh key; ValueError where this machine has no SM2."""
        library = _library()
        context, pointer = library.EVP_PKEY_CTX_new_from_name(None, b"SM2", None), c_void_p()
        try:
            _check(context and library.EVP_PKEY_keygen_init(context))
            _check(library.EVP_PKEY_generate(context, byref(pointer)))
        finally:
            library.EVP_PKEY_CTX_free(context)
        return cls(pointer.value or 0)

    @classmethod
    def from_pem(cls, pem: bytes) -> Sm2PrivateKey:
        """Read what `pem` wrote; ValueError for anything else, or where this machine has no SM2."""
        if not is_sm2_pem(pem):
            raise ValueError("not an SM2 private key")
        library, der = _library(), _der_of(pem)
        pointer = library.d2i_AutoPrivateKey(None, byref(c_char_p(der)), len(der))
        _check(bool(pointer))
        return cls(pointer)

    def pem(self) -> bytes:
        """PKCS 8, not encrypted."""
        info = self._library.EVP_PKEY2PKCS8(self._pointer)
        _check(bool(info))
        try:
            der = _der(self._library.i2d_PKCS8_PRIV_KEY_INFO, info)
        finally:
            self._library.PKCS8_PRIV_KEY_INFO_free(info)
        return _HEAD + "\n".join(wrap(b64encode(der).decode(), 64)).encode() + b"\n" + _TAIL

    def public_bytes(self) -> bytes:
        """65 bytes 04 X Y."""
        return _der(self._library.i2d_PUBKEY, self._pointer)[len(SPKI_PREFIX) :]

    def sign(self, message: bytes, user_id: bytes = USER_ID) -> bytes:
        """r || s, 64 bytes, for a signer of that id."""
        library, context, settings = self._library, self._library.EVP_MD_CTX_new(), c_void_p()
        buffer = create_string_buffer(80)  # two integers of 33 bytes at most, and the DER around them
        length = c_size_t(len(buffer))
        try:
            _check(
                context
                and library.EVP_DigestSignInit_ex(context, byref(settings), b"SM3", None, None, self._pointer, None)
            )
            _check(library.EVP_PKEY_CTX_set1_id(settings, user_id, len(user_id)))
            _check(library.EVP_DigestSign(context, buffer, byref(length), message, len(message)))
        finally:
            library.EVP_MD_CTX_free(context)
        r, s = decode_dss_signature(buffer.raw[: length.value])
        return r.to_bytes(32) + s.to_bytes(32)


def is_sm2_pem(pem: bytes) -> bool:
    """Whether this is the PEM of an SM2 private key, by the algorithm it names; asks no library."""
    return pem.startswith(_HEAD) and pem.endswith(_TAIL) and _ALGORITHM in _der_of(pem)[:30]


def _der_of(pem: bytes) -> bytes:
    return b64decode(pem[len(_HEAD) : -len(_TAIL)])


@cache
def _library() -> CDLL:
    library = libcrypto()
    if library is None:
        raise ValueError("this machine's libcrypto has no SM2")
    declare(library, _FUNCTIONS)
    return library


def _check(answer: int | None) -> None:
    if answer != 1:
        _library().ERR_clear_error()
        raise ValueError("libcrypto could not do this with an SM2 key")


def _der(encode: Callable[[int, Any], int], pointer: int) -> bytes:
    buffer = create_string_buffer(encode(pointer, None))
    encode(pointer, byref(cast(buffer, c_char_p)))  # moves the pointer it is given, not the buffer
    return buffer.raw
