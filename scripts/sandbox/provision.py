"""Provisioning files of the sandbox (`firmware.provision`): made and signed."""

from __future__ import annotations

import secrets

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from firmware.provision import ID_LENGTH, TYP_PROVISION, Provisioning, provision_payload, provisioning_key
from scripts.sandbox.publisher import Publisher
from scripts.sandbox.publisher_keys import PROVISIONING
from scripts.sandbox.registry import RegistryError
from verifier.codec.cose import join, protected_header, sig_structure
from verifier.trust import key_id
from verifier.types import Algorithm


def make_provisioning(
    publisher: Publisher, *, settings: str, centre: str, ca: str, code: str, serial: str = "", audit_key: str = ""
) -> bytes:
    """A signed file for one device; ProvisionError for what no device would take.

    RegistryError where the authority's root names no key for it.
    """
    key = publisher.private_key(PROVISIONING)
    if provisioning_key(publisher.root_bytes()) != key.public_key().public_bytes_raw():
        raise RegistryError("the root names another key for provisioning: make a new authority")
    values = Provisioning(
        id=secrets.token_bytes(ID_LENGTH), serial=serial, settings=settings, centre=centre, ca=ca, code=code,
        audit_key=audit_key,
    )  # fmt: skip
    return sign_provisioning(provision_payload(values), key)


def sign_provisioning(payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """The payload as a COSE_Sign1."""
    kid = key_id(Algorithm.EDDSA, key.public_key().public_bytes_raw())
    protected = protected_header(Algorithm.EDDSA, kid, TYP_PROVISION)
    return join(protected, payload, key.sign(sig_structure(protected, payload)))
