"""The example configuration for nginx serves a publication as the devices want it. Debian's nginx, on loopback."""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.sandbox.folder_store import FolderStore
from tests.conftest import ROOT
from tests.nightly import EPOCH_KEY, FakeClock, Night, fleet
from verifier.cache.store import StatusStore
from verifier.net import HttpFetcher
from verifier.sync import SyncClient
from verifier.sync_report import SyncReport

NGINX = Path("/usr/sbin/nginx")
EXAMPLE = ROOT / "docs" / "examples" / "nginx.conf"
GUIDE = ROOT / "docs" / "status-distribution.md"

MAIN = """
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 64; }}
http {{
    gzip on;                       # as Debian's own configuration has it
    include /etc/nginx/mime.types;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/markcheck.conf;
}}
"""


@dataclass
class Served:
    """A publication in a folder that nginx serves."""

    night: Night
    public: Path
    port: int

    def ask(self, path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
        """One answer, its body already read into `.body`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with closing(connection):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=named)
            response = connection.getresponse()
            response.body = response.read()  # type: ignore[attr-defined]
        return response

    def paths(self) -> dict[str, str]:
        """One path of each kind that is published, by the first parts of its name."""
        files = (path.relative_to(self.public).as_posix() for path in sorted(self.public.rglob("*")) if path.is_file())
        return {re.sub(r"[0-9a-f]{8,}.*|\d+\.", "", path): path for path in files}

    def sync(self, root: Path) -> SyncReport:
        night = self.night
        with HttpFetcher(f"http://127.0.0.1:{self.port}") as fetcher:
            return SyncClient(root, fetcher, night.clock, night.publisher.root_bytes(), night.region).refresh()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    if not NGINX.exists():
        pytest.skip("nginx is not installed (apt-get install nginx-light)")
    public = tmp_path / "public"
    night = Night(store=FolderStore(public), clock=FakeClock())
    night.publish(vehicles=fleet(120))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    example = EXAMPLE.read_text(encoding="utf-8")
    for line, ours in (("    listen 8122;", f"    listen 127.0.0.1:{port};"), ("/srv/markcheck;", f"{public};")):
        assert example.count(line) == 1
        example = example.replace(line, ours)
    (tmp_path / "markcheck.conf").write_text(example, encoding="utf-8")
    user = "user root;" if os.geteuid() == 0 else ""
    (tmp_path / "main.conf").write_text(MAIN.format(folder=tmp_path, user=user), encoding="utf-8")
    command = [str(NGINX), "-p", str(tmp_path), "-c", str(tmp_path / "main.conf"), "-e", str(tmp_path / "error.log")]
    started = subprocess.run(command, capture_output=True, text=True, check=False)  # comes back when it listens
    assert started.returncode == 0, started.stderr
    yield Served(night, public, port)
    subprocess.run([*command, "-s", "stop"], capture_output=True, check=True)


def test_a_device_syncs_from_nginx_night_after_night(served: Served, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    assert served.sync(root).seq_after == 1
    assert served.sync(root).seq_before == 1
    served.night.clock.move(hours=24)
    vehicles = [*fleet(118), *fleet(2, seed=1)]
    served.night.publish(vehicles=list({vehicle.plate: (vehicle, tid) for vehicle, tid in vehicles}.values()))
    assert served.sync(root).seq_after == 2
    with closing(StatusStore(root, EPOCH_KEY)) as store:
        for vehicle, _ in (*fleet(2, seed=1), *fleet(118)[2:]):
            assert store.vehicle(vehicle.plate) == vehicle
        assert store.vehicle(fleet(120)[119][0].plate) is None


def test_every_file_comes_whole_with_its_length_and_as_it_is(served: Served) -> None:
    paths = served.paths()
    assert len(paths) >= 9
    for path in paths.values():
        answer = served.ask(f"/{path}", Accept_Encoding="gzip, deflate, br")
        assert answer.status == 200
        assert answer.body == (served.public / path).read_bytes()  # type: ignore[attr-defined]
        assert answer.getheader("Content-Length") == str((served.public / path).stat().st_size)
        assert answer.getheader("Content-Encoding") is None
        assert answer.getheader("Transfer-Encoding") is None
        assert answer.getheader("Content-Type") == "application/octet-stream"


def guide_rows() -> list[tuple[str, str]]:
    """Path pattern and Cache-Control, from the table of the guide."""
    rows = re.findall(r"^\| `([^`]+)` \| [^|]* \| `([^`]+)` \|$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) >= 6
    return rows


@pytest.mark.parametrize(("pattern", "cached"), guide_rows())
def test_caches_are_told_what_the_guide_says(served: Served, pattern: str, cached: str) -> None:
    names = {"<aa>": "ab", "<sha256>": "ab" * 32, "<region>": "national", "<n>": "1", "<role>": "nightly-national"}
    path = pattern
    for name, value in names.items():
        path = path.replace(name, value)
    assert "<" not in path
    file = served.public / path
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        file.write_bytes(b"x")
    answer = served.ask(f"/{path}")
    assert (answer.status, answer.getheader("Cache-Control")) == (200, cached)
    again = served.ask(f"/{path}", If_None_Match=answer.getheader("ETag") or "")
    assert (again.status, again.getheader("Cache-Control"), again.body) == (304, cached, b"")  # type: ignore[attr-defined]
    file.unlink()
    gone = served.ask(f"/{path}")
    assert (gone.status, gone.getheader("Cache-Control")) == (404, "no-store")


@pytest.mark.parametrize(
    "path",
    [
        "/metadata/2.root.json",
        "/metadata",
        "/metadata/",
        "/",
        "/chunk/",
        "/.hidden",
        "/chunk/.half",
        "/metadata/../../x",
    ],
)
def test_what_is_not_there_is_404_and_never_a_redirect_or_a_list(served: Served, path: str) -> None:
    (served.public / ".hidden").write_bytes(b"x")
    (served.public / "chunk" / ".half").write_bytes(b"x")
    answer = served.ask(path)
    assert answer.status in ((404, 400) if ".." in path else (404,))
    assert answer.getheader("Location") is None


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_written(served: Served, method: str) -> None:
    before = served.paths()
    assert served.ask("/metadata/timestamp.json", method).status in (403, 405)
    assert served.paths() == before
