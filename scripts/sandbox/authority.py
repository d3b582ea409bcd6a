"""The sandbox authority: register, issuer and publisher as one object.

Kept in memory for tests, or in a folder so that several commands can speak of the same authority:

    FOLDER/private/   authority.json, keys of all generations (mode 0600), epoch.key, holder.key, events.jsonl
    FOLDER/public/    what a web server hands out
    FOLDER/root.json  the root that a device is given once, by hand
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from scripts.sandbox.fleet import CITIES, IssueReason, Vehicle, fleet
from scripts.sandbox.folder_store import FolderStore
from scripts.sandbox.issuer import NATIONAL, Extras, Issuer, issuing_keys
from scripts.sandbox.keys import (
    SigningKey,
    holder_signer,
    load_key,
    load_next_key,
    load_status_key,
    next_key,
    save_keys,
    save_next_key,
    status_key,
)
from scripts.sandbox.publisher import Published, Publisher
from scripts.sandbox.publisher_keys import PublisherKeys
from scripts.sandbox.regions import NATIONAL as NATIONAL_REGION
from scripts.sandbox.regions import Region
from scripts.sandbox.registry import STATUS_LIST, Registry, RegistryError, regions_of
from scripts.sandbox.tags import (
    PersonalisedTag,
    TagForm,
    bind_tag,
    new_tag_keys,
    personalised,
    replace_tag,
    tag_keys,
    unbind_tag,
)
from verifier.clock import Clock
from verifier.codec.hot import HotList
from verifier.codec.status import pack
from verifier.durable import replace_file
from verifier.policy import Policy, dump_policy, load_policy
from verifier.secret_files import write_secret
from verifier.types import SHANGHAI, Credential, KeyRole, KeyState, Month, Plate, PresentationMode, VehicleRecord

STATUS_BITS = 2
KEY_EPOCH = 1
SEED_LENGTH = 32  # bytes
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the fleet is made from: the same values give the same vehicles."""

    scale: int
    seed: int
    began: datetime


class Authority:
    """Issues credentials, changes the register and publishes the signed distribution."""

    def __init__(
        self,
        made_from: Fleet,
        *,
        clock: Clock,
        issuer: Issuer,
        store: MutableMapping[str, bytes],
        publisher_keys: PublisherKeys | None = None,
        epoch_key: bytes,
        holder_seed: bytes | None = None,
        policy: Policy | None = None,
        registry: Registry | None = None,
        tag_keys: Mapping[str, SigningKey] | None = None,
    ) -> None:
        today = made_from.began.astimezone(SHANGHAI).date()
        self.registry = registry or Registry(fleet(made_from.scale, made_from.seed, today), made_from.seed)
        self.made_from = made_from
        self.clock = clock
        self.issuer = issuer
        self.store = store
        self.publisher = Publisher(store, clock, keys=publisher_keys, sealed=True)
        self.epoch_key = epoch_key
        self.holder_seed = holder_seed or secrets.token_bytes(SEED_LENGTH)
        self.policy = policy or Policy()
        self.trust_version = 1
        self.status_key: SigningKey | None = None
        self.tag_keys = dict(tag_keys or {})  # by issuer code

    def vehicle(self, plate: Plate) -> Vehicle:
        """The vehicle with this plate; RegistryError when there is none."""
        return self.registry.vehicle(plate)

    def credential(self, plate: Plate, mode: PresentationMode, issued_at: datetime | None = None) -> Credential:
        """The claims of the vehicle's credential in force, issued now or at another moment."""
        entry = self.registry.credential(plate)
        return self.issuer.credential(self.vehicle(plate), entry, mode, issued_at or self.clock())

    def text(
        self,
        plate: Plate,
        mode: PresentationMode,
        issued_at: datetime | None = None,
        *,
        by_holder: bool = False,
        encrypted: bytes | None = None,
    ) -> str:
        """The text of the vehicle's code, with the reason of its issue; a live one is shown now.

        `by_holder` lets the phone's own key sign a live one; `encrypted` is a block for the server.
        """
        credential, reason = self.credential(plate, mode, issued_at), self.vehicle(plate).issue_reason
        if not by_holder:
            extras = Extras(reason=reason, encrypted=encrypted)
            return self.issuer.text(credential, shown_at=self.clock(), extras=extras)
        if mode is not PresentationMode.LIVE:
            raise ValueError("a holder signs live presentations only")
        holder = holder_signer(self.holder_seed, credential.serial)
        signed = self.issuer.sign(credential, extras=Extras(reason=reason, holder=holder.public, encrypted=encrypted))
        return self.issuer.present_by_holder(signed, holder, self.clock())

    def next_key(self, issuer: str) -> SigningKey:
        """A fresh key for this issuer, to sign from now on; RegistryError when there is no such issuer."""
        if issuer not in self.issuer.keys:
            raise RegistryError("no such issuer: the code of a pilot city, or 000000 for the platform")
        return next_key(self.issuer.keys[issuer], int(self.clock().timestamp()))

    def replace_key(self, new: SigningKey, state: KeyState) -> None:
        """Let `new` sign for its issuer and put the key before it into `state`: RETIRED or COMPROMISED.

        What a compromised key signed is refused everywhere, so all vehicles of its city get new credentials.
        RegistryError when the key to replace begins later.
        """
        try:
            self.issuer.replace_key(new, state)
        except ValueError as exc:
            raise RegistryError(f"{exc}: is the clock right?") from exc
        self.trust_version += 1
        if state is KeyState.COMPROMISED:
            self.registry.reissue_city(new.entry.issuer)

    def begin_status(self, key: SigningKey) -> None:
        """Let this key sign the status server's answers and orders from now on; one before it counts no more."""
        self.status_key = key
        self.trust_version += 1

    def trust_entries(self) -> bytes:
        """The trust list to publish: the issuers' keys, those for tags, and that of the status server if there is."""
        return self.issuer.trust_entries(
            [*self.tag_keys.values(), *([] if self.status_key is None else [self.status_key])]
        )

    def tag(self, plate: Plate, form: TagForm = TagForm.TC1, issued_at: datetime | None = None) -> PersonalisedTag:
        """The memory of the vehicle's tag, written now or at another moment; RegistryError when it has none."""
        return personalised(self.registry, self.tag_keys, plate, issued_at or self.clock(), form)

    def withdraw_key(self, issuer: str, kid: str) -> None:
        """A key that signs no more was stolen: refuse it too, for a thief chooses his dates. RegistryError."""
        if not self.issuer.withdraw(issuer, kid):
            raise RegistryError("no retired key with this id: see 'markcheck trust'")
        self.trust_version += 1
        self.registry.reissue_city(issuer)

    def publish(
        self,
        progress: Progress | None = None,
        *,
        region: Region = NATIONAL_REGION,
        snapshot: bool = False,
        accept_large: bool = False,
        fewer_keys: bool = False,
    ) -> Published:
        """Publish what the register has of a region: delta or snapshot, status list, trust list, policy, index.

        The options are those of `Publisher.publish`; PublicationError as there.
        """
        return self._publisher(region).publish(
            vehicles=self._records(region),
            status_list=pack(self.registry.states, STATUS_BITS),
            status_list_number=STATUS_LIST,
            replated=self.registry.replated,
            entries=self.trust_entries(),
            trust_version=self.trust_version,
            policy=dump_policy(self.policy),
            policy_version=self.policy.version,
            epoch_key=self.epoch_key,
            key_epoch=KEY_EPOCH,
            scope=region.scope,
            covers=region.covers,
            snapshot=snapshot,
            # At the turn of a month a place's list grows by a month's vehicles, which is few of those of the place.
            fleet=None if region.overdue is None else self._rows(region.overdue),
            accept_large=accept_large,
            fewer_keys=fewer_keys,
            progress=progress,
        )

    def publish_hot(self, progress: Progress | None = None, *, region: Region = NATIONAL_REGION) -> HotList:
        """Publish all changes of the register since a region's last night as its hot list. PublicationError."""
        publisher = self._publisher(region)
        rows = publisher.hot_changes(
            vehicles=self._records(region), epoch_key=self.epoch_key, key_epoch=KEY_EPOCH, progress=progress
        )
        return publisher.publish_hot(rows, self.epoch_key)

    def publish_trust(self, *, fewer_keys: bool = False) -> None:
        """Publish the trust list and the policy alone, between two nights; RegistryError before the first night."""
        if not self.publisher.begun:
            raise RegistryError("nothing is published yet: make the first publication with 'markcheck sandbox publish'")
        self.publisher.publish_trust(
            entries=self.trust_entries(),
            trust_version=self.trust_version,
            policy=dump_policy(self.policy),
            policy_version=self.policy.version,
            fewer_keys=fewer_keys,
        )

    def _publisher(self, region: Region) -> Publisher:
        return self.publisher if region == NATIONAL_REGION else self.publisher.of_region(region.name)

    def _rows(self, prefix: str) -> int:
        """How many rows all vehicles have whose plates begin so: one each, and two for a tag."""
        vehicles = tuple(self.registry.vehicles.values())
        return sum(1 if v.tid is None else 3 for v in vehicles if v.plate.text.startswith(prefix))

    def _records(self, region: Region) -> Iterator[tuple[VehicleRecord, str | None]]:
        month = Month.at(self.clock())
        for vehicle in tuple(self.registry.vehicles.values()):  # another thread may carry out an event meanwhile
            record = vehicle.record()
            if region.holds(record, month):
                yield record, vehicle.tid


def new_authority(
    store: MutableMapping[str, bytes],
    *,
    clock: Clock,
    scale: int,
    seed: int,
    policy: Policy | None = None,
) -> Authority:
    """A fresh authority with fresh keys, publishing into `store`."""
    now = clock()
    return Authority(
        Fleet(scale, seed, now),
        clock=clock,
        issuer=Issuer(issuing_keys(now)),
        store=store,
        epoch_key=secrets.token_bytes(32),
        policy=policy,
        tag_keys=new_tag_keys(now),
    )


# --------------------------------------------------------------------------------------- kept in a folder

EVENTS: dict[str, Callable[[Registry, dict[str, Any]], object]] = {
    "revoke": lambda registry, e: registry.revoke(_plate(e)),
    "renew": lambda registry, e: registry.renew(
        _plate(e), Month.parse(e["until"]), IssueReason(e.get("reason", IssueReason.INSPECTION))
    ),
    "lapse": lambda registry, e: registry.lapse(_plate(e), Month.parse(e["until"])),
    "status": lambda registry, e: registry.set_status(_plate(e), e["letters"]),
    "replate": lambda registry, e: registry.replate(_plate(e), Plate(e["new_plate"], e["new_kind"])),
    "register": lambda registry, e: registry.register(
        registry.newcomer(_plate(e), Month.parse(e["until"]), date.fromisoformat(e["day"]))
    ),
    "reissue": lambda registry, e: registry.reissue(_plate(e)),
    "transfer": lambda registry, e: registry.transfer(_plate(e)),
    "lost-paper": lambda registry, e: registry.lost_paper(_plate(e)),
    "bind-tag": lambda registry, e: bind_tag(registry, _plate(e), e["tid"]),
    "replace-tag": lambda registry, e: replace_tag(registry, _plate(e), e["tid"]),
    "unbind-tag": lambda registry, e: unbind_tag(registry, _plate(e)),
}
"""What happens to a vehicle."""

KEY_EVENTS = {"rotate-key": KeyState.RETIRED, "compromise-key": KeyState.COMPROMISED}
"""What happens to an issuer's key, and the state that it goes into; a new key follows it."""

STATUS_KEY = "status-key"
"""The event that a status server gets its key; whoever serves one records it, so it has no command."""

POLICY = "policy"
"""The event that there is another policy, which is in it."""


def _plate(event: dict[str, Any]) -> Plate:
    return Plate(event["plate"], event["kind"])


class AuthorityFolder:
    """An authority that several commands share. Private keys lie in FOLDER/private, for this sandbox only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.private = folder / "private"
        self.public = folder / "public"
        self.root_file = folder / "root.json"
        self.epoch_key_file = self.private / "epoch.key"
        self.events_file = self.private / "events.jsonl"
        self._holder_file = self.private / "holder.key"

    def exists(self) -> bool:
        """Whether an authority was made here."""
        return (self.private / "authority.json").is_file()

    def create(self, *, clock: Clock, scale: int, seed: int) -> Authority:
        """Make a fresh authority and keep it here: all of it or nothing, so that an interruption costs nothing."""
        if self.folder.exists() and any(self.folder.iterdir()):
            raise RegistryError(f"{self.folder} is neither empty nor a sandbox authority")
        begun = AuthorityFolder(self.folder.with_name(f"{self.folder.name}.new"))
        shutil.rmtree(begun.folder, ignore_errors=True)
        authority = new_authority(FolderStore(begun.public), clock=clock, scale=scale, seed=seed)
        begun._write(authority)
        begun.folder.replace(self.folder)
        return self.open(clock=clock, registry=authority.registry)

    def _write(self, authority: Authority) -> None:
        self.private.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.private / ".gitignore").write_text("*\n")  # wherever the folder stands, its keys are committed by nobody
        save_keys(self.private, [*authority.issuer.keys.values(), *authority.tag_keys.values()])
        authority.publisher.save_keys(self.private / "tuf")
        write_secret(self.epoch_key_file, authority.epoch_key.hex().encode() + b"\n")
        write_secret(self._holder_file, authority.holder_seed.hex().encode() + b"\n")
        self.root_file.write_bytes(authority.publisher.root_bytes())
        made_from = authority.made_from
        facts = {"scale": made_from.scale, "seed": made_from.seed, "began": made_from.began.isoformat()}
        replace_file(self.private / "authority.json", json.dumps(facts).encode() + b"\n")

    def open(self, *, clock: Clock, registry: Registry | None = None) -> Authority:
        """The authority kept here, with all events so far; RegistryError when there is none.

        `registry` spares making the same vehicles again.
        """
        if not self.exists():
            raise RegistryError(f"no sandbox authority in {self.folder}: make one with 'markcheck sandbox publish'")
        state = json.loads((self.private / "authority.json").read_text())
        made_from = Fleet(state["scale"], state["seed"], datetime.fromisoformat(state["began"]))
        authority = Authority(
            made_from,
            clock=clock,
            issuer=Issuer(self._issuing_keys(made_from.began)),
            store=FolderStore(self.public),
            publisher_keys=PublisherKeys.load(self.private / "tuf"),
            epoch_key=bytes.fromhex(self.epoch_key_file.read_text().strip()),
            holder_seed=self._holder_seed(),
            registry=registry,
            tag_keys=tag_keys(self.private, made_from.began),
        )
        for event in self._events():
            self.repeat(authority, event)
        return authority

    def repeat(self, authority: Authority, event: dict[str, Any]) -> None:
        """Carry out again what was recorded here: everything is made from the events, nothing is stored twice."""
        name = event["event"]
        if name == STATUS_KEY:
            authority.begin_status(self._status_key(event))
        elif name == POLICY:
            authority.policy = load_policy(json.dumps(event["policy"]).encode())
        elif name not in KEY_EVENTS:
            EVENTS[name](authority.registry, event)
        elif "stolen" in event:
            authority.withdraw_key(event["issuer"], event["stolen"])
        else:
            authority.replace_key(self._recorded_key(authority, event), KEY_EVENTS[name])

    def _recorded_key(self, authority: Authority, event: dict[str, Any]) -> SigningKey:
        try:
            return load_next_key(self.private, authority.issuer.keys[event["issuer"]], event["kid"], event["at"])
        except ValueError as exc:
            raise RegistryError(str(exc)) from exc

    def _status_key(self, event: dict[str, Any]) -> SigningKey:
        try:
            return load_status_key(self.private, event["issuer"], event["kid"], event["at"])
        except ValueError as exc:
            raise RegistryError(str(exc)) from exc

    def record(self, authority: Authority, event: dict[str, Any]) -> None:
        """Carry a vehicle's event out and keep it; RegistryError when the register refuses it: nothing is kept then."""
        EVENTS[event["event"]](authority.registry, event)
        self._keep(event)

    def record_key(self, authority: Authority, name: str, issuer: str) -> None:
        """Carry one of KEY_EVENTS out with a fresh key and keep both; RegistryError, and then nothing is kept."""
        new = authority.next_key(issuer)
        authority.replace_key(new, KEY_EVENTS[name])
        save_next_key(self.private, new)  # before the event that needs it
        self._keep({"event": name, "issuer": issuer, "at": new.entry.not_before, "kid": new.entry.key_id})

    def record_status_key(self, clock: Clock) -> None:
        """Make and keep a fresh key for a status server; an authority has it once it carries the event out."""
        new = status_key(NATIONAL, int(clock().timestamp()))
        save_next_key(self.private, new)  # before the event that needs it
        self._keep({"event": STATUS_KEY, "issuer": NATIONAL, "at": new.entry.not_before, "kid": new.entry.key_id})

    def record_policy(self, authority: Authority, data: bytes) -> None:
        """Carry out and keep that this is the policy from now on. PolicyError; RegistryError for no higher version."""
        policy = load_policy(data)
        if policy.version <= authority.policy.version:
            raise RegistryError(f"policy: version {authority.policy.version} is in force: give it a higher one")
        event = {"event": POLICY, "policy": json.loads(dump_policy(policy))}
        self.repeat(authority, event)
        self._keep(event)

    def record_stolen(self, authority: Authority, issuer: str, kid: str) -> None:
        """Carry out and keep that a key which signs no more was stolen; RegistryError, and then nothing is kept."""
        authority.withdraw_key(issuer, kid)
        at = int(authority.clock().timestamp())
        self._keep({"event": "compromise-key", "issuer": issuer, "at": at, "stolen": kid})

    def _keep(self, event: dict[str, Any]) -> None:
        with self.events_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _events(self) -> Iterator[dict[str, Any]]:
        path = self.events_file
        if path.exists():
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                try:
                    event = json.loads(line)
                except ValueError as exc:
                    raise RegistryError(f"{path.name}: line {number} is not a whole event: take it out") from exc
                yield event

    def _holder_seed(self) -> bytes:
        """The secret behind the holders' keys; made here for a folder from before there was one."""
        if not self._holder_file.exists():
            write_secret(self._holder_file, secrets.token_bytes(SEED_LENGTH).hex().encode() + b"\n")
        return bytes.fromhex(self._holder_file.read_text().strip())

    def _issuing_keys(self, began: datetime) -> dict[str, SigningKey]:
        keys = {
            city.code: load_key(
                self.private, issuer=city.code, regions=regions_of(city), role=KeyRole.CREDENTIAL, begin=began
            )
            for city in CITIES
        }
        keys[NATIONAL] = load_key(self.private, issuer=NATIONAL, regions=("*",), role=KeyRole.FRESHNESS, begin=began)
        return keys
