"""The epoch key during a shift: fetched over TLS, held in memory, and wrapped on the card under a PIN for a reboot.

What is on the card opens with the PIN and the device's private key together. Five wrong PINs destroy it. Against
someone who copied the card both are no more than the cost of scrypt times the number of PINs: see
docs/decisions/the-epoch-key-and-a-pin.md.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from verifier.cache.keys import KEY_LENGTH
from verifier.clock import Clock
from verifier.codec import cbor
from verifier.codec.device import EPOCH_KEY_PATH
from verifier.codec.index import MAX_NUMBER
from verifier.errors import CodeError, EpochKeyError
from verifier.identity import Client, IdentityError, Why
from verifier.secret_files import destroy, read_secret, write_secret
from verifier.trusted_time import TrustedTime

LIFE = timedelta(hours=72)
MAX_TRIES = 5  # wrong PINs in a row
# scrypt (RFC 7914) with 64 MiB, which a board of 512 MB can spare: a try takes as long as SHA-256 of some 200 MiB. The
# figures belong to version 1 of the file and are not read from it, so no file can ask for more memory.
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 16, 8, 1
VERSION = 1

_PIN = re.compile(r"[0-9]{6,12}", re.ASCII)
_RISING, _FALLING = "01234567890123456789", "98765432109876543210"
_MAX_TIME = (1 << 33) - 1  # POSIX seconds
_FIELDS = {"v": int, "epoch": int, "from": int, "until": int, "salt": bytes, "nonce": bytes, "sealed": bytes}


class WrongPinError(EpochKeyError):
    """Not the PIN that the key was wrapped under; `left` tries remain, and with 0 the wrapped key is destroyed."""

    def __init__(self, left: int) -> None:
        told = f"{left} tries are left" if left else "the wrapped key is destroyed: begin a shift where the centre is"
        super().__init__(f"epoch key: wrong PIN; {told}")
        self.left = left


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochKey:
    """The key of one epoch, and how long this device may use it."""

    key: bytes = field(repr=False)  # 32 bytes
    epoch: int
    valid_until: datetime


class Moment(NamedTuple):
    """What time it is: as the clock shows, the earliest that it can be, and whether the clock is under suspicion."""

    shown: datetime
    least: datetime
    doubted: bool

    def is_past(self, until: datetime) -> bool:
        """Whether `until` is over for certain: a clock that only runs ahead must not destroy a key."""
        return self.least >= until or (not self.doubted and self.shown >= until)

    def may_be_past(self, until: datetime) -> bool:
        """Whether `until` is over, or a clock under suspicion says so."""
        return max(self.shown, self.least) >= until


def moment(time: TrustedTime, clock: Clock) -> Moment:
    """The present by what the device knows of the time."""
    now = clock()
    doubts = time.doubts(now)
    return Moment(now, time.earliest(now) if doubts else now, bool(doubts))


def fetch_epoch_key(client: Client, now: datetime) -> EpochKey:
    """The key of the present epoch, for 72 hours from `now` at most; IdentityError."""
    answer = client.ask("GET", EPOCH_KEY_PATH)
    try:
        key, epoch = bytes.fromhex(answer["epoch_key"]), answer["key_epoch"]
        until = datetime.fromisoformat(answer["valid_until"])
        told = until.timestamp()  # for a text without an offset too
    except (KeyError, TypeError, ValueError, OverflowError) as exc:
        raise IdentityError(Why.CENTRE) from exc
    if len(key) != KEY_LENGTH or type(epoch) is not int or not 0 <= epoch <= MAX_NUMBER or until.tzinfo is None:
        raise IdentityError(Why.CENTRE)
    # By this device's clock: the centre's may stand elsewhere, and the life is a length and no date.
    life = LIFE if not 0 < told <= _MAX_TIME else min(LIFE, max(until - now, timedelta(hours=1)))
    return EpochKey(key=key, epoch=epoch, valid_until=(now + life).replace(microsecond=0))


def check_pin(pin: str) -> None:
    """EpochKeyError for a PIN that is too short, or one of those that are tried first."""
    if _PIN.fullmatch(pin) is None:
        raise EpochKeyError("PIN: 6 to 12 digits are needed")
    if len(set(pin)) < 3 or pin in _RISING or pin in _FALLING:
        raise EpochKeyError("PIN: too simple")


# ---------------------------------------------------------------------------------------- held in memory


def memory_file(folder: Path, home: Path) -> Path:
    """Where the key of the device in `home` is held on a file system in memory, for commands of one shift."""
    return folder / f"epoch-{hashlib.sha256(os.fsencode(home.absolute())).hexdigest()[:16]}.key"


def is_in_memory(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether what is written below this folder stays in memory: tmpfs or ramfs, by mountinfo (proc(5))."""
    try:
        device = os.stat(folder).st_dev  # noqa: PTH116 - as beside os.major
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        before, _, behind = line.partition(" - ")
        if before.split()[2:3] == [number]:
            return behind.split()[:1] in (["tmpfs"], ["ramfs"])
    return False


def hold(path: Path, key: EpochKey) -> None:
    """Keep the key in this file, which lies in memory; EpochKeyError where it would not, or not alone. OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = path.parent.lstat()
    if not stat.S_ISDIR(made.st_mode) or made.st_uid != os.getuid() or made.st_mode & 0o077:
        raise EpochKeyError("epoch key: the folder in memory to hold it is not this user's alone")
    if not is_in_memory(path.parent):
        raise EpochKeyError("epoch key: there is no file system in memory to hold it (MARKCHECK_RUN)")
    until = int(key.valid_until.timestamp())
    write_secret(path, cbor.encode({"v": VERSION, "epoch": key.epoch, "until": until, "key": key.key}))


def held(path: Path, now: Moment) -> EpochKey | None:
    """The key that is held, None without one that is still good; one past its time is destroyed. OSError."""
    data = read_secret(path)
    if data is None:
        return None
    raw = _map(data, {"v": int, "epoch": int, "until": int, "key": bytes})
    if raw is None or len(raw["key"]) != KEY_LENGTH:
        destroy(path)
        return None
    key = EpochKey(key=raw["key"], epoch=raw["epoch"], valid_until=datetime.fromtimestamp(raw["until"], UTC))
    if now.is_past(key.valid_until):
        destroy(path)
    return None if now.may_be_past(key.valid_until) else key


# ---------------------------------------------------------------------------------------- wrapped on the card


@dataclass(frozen=True, slots=True)
class WrapFiles:
    """The wrapped key, and the tries since the last right PIN: one byte each, written before the try."""

    wrapped: Path
    tries: Path

    def destroy(self) -> None:
        """Both; OSError."""
        destroy(self.wrapped)
        destroy(self.tries)


def wrap(files: WrapFiles, key: EpochKey, pin: str, device_key: bytes, now: datetime) -> None:
    """Keep the key on the card under this PIN and the device's private key. EpochKeyError for a poor PIN; OSError."""
    check_pin(pin)
    salt, nonce = secrets.token_bytes(32), secrets.token_bytes(12)
    header = {
        "v": VERSION, "epoch": key.epoch, "from": int(now.timestamp()), "until": int(key.valid_until.timestamp()),
        "salt": salt, "nonce": nonce,
    }  # fmt: skip
    sealed = ChaCha20Poly1305(_wrapping_key(pin, device_key, salt)).encrypt(nonce, key.key, cbor.encode(header))
    files.destroy()
    write_secret(files.tries, b"")
    write_secret(files.wrapped, cbor.encode({**header, "sealed": sealed}))


def unwrap(files: WrapFiles, pin: str, device_key: bytes, now: Moment) -> EpochKey:
    """The key, for the right PIN within its time.

    WrongPinError; any other EpochKeyError when there is none to open; OSError when the try cannot be counted, which
    must come before it. A key past its time is destroyed.
    """
    raw = _map(read_secret(files.wrapped) or b"", _FIELDS)
    if raw is None or not files.tries.exists():
        files.destroy()
        raise EpochKeyError("epoch key: none is wrapped here")
    until = datetime.fromtimestamp(raw["until"], UTC)
    if now.is_past(until):
        files.destroy()
        raise EpochKeyError("epoch key: the wrapped one is past its time: begin a shift where the centre is")
    if now.may_be_past(until):
        raise EpochKeyError("epoch key: the clock is under suspicion, and by it the wrapped one is past its time")
    header = {name: value for name, value in raw.items() if name != "sealed"}
    wrapping = _wrapping_key(pin, device_key, raw["salt"])  # before the count: too little memory is no wrong PIN
    with _counted_try(files) as count:
        try:
            key = ChaCha20Poly1305(wrapping).decrypt(raw["nonce"], raw["sealed"], cbor.encode(header))
        except InvalidTag as exc:
            if count >= MAX_TRIES:
                files.destroy()
            raise WrongPinError(max(0, MAX_TRIES - count)) from exc
        os.truncate(files.tries, 0)
    return EpochKey(key=key, epoch=raw["epoch"], valid_until=until)


@contextmanager
def _counted_try(files: WrapFiles) -> Iterator[int]:
    """Count one more try, durably and before it is made; its number. One at a time."""
    handle = os.open(files.tries, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not files.wrapped.exists() or os.fstat(handle).st_size >= MAX_TRIES:  # another try ended it meanwhile
            files.destroy()
            raise WrongPinError(0)
        os.write(handle, b".")
        os.fsync(handle)
        yield os.fstat(handle).st_size
    finally:
        os.close(handle)


def _wrapping_key(pin: str, device_key: bytes, salt: bytes) -> bytes:
    memory = 128 * SCRYPT_N * SCRYPT_R * SCRYPT_P
    try:
        slow = hashlib.scrypt(
            pin.encode(), salt=salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, maxmem=memory + (1 << 21), dklen=32
        )
    except (MemoryError, ValueError) as exc:
        raise EpochKeyError("epoch key: not enough memory for the PIN") from exc
    return HKDF(SHA256(), 32, salt, b"markcheck epoch key under a PIN 1").derive(slow + device_key)


def _map(data: bytes, fields: dict[str, type]) -> dict[str, Any] | None:
    """A map with exactly these fields of these types, in version 1 and with possible numbers; None for all else."""
    try:
        raw = cbor.decode(data)
    except CodeError:
        return None
    if type(raw) is not dict or {name: type(value) for name, value in raw.items()} != fields or raw["v"] != VERSION:
        return None
    sound = 0 <= raw["epoch"] <= MAX_NUMBER and 0 < raw["until"] <= _MAX_TIME
    return raw if sound and ("nonce" not in raw or len(raw["nonce"]) == 12) else None
