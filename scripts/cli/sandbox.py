"""`markcheck sandbox`: an authority with made-up vehicles, for demos, training and tests."""

from __future__ import annotations

import ipaddress
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path

import click

from scripts.cli.console import FILE, json_option, print_json, problem, progress_bar
from scripts.cli.sandbox_devices import device, open_books, reports
from scripts.cli.sandbox_event import event
from scripts.cli.sandbox_issue_all import issue_everyone
from scripts.cli.sandbox_options import FOLDER, plate_option, typed_plate
from scripts.cli.sandbox_release import release
from scripts.sandbox.authority import Authority, AuthorityFolder
from scripts.sandbox.codes import PaperMark, card_number, print_sheet, print_tag_label, qr_picture
from scripts.sandbox.device_ca import DeviceCa, ca_file
from scripts.sandbox.fleet import MAX_SCALE, Vehicle
from scripts.sandbox.follow import LiveAuthority
from scripts.sandbox.issue_sources import is_valid
from scripts.sandbox.nightly import PublicationError
from scripts.sandbox.regions import NATIONAL, Region, region_of
from scripts.sandbox.registry import ACTIVE, RegistryError
from scripts.sandbox.republish import Republisher
from scripts.sandbox.server import serve as serve_files
from scripts.sandbox.server import serve_answers
from scripts.sandbox.status_http import serve_https
from scripts.sandbox.status_server import ROUTES, StatusService
from scripts.sandbox.wallet import Wallet
from verifier.clock import system_clock
from verifier.types import SHANGHAI, Month, PresentationMode

DEFAULT_SCALE = 20_000
PORT = 8122
WALLET_PORT = 8123
STATUS_PORT = 8124
POLL_S = 1.0  # how often the folder is looked at for new events
MODES = {mode.value: mode for mode in PresentationMode}


@click.group()
def sandbox() -> None:
    """An authority with made-up vehicles: issues credentials, publishes and serves the signed distribution.

    \b
    Examples:
      markcheck sandbox serve                          make one if there is none, publish, serve on this machine
      markcheck sandbox issue --mode stored --out code.png
      markcheck sandbox issue-all --out shards         a credential for every valid vehicle, for the push
      markcheck sandbox event revoke --plate 京N5U677
      markcheck sandbox publish                        publish what has changed

    Its format is a documented reference format, not that of any real platform. Its private keys lie in
    FOLDER/private: keep that folder off every device.
    """


def _open_or_create(folder: AuthorityFolder, scale: int | None, seed: int | None) -> Authority:
    if folder.exists():
        if scale is not None or seed is not None:
            raise click.UsageError(f"{folder.folder} holds an authority already: --scale and --seed make a new one")
        return folder.open(clock=system_clock)
    click.echo(f"making a new authority in {folder.folder}", err=True)
    seed = 1 if seed is None else seed
    return folder.create(clock=system_clock, scale=scale or DEFAULT_SCALE, seed=seed)


def _publish(authority: Authority, region: Region = NATIONAL, **options: bool) -> None:
    began = time.monotonic()
    with progress_bar() as progress:
        published = authority.publish(progress, region=region, **options)
    how = f"snapshot ({published.snapshot})" if published.snapshot else f"delta of {published.delta_length:,} bytes"
    changed = "" if published.rows is None else f", {published.rows:,} rows changed"
    where = "" if region == NATIONAL else f" of {region.name}"
    click.echo(
        f"published no. {published.seq}{where}: {published.vehicles:,} vehicles, {how}{changed}, "
        f"in {time.monotonic() - began:.1f} s",
        err=True,
    )


def _prune(authority: Authority, *, dry_run: bool = False) -> list[str]:
    paths = authority.publisher.prune(dry_run=dry_run)
    if paths:
        what = "would be" if dry_run else "were"
        click.echo(f"{len(paths):,} files that no publication within the retention names {what} removed", err=True)
    return paths


def _publish_hot(authority: Authority, region: Region) -> None:
    with progress_bar() as progress:
        hot = authority.publish_hot(progress, region=region)
    click.echo(
        f"published hot list no. {hot.hot_seq} on top of no. {hot.nightly_seq}: {hot.count:,} "
        f"rows, the next is due {hot.next_update.isoformat(timespec='minutes')}",
        err=True,
    )


def _publish_files(folder: AuthorityFolder, policy: Path | None, settings: Path | None) -> None:
    authority = folder.open(clock=system_clock)
    if policy is not None:
        folder.record_policy(authority, policy.read_bytes())
        authority.publish_trust()
        click.echo(f"published policy {authority.policy.label}", err=True)
    if settings is not None:
        version = authority.publisher.publish_settings(settings.read_bytes())
        click.echo(f"published settings version {version}", err=True)


def _region(_: click.Context, __: click.Parameter, value: str) -> Region:
    try:
        return region_of(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc


_SCALE = click.option(
    "--scale",
    type=click.IntRange(16, MAX_SCALE),
    help=f"Vehicles of a new authority.  [default: {DEFAULT_SCALE}]",
)
_SEED = click.option("--seed", type=int, help="Seed of a new authority's vehicles.  [default: 1]")


@sandbox.command()
@FOLDER
@_SCALE
@_SEED
@click.option("--trust-only", is_flag=True, help="Only the trust list and the policy, between two nights.")
@click.option("--hot", is_flag=True, help="Only what changed since the last night, as the hot list.")
@click.option("--policy", type=FILE, help="Only this policy (JSON), from now on: ages, limits, what devices are for.")
@click.option("--settings", type=FILE, help="Only these settings (TOML), for devices in service.")
@click.option(
    "--region",
    default=NATIONAL.name,
    show_default=True,
    callback=_region,
    help="national, watch (wanted vehicles alone), a province (yue or 粤), or a place's list (overdue_川A).",
)
@click.option("--snapshot", is_flag=True, help="Another base instead of a delta.")
@click.option("--accept-large", is_flag=True, help="Publish even if more has changed than a day's work does.")
@click.option("--accept-fewer-keys", "fewer_keys", is_flag=True, help="The much shorter trust list is meant.")
def publish(
    folder: Path,
    scale: int | None,
    seed: int | None,
    trust_only: bool,
    hot: bool,
    policy: Path | None,
    settings: Path | None,
    region: Region,
    **options: bool,
) -> None:
    """Publish the register into FOLDER/public, for any web server to hand out.

    \b
    Examples:
      markcheck sandbox publish
      markcheck sandbox publish --folder big --scale 1000000
      markcheck sandbox publish --trust-only                    after an event with a key: minutes instead of a night
      markcheck sandbox publish --hot                           after events with vehicles: likewise
      markcheck sandbox publish --region yue                    Guangdong alone, signed with a key of its own
      markcheck sandbox publish --region overdue_川A            what a checkpoint in 川A looks for: overdue and wanted
      markcheck sandbox publish --snapshot
      markcheck sandbox publish --policy policy.json --settings settings.toml

    Where there is a night before, a night is published as a delta. It is refused when more than one row in twenty,
    or more than three times the usual number, has changed, or when the delta, replayed, does not give the register.
    """
    if policy is not None or settings is not None:
        if (scale, seed, region) != (None, None, NATIONAL) or trust_only or hot or any(options.values()):
            raise click.UsageError("--policy and --settings go with none of the other options given")
        _publish_files(AuthorityFolder(folder), policy, settings)
        return
    if not (trust_only or hot):
        authority = _open_or_create(AuthorityFolder(folder), scale, seed)
        _publish(authority, region, **options)
        try:
            _prune(authority)
        except PublicationError as exc:
            problem(f"note: {exc}")  # the night is published all the same
        return
    name = "--trust-only" if trust_only else "--hot"
    kept = {"fewer_keys"} if trust_only else set[str]()
    others = any(value for option, value in options.items() if option not in kept)
    if scale is not None or seed is not None or others or (trust_only and (hot or region != NATIONAL)):
        raise click.UsageError(f"{name} goes with none of the other options given")
    authority = AuthorityFolder(folder).open(clock=system_clock)
    if hot:
        _publish_hot(authority, region)
        return
    authority.publish_trust(fewer_keys=options["fewer_keys"])
    click.echo(f"published trust list version {authority.trust_version}", err=True)


@sandbox.command()
@FOLDER
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
def prune(folder: Path, dry_run: bool) -> None:
    """Remove from FOLDER/public what no publication within the retention refers to; every publication does so too.

    \b
    Examples:
      markcheck sandbox prune --dry-run
      markcheck sandbox prune

    Kept are: all roots; metadata of 14 days; deltas and lists of 90 days; the last two bases; and whatever the current
    and the previous publication of a region name. All regions are looked at together.
    """
    for path in _prune(AuthorityFolder(folder).open(clock=system_clock), dry_run=dry_run):
        click.echo(path)


@sandbox.command()
@FOLDER
@_SCALE
@_SEED
@click.option(
    "--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="Port; 0 for any free one."
)
@click.option(
    "--status-port",
    type=click.IntRange(0, 65535),
    help=f"Port of the status server.  [default: {STATUS_PORT}, or any free one with --port 0]",
)
@click.option("--database", metavar="URL", help="Its books, sqlite:///PATH or postgresql://….  [default: in FOLDER]")
@click.option("--seconds", type=click.FloatRange(0, 10**8), help="Stop after so many seconds.  [default: at Ctrl-C]")
def serve(
    folder: Path,
    scale: int | None,
    seed: int | None,
    port: int,
    status_port: int | None,
    database: str | None,
    seconds: float | None,
) -> None:
    """Publish, and serve the distribution and the status server on this machine until Ctrl-C.

    What 'event' records meanwhile counts in the status server at once. Vehicles' records are published as the hot list
    within seconds, keys as a trust list; a credential's state waits for the next 'publish'.

    \b
    Examples:
      markcheck sandbox serve
      markcheck sandbox serve --scale 100000 --folder big --port 8200
      markcheck sandbox serve --database postgresql://markcheck@db.example/books
    """
    home = AuthorityFolder(folder)
    live = LiveAuthority(home, clock=system_clock, make=lambda: _open_or_create(home, scale, seed))
    with ExitStack() as stack:
        store = stack.enter_context(closing(open_books(home, database)))
        ca = DeviceCa.open(home.private, folder, system_clock)
        service = StatusService(live, store, ca, clock=system_clock)
        republisher = Republisher(live)
        _publish(live.authority)
        server = stack.enter_context(serve_files(live.authority.store, port=port))
        wanted = status_port if status_port is not None else STATUS_PORT if port else 0
        status = stack.enter_context(serve_https(service.respond, ROUTES, ca.server_context(), port=wanted))
        click.echo(f"serving {server.url}  (Ctrl-C stops)")
        click.echo(f"  markcheck sync --from {server.url} --root {home.root_file} --epoch-key {home.epoch_key_file}")
        click.echo(f"status server {status.url}  for devices that trust {ca_file(folder)}")
        click.echo(f"  markcheck sandbox device enrol NAME --folder {folder}     a code for a new device")
        _keep_current(republisher, seconds)


def _keep_current(republisher: Republisher, seconds: float | None) -> None:
    end = time.monotonic() + (10**8 if seconds is None else seconds)
    try:
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, POLL_S))
            for line in republisher.step():
                click.echo(line, err=True)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)


@sandbox.command()
@FOLDER
@plate_option
@click.option("--mode", type=click.Choice(sorted(MODES)), default="stored", show_default=True, help="Presentation.")
@click.option(
    "--signer",
    type=click.Choice(["platform", "holder"]),
    default="platform",
    show_default=True,
    help="Whose key signs the moment at which a live code is shown.",
)
@click.option("--count", type=click.IntRange(1, 1000), default=1, show_default=True, help="How many vehicles.")
@click.option("--out", type=click.Path(path_type=Path), help="PNG file, or a folder when there are several.")
@click.option("--sheet", type=click.Path(dir_okay=False, path_type=Path), help="A4 sheet to print, .pdf or .png.")
@click.option("--label", type=click.Path(dir_okay=False, path_type=Path), help="Tag card's label, .pdf or .png.")
@json_option
def issue(
    folder: Path,
    plate: str | None,
    kind: str | None,
    mode: str,
    signer: str,
    count: int,
    out: Path | None,
    sheet: Path | None,
    label: Path | None,
    as_json: bool,
) -> None:
    """Issue credentials as texts, QR pictures or a sheet to print. Without --plate, for vehicles drawn at random.

    Drawn are those that are found valid; others only where these are too few.

    \b
    Examples:
      markcheck sandbox issue --out code.png
      markcheck sandbox issue --plate 京N5U677 --mode printed --sheet sheet.pdf
      markcheck sandbox issue --count 100 --out codes/
      markcheck sandbox issue --mode tag_label --label label.pdf
      markcheck sandbox issue --mode live --signer holder --out live.png
    """
    if plate is not None and count != 1:
        raise click.UsageError("--plate and --count exclude each other")
    if out is not None and (out.is_dir() if count == 1 else out.is_file()):
        raise click.UsageError("--out takes a PNG file for one code and a folder for several")
    if sheet is not None and (count > 6 or sheet.suffix.lower() not in (".pdf", ".png")):
        raise click.UsageError("--sheet takes up to six codes and a name that ends in .pdf or .png")
    if label is not None and (mode != "tag_label" or count != 1 or label.suffix.lower() not in (".pdf", ".png")):
        raise click.UsageError("--label takes one code of --mode tag_label and a name that ends in .pdf or .png")
    if signer == "holder" and mode != "live":
        raise click.UsageError("--signer holder goes with --mode live")
    authority = AuthorityFolder(folder).open(clock=system_clock)
    marks = []
    for vehicle in _vehicles(authority, plate, kind, count, tagged=mode == "tag_label"):
        text = authority.text(vehicle.plate, MODES[mode], by_holder=signer == "holder")
        marks.append(PaperMark(text, vehicle.plate, vehicle.valid_until, vehicle.city.code))
        if as_json:
            named = {"plate": vehicle.plate.text, "kind": vehicle.plate.kind, "vin": vehicle.vin}
            print_json({**named, "mode": mode, "text": text})
        else:
            click.echo(f"{vehicle.plate.text} (kind {vehicle.plate.kind}), VIN {vehicle.vin}", err=True)
            if out is None and sheet is None and label is None:
                click.echo(text)
        if out is not None:
            _save(text, out if count == 1 else out / f"{vehicle.plate.text}-{vehicle.plate.kind}.png")
        if label is not None and vehicle.tid is not None:
            print_tag_label(marks[0], card_number(vehicle.tid), label)
            click.echo(f"wrote {label}", err=True)
    if sheet is not None:
        print_sheet(marks, sheet)
        click.echo(f"wrote {sheet}", err=True)


def _vehicles(
    authority: Authority, plate: str | None, kind: str | None, count: int, *, tagged: bool
) -> Iterator[Vehicle]:
    """The vehicle with that plate, or some drawn at random; `tagged` asks for an in-car tag."""
    if plate is not None:
        vehicle = authority.registry.find(typed_plate(plate, kind))
        if tagged and vehicle.tid is None:
            raise RegistryError("the vehicle has no in-car tag that a label could name")
        yield vehicle
        return
    everyone = [v for v in authority.registry.vehicles.values() if v.tid is not None or not tagged]
    random.shuffle(everyone)
    everyone.sort(key=lambda vehicle: not _is_faultless(authority, vehicle))
    yield from islice(everyone, count)


def _is_faultless(authority: Authority, vehicle: Vehicle) -> bool:
    """Whether a device that knows all says that it is valid, and nothing beside."""
    record, now = vehicle.record(), authority.clock()
    state = authority.registry.states[authority.registry.credential(vehicle.plate).index]
    is_insured = vehicle.ctp_until >= now.astimezone(SHANGHAI).date()
    return state == ACTIVE and is_valid(record, Month.at(now)) and not record.status - {"A"} and is_insured


def _save(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    qr_picture(text).save(path, format="PNG")
    click.echo(f"wrote {path}", err=True)


def _ipv4(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        return str(ipaddress.IPv4Address(value))
    except ValueError as exc:
        raise click.BadParameter("not an IPv4 address (example: 127.0.0.1)") from exc


@sandbox.command()
@FOLDER
@plate_option
@click.option(
    "--port", type=click.IntRange(0, 65535), default=WALLET_PORT, show_default=True, help="Port; 0 for any free one."
)
@click.option("--bind", default="127.0.0.1", show_default=True, callback=_ipv4, help="Address; 0.0.0.0 for a phone.")
@click.option("--seconds", type=click.FloatRange(0, 10**8), help="Stop after so many seconds.  [default: at Ctrl-C]")
def wallet(folder: Path, plate: str | None, kind: str | None, port: int, bind: str, seconds: float | None) -> None:
    """Serve the page that a driver's phone would show: live, stored and printed code, and the tag card's label.

    Events recorded meanwhile show when the page is loaded again.

    \b
    Examples:
      markcheck sandbox wallet
      markcheck sandbox wallet --plate 京N5U677
      markcheck sandbox wallet --bind 0.0.0.0          for a phone in the same network
    """
    first = None if plate is None else typed_plate(plate, kind)
    page = Wallet(AuthorityFolder(folder), clock=system_clock, first=first)
    with serve_answers(page.respond, port=port, bind=bind) as server:
        click.echo(f"wallet {server.url}/  (Ctrl-C stops)")
        if not ipaddress.IPv4Address(bind).is_loopback:
            click.echo(f"  on a phone: this machine's address and :{server.port}", err=True)
            click.echo("note: the page has no login and is for test data only; whoever reaches it sees it", err=True)
        try:
            time.sleep(10**8 if seconds is None else seconds)
        except KeyboardInterrupt:
            click.echo("stopped", err=True)


sandbox.add_command(device)
sandbox.add_command(reports)
sandbox.add_command(release)
sandbox.add_command(event)
sandbox.add_command(issue_everyone)
