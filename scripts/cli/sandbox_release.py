"""`markcheck sandbox release`: a bundle of the program's sources, published for devices to update to."""

from __future__ import annotations

from pathlib import Path

import click

from scripts.cli.sandbox_options import FOLDER
from scripts.sandbox.authority import AuthorityFolder
from scripts.sandbox.release import make_bundle
from verifier.clock import system_clock


@click.command()
@FOLDER
@click.option(
    "--sources",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    show_default=True,
    help="The source tree.",
)
@click.option(
    "--wheels",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with the locked libraries as wheels, for devices that do not have them yet.",
)
@click.option("--withdrawal", is_flag=True, help="Releases above this one are not to be used: devices go back to it.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Only write the bundle into this folder.")
def release(folder: Path, sources: Path, wheels: Path | None, withdrawal: bool, out: Path | None) -> None:
    """Make a bundle of the program and publish it, signed, as the release that devices update to.

    \b
    Examples:
      markcheck sandbox release
      markcheck sandbox release --wheels wheels/           with the libraries, where their locks have changed
      markcheck sandbox release --out /tmp                 only look at it; the same sources give the same bytes
      markcheck sandbox release --sources old/ --withdrawal
    """
    if out is not None and withdrawal:
        raise click.UsageError("--withdrawal is said with a publication, and --out makes none")
    bundle = make_bundle(sources, wheels)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"markcheck-{bundle.version}.tar.gz"
        path.write_bytes(bundle.data)
        click.echo(f"wrote {path}, {len(bundle.data):,} bytes", err=True)
        return
    AuthorityFolder(folder).open(clock=system_clock).publisher.publish_release(bundle, withdrawal=withdrawal)
    click.echo(f"published release {bundle.version}, {len(bundle.data):,} bytes", err=True)
