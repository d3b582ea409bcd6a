"""Who may give orders at the serial console: a challenge, and an answer that only a technician's key can give.

Neither a password nor a key is ever typed here, and an answer is good for one challenge. A try is counted on the disk
before it is made, as with the officers' PINs.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from verifier.errors import VerifierError
from verifier.secret_files import read_secret, write_secret
from verifier.types import Code

FREE_TRIES = 5
FIRST_DELAY = timedelta(seconds=30)  # after the fifth wrong answer; doubles with each further one
LONGEST_DELAY = timedelta(hours=1)  # whoever is at the plug can lock the console for that long, and no longer
IDLE_S = 300.0
CHALLENGE_S = 600.0  # in which an answer counts
MOST_KEYS = 16

_PURPOSE = b"markcheck console login 1"
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: none that is taken for another
_LENGTH = 16  # letters of a nonce and of a typed answer: 80 bits (RFC 2104 clause 5)
_SECRET = 32  # bytes
NAME = re.compile(r"[a-z0-9-]{1,20}")
_SAME = str.maketrans("OILU", "011V", "- ")


class LoginFault(Code):
    """Why somebody is not let in."""

    WRONG = "the answer is wrong"
    WAIT = "too many wrong answers"
    NO_KEYS = "no technician's key was given to this device"
    NO_CHALLENGE = "the challenge is over: ask for a new one"
    NOT_COUNTED = "the try cannot be counted on the card"


class LoginError(VerifierError):
    """Not let in; `wait` says for how long no try counts."""

    def __init__(self, fault: LoginFault, wait: timedelta = timedelta(0)) -> None:
        super().__init__(f"login: {fault.value}")
        self.fault, self.wait = fault, wait


class ConsoleKeyError(VerifierError):
    """A file of technicians' keys that cannot be used; the text names the line."""


class KeyKind(Code):
    """How a technician answers."""

    HMAC = "hmac-sha256"  # 16 letters, typed
    ED25519 = "ed25519"  # a signature, pasted


@dataclass(frozen=True, slots=True)
class Challenge:
    """What is to be answered: made for one login at one device."""

    device: str
    nonce: str

    def message(self) -> bytes:
        """The bytes that are signed."""
        return b"|".join((_PURPOSE, self.device.encode(), self.nonce.encode()))


def new_challenge(device: str) -> Challenge:
    """With a nonce of 80 bits."""
    return Challenge(device, "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH)))


def read_nonce(text: str) -> str:
    """The nonce as somebody typed it off a console, letters taken for others as in an answer; ValueError."""
    nonce = text.upper().translate(_SAME)
    if len(nonce) != _LENGTH or not set(nonce) <= set(_LETTERS):
        raise ValueError(f"not the {_LENGTH} letters that a console shows")
    return nonce


@dataclass(frozen=True, slots=True)
class ConsoleKey:
    """One technician's: the shared secret, or the public key."""

    name: str
    kind: KeyKind
    key: bytes = field(repr=False)

    def answered(self, challenge: Challenge, answer: str) -> bool:
        """Whether this is the answer."""
        if self.kind is KeyKind.HMAC:
            typed = answer.upper().translate(_SAME)
            return hmac.compare_digest(hmac_answer(self.key, challenge).encode(), typed.encode())
        try:
            signature = base64.b64decode("".join(answer.split()), validate=True)
        except ValueError:
            return False
        return _signed(self.key, signature, challenge.message())

    def line(self) -> str:
        """As it stands in the file."""
        return f"{self.kind.value} {self.name} {base64.b64encode(self.key).decode('ascii')}"


def _signed(key: bytes, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - the console starts without it
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def hmac_answer(secret: bytes, challenge: Challenge) -> str:
    """The first 80 bits of HMAC-SHA-256 (RFC 2104) as 16 letters."""
    number = int.from_bytes(hmac.digest(secret, challenge.message(), hashlib.sha256)[:10], "big")
    return "".join(_LETTERS[number >> shift & 31] for shift in range(75, -5, -5))


def load_console_keys(path: Path) -> tuple[ConsoleKey, ...]:
    """The keys in a file, none without it: on each line a kind, a name, and the key in base64; ConsoleKeyError."""
    try:
        data = read_secret(path)
        text = (data or b"").decode("ascii")
    except OSError as exc:
        raise ConsoleKeyError(f"console keys: cannot be read: {exc.strerror or 'too long'}") from exc
    except UnicodeDecodeError as exc:
        raise ConsoleKeyError("console keys: not plain text") from exc
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1)]
    keys = tuple(_key(number, words) for number, words in lines if words and not words[0].startswith("#"))
    if len(keys) > MOST_KEYS or len({key.name for key in keys}) < len(keys):
        raise ConsoleKeyError(f"console keys: more than {MOST_KEYS}, or one name twice")
    return keys


def _key(number: int, words: list[str]) -> ConsoleKey:
    try:
        kind, name, text = words
        key = ConsoleKey(name, KeyKind(kind), base64.b64decode(text, validate=True))
    except ValueError as exc:
        raise ConsoleKeyError(f"console keys: line {number}: not a kind, a name and a key") from exc
    if NAME.fullmatch(name) is None or len(key.key) != _SECRET:
        raise ConsoleKeyError(f"console keys: line {number}: a name of a-z, 0-9 and -, and a key of {_SECRET} bytes")
    return key


# ----------------------------------------------------------------------------------------------------- tries


@dataclass(frozen=True, slots=True)
class Tries:
    """Wrong answers so far, and when the last one was given (POSIX seconds)."""

    failed: int = 0
    failed_at: float = 0.0

    def wait(self, now: datetime) -> timedelta:
        """How long no try counts. A clock that was set back waits for one whole delay, and not for ever."""
        if self.failed < FREE_TRIES:
            return timedelta(0)
        delay = min(FIRST_DELAY * (1 << min(self.failed - FREE_TRIES, 20)), LONGEST_DELAY)
        since = timedelta(seconds=now.timestamp() - self.failed_at)
        return min(delay, max(timedelta(0), delay - since))


def read_tries(path: Path, now: datetime) -> Tries:
    """What the file says; of one that cannot be read, that all free tries were used up just now."""
    try:
        data = read_secret(path)
        if data is None:
            return Tries()
        raw = json.loads(data)
        tries = Tries(raw["failed"], raw["failed_at"])
        if type(tries.failed) is int and 0 <= tries.failed < 1 << 32 and type(tries.failed_at) is float:
            tries.wait(now)
            return tries
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        pass
    tries = Tries(FREE_TRIES, now.timestamp())
    with suppress(OSError):  # so that the delay ends
        keep_tries(path, tries)
    return tries


def keep_tries(path: Path, tries: Tries) -> None:
    """See them to the disk; OSError."""
    write_secret(path, json.dumps({"failed": tries.failed, "failed_at": tries.failed_at}).encode() + b"\n")


# ------------------------------------------------------------------------------------------------------ login


class Login:
    """Who is logged in on this line: nobody at first, nor after five minutes without a line, nor in a new process."""

    def __init__(
        self, device: str, keys: Path, tries: Path, *, clock: Callable[[], datetime], now_s: Callable[[], float]
    ) -> None:
        """`clock` is the wall clock of the delays, which outlive a restart; `now_s` never goes back."""
        self._device, self._keys, self._tries = device, keys, tries
        self._clock, self._now_s = clock, now_s
        self._challenge: tuple[Challenge, float] | None = None
        self._active_s = now_s()
        self._name: str | None = None
        self.was_away = False  # nobody is logged in because nothing was typed for too long

    @property
    def technician(self) -> str | None:
        """Who is logged in."""
        if self._name is not None and self._now_s() - self._active_s >= IDLE_S:
            self._name, self.was_away = None, True
        return self._name

    def active(self) -> None:
        """A line was typed, or its command has ended; does not bring back who was away too long."""
        if self.technician is not None:
            self._active_s = self._now_s()

    def challenge(self) -> Challenge:
        """A new one, in place of the one before; LoginError, ConsoleKeyError."""
        if not load_console_keys(self._keys):
            raise LoginError(LoginFault.NO_KEYS)
        self._may_try()
        challenge = new_challenge(self._device)
        self._challenge = challenge, self._now_s()
        return challenge

    def answer(self, text: str) -> str:
        """Let somebody in, by name; LoginError, ConsoleKeyError. Each challenge takes one answer."""
        asked, self._challenge = self._challenge, None
        if asked is None or self._now_s() - asked[1] >= CHALLENGE_S:
            raise LoginError(LoginFault.NO_CHALLENGE)
        keys, tries = load_console_keys(self._keys), self._may_try()
        now = self._clock()
        tried = Tries(tries.failed + 1, now.timestamp())
        self._keep(tried)
        found = [key.name for key in keys if key.answered(asked[0], text)]
        if not found:
            raise LoginError(LoginFault.WRONG, tried.wait(now))
        self._keep(Tries())
        self._name, self._active_s, self.was_away = found[0], self._now_s(), False
        return found[0]

    def end(self) -> None:
        """Nobody is logged in any more."""
        self._name = self._challenge = None
        self.was_away = False

    def _may_try(self) -> Tries:
        now = self._clock()
        tries = read_tries(self._tries, now)
        if (wait := tries.wait(now)) > timedelta(0):
            raise LoginError(LoginFault.WAIT, wait)
        return tries

    def _keep(self, tries: Tries) -> None:
        try:
            keep_tries(self._tries, tries)
        except OSError as exc:
            raise LoginError(LoginFault.NOT_COUNTED) from exc
