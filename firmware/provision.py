"""Provisioning: one signed file with all that makes a device this device, consumed once.

COSE_Sign1 in the strict profile, typ 65007, by the key that the root metadata name as `provisioning`: the root that the
device was given at its installation is the one thing it is trusted by. Payload: a CBOR map with text keys "v" (1), "id"
(16 bytes), "serial" (of the board; empty: any), "settings" (TOML), "centre" (https), "ca" (PEM), "code" (of the
enrolment) and "audit_key" (PEM; empty: none). The key of an epoch is never in it: a device fetches that with its
certificate, and what lies on a boot partition can be read by whoever has the card.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from tuf.api.metadata import Metadata, Root  # type: ignore[attr-defined]

from firmware.config import Home
from firmware.keeper import device_client, enrol_at, settle_on
from firmware.settings import CentreSettings, SettingsError, read_settings
from hw.power.sysfs import SYSFS
from verifier.clock import Clock
from verifier.codec import cbor
from verifier.codec.cose import parse_sign1
from verifier.durable import replace_file
from verifier.errors import CodeError, VerifierError
from verifier.identity import Certificate, Identity, IdentityError, IdentityFiles, check_ca
from verifier.net import is_base
from verifier.repository import check_root
from verifier.secret_files import read_secret, write_secret
from verifier.signature import verify_with
from verifier.types import Algorithm

TYP_PROVISION = 65007
ROOT_FIELD = "provisioning"  # of the root metadata: an Ed25519 public key in hex
MAX_FILE = 64 << 10  # bytes
ID_LENGTH = 16  # bytes

_FIELDS = {"v": int, "id": bytes, "serial": str, "settings": str, "centre": str, "ca": str, "code": str,
           "audit_key": str}  # fmt: skip
_SERIAL = "firmware/devicetree/base/serial-number"  # below /sys, as the Raspberry Pi's firmware writes it
_MAX_SERIAL = 64  # characters
_KEPT = 20  # numbers of consumed files


class ProvisionError(VerifierError):
    """A file that is not applied; nothing was changed. The text names no secret."""


class ConsumedError(ProvisionError):
    """A file that was applied before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioning:
    """What a verified file says; texts as they are written to the card."""

    id: bytes
    serial: str
    settings: str
    centre: str
    ca: str
    code: str = field(repr=False)
    audit_key: str = ""


# ------------------------------------------------------------------------------------------------- the file


def provisioning_key(root: bytes) -> bytes:
    """The public key (32 bytes, Ed25519) that these root metadata name; ProvisionError without one, SignatureError."""
    check_root(root)
    text = Metadata[Root].from_bytes(root).signed.unrecognized_fields.get(ROOT_FIELD)
    try:
        key = bytes.fromhex(text) if type(text) is str else b""
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ProvisionError("provisioning: this device's root names no key for it")
    return key


def provision_payload(values: Provisioning) -> bytes:
    """The payload to be signed; ProvisionError for one that no device would take."""
    texts = {name: getattr(values, name) for name in ("serial", "settings", "centre", "ca", "code", "audit_key")}
    data = cbor.encode({"v": 1, "id": values.id, **texts})
    _payload(data)
    return data


def read_provisioning(data: bytes, root: bytes) -> Provisioning:
    """Verify and read a file; ProvisionError says what is wrong with it, SignatureError what with the root."""
    key = provisioning_key(root)
    if len(data) > MAX_FILE:
        raise ProvisionError(f"provisioning: more than {MAX_FILE} bytes")
    try:
        signed = parse_sign1(data, (TYP_PROVISION,))
    except CodeError as exc:
        raise ProvisionError("provisioning: not a provisioning file") from exc
    public = Ed25519PublicKey.from_public_bytes(key)
    if signed.alg != Algorithm.EDDSA or not verify_with(public, signed.to_be_signed, signed.signature):
        raise ProvisionError("provisioning: the signature does not fit the root that this device was given")
    return _payload(signed.payload)


def _payload(data: bytes) -> Provisioning:
    try:
        raw: Any = cbor.decode(data)
    except CodeError as exc:
        raise ProvisionError("provisioning: not deterministic CBOR") from exc
    if type(raw) is not dict or {name: type(value) for name, value in raw.items()} != _FIELDS or raw.pop("v") != 1:
        raise ProvisionError("provisioning: not the fields of a version that this program knows")
    values = Provisioning(**raw)
    if len(values.id) != ID_LENGTH or len(values.serial) > _MAX_SERIAL:
        raise ProvisionError("provisioning: number or serial number of a wrong length")
    if not (values.centre.startswith("https://") and is_base(values.centre)):
        raise ProvisionError("provisioning: centre: an https address is needed")
    try:
        read_settings(values.settings)
        check_ca(values.ca.encode())
        if values.audit_key and not isinstance(load_pem_public_key(values.audit_key.encode()), X25519PublicKey):
            raise ProvisionError("provisioning: audit_key: not an X25519 key")
    except SettingsError as exc:
        raise ProvisionError(f"provisioning: settings: {exc}") from exc
    except IdentityError as exc:
        raise ProvisionError("provisioning: ca: not a certificate") from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ProvisionError("provisioning: audit_key: not a public key in PEM") from exc
    return values


def board_serial(sysfs: Path = SYSFS) -> str:
    """The board's serial number; "" where the firmware tells none."""
    try:
        with (sysfs / _SERIAL).open("rb") as file:
            return file.read(_MAX_SERIAL + 1).rstrip(b"\0\n").decode("ascii")
    except (OSError, UnicodeDecodeError):
        return ""


# ------------------------------------------------------------------------------------------------- applying it


class Provisioner:
    """One device that may be provisioned: its home, its settings file, the root it was given. OSError throughout."""

    def __init__(self, home: Home, config: Path, root: bytes, clock: Clock, run: Path | None, serial: str) -> None:
        self._home, self._config, self._root, self._clock, self._run = home, config, root, clock, run
        self._serial = serial
        self._files = IdentityFiles(home.ca, home.certificate, home.device_key)

    def apply(self, data: bytes) -> Certificate:
        """Check everything, then write it and enrol; the file is consumed when all of that is done.

        ProvisionError, ConsumedError, SignatureError: nothing was changed. IdentityError, when the centre gives no
        certificate: settings and root are in place, and the same file may be applied again.
        """
        values = read_provisioning(data, self._root)
        notes = self._notes()
        if values.id.hex() in notes["consumed"]:
            raise ConsumedError("provisioning: this file was applied before")
        if values.serial and values.serial != self._serial:
            raise ProvisionError("provisioning: this file is for another device")
        held = read_secret(self._home.root)
        if held not in (None, self._root):
            raise ProvisionError("provisioning: this device's data were made with another root: wipe it first")
        self._home.folder.mkdir(parents=True, exist_ok=True)
        if notes["begun"][:1] != [values.id.hex()]:
            notes["begun"] = [values.id.hex(), self._certificate_digest()]
            self._note(notes)
        self._write(values, held)
        certificate = self._enrolled(values, notes["begun"][1])
        self._note({"consumed": [*notes["consumed"][-_KEPT:], values.id.hex()], "begun": []})
        return certificate

    def _write(self, values: Provisioning, held: bytes | None) -> None:
        if held is None:
            write_secret(self._home.root, self._root)
        if values.audit_key:
            write_secret(self._home.audit_key, values.audit_key.encode())
        replace_file(self._config, values.settings.encode())
        CentreSettings(self._home.folder).forget()  # they were for the device that it was

    def _enrolled(self, values: Provisioning, digest_before: str) -> Certificate:
        """The certificate; the one there is where an earlier run got it and was cut off before it could say so."""
        made = Identity(self._files, device_client(values.centre, self._files), self._clock).certificate()
        if made is not None and self._certificate_digest() != digest_before:
            settle_on(self._home, values.centre, values.ca.encode())
            return made
        return enrol_at(self._home, values.centre, values.ca.encode(), values.code, self._clock, self._run)

    def _certificate_digest(self) -> str:
        return hashlib.sha256(read_secret(self._home.certificate) or b"").hexdigest()

    @property
    def _noted(self) -> Path:
        return self._home.folder / "provisioned.json"

    def _notes(self) -> dict[str, list[str]]:
        """The files that were applied, and the one that was begun with the certificate of that moment."""
        try:
            raw = json.loads(read_secret(self._noted) or b"{}")
            notes = {name: [str(item) for item in raw.get(name, [])] for name in ("consumed", "begun")}
        except (ValueError, AttributeError, TypeError, RecursionError) as exc:
            raise ProvisionError(f"provisioning: {self._noted.name} is damaged: remove it by hand") from exc
        return notes if len(notes["begun"]) == 2 else notes | {"begun": []}

    def _note(self, notes: dict[str, list[str]]) -> None:
        write_secret(self._noted, json.dumps(notes).encode())
