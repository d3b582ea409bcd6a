"""Power cuts by replay: the system calls of a sync are recorded, and any number of crashed disks is made from them.

What a disk may hold after a cut: of a file, what was there at its last fsync and any part of what was written since,
in any order and torn at sectors; of names, those at the last fsync of their folder ("strict", all that POSIX
promises) or of anything on the file system ("journal", as ext4 has it), and some of the later ones, in order.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512  # bytes

# What is understood, and what would have to be if it were ever used on the cache: the replay must not be blind.
UNDERSTOOD = (
    "openat", "open", "creat", "read", "write", "pwrite64", "lseek", "ftruncate", "fsync", "fdatasync", "rename",
    "renameat", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir",
)  # fmt: skip
STRANGE = (
    "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range", "splice", "fallocate", "truncate", "renameat2",
    "sync_file_range", "msync",
)  # fmt: skip


class ReplayError(RuntimeError):
    """A record that cannot be replayed: a call that is not understood, or one on a file that is not known."""


def strace(log: Path) -> list[str]:
    """The command in front of another that records its system calls: strings in hex, file handles with paths."""
    return ["strace", "-o", str(log), "-xx", "-y", "-s", str(1 << 24), "-e", "trace=" + ",".join(UNDERSTOOD + STRANGE)]


def in_hex(path: Path) -> str:
    """As a path stands in the record."""
    return "".join(f"\\x{byte:02x}" for byte in str(path).encode())


@dataclass
class File:
    """Content at the last fsync, and what was done since: (offset, bytes), or (length, None) for a truncation."""

    durable: bytes = b""
    since: list[tuple[int, bytes | None]] = field(default_factory=list)

    def content(self, changes: list[tuple[int, bytes | None]]) -> bytes:
        """The bytes when of all changes these are done."""
        out = bytearray(self.durable)
        for at, data in changes:
            out.extend(bytes(max(0, at - len(out))))
            if data is None:
                del out[at:]
            else:
                out[at : at + len(data)] = data
        return bytes(out)


@dataclass
class Link:
    """A symbolic link."""

    target: str


@dataclass(eq=False)
class Folder:
    """Names now, and at the last commit."""

    now: dict[str, Node] = field(default_factory=dict)
    durable: dict[str, Node] = field(default_factory=dict)


Node = File | Link | Folder
Rename = tuple[Folder, str | None, str | None, "Node | None"]  # in a folder: this name away, that name to this node


class Disk:
    """A disk that holds what lies under `root`, all of it durable."""

    def __init__(self, root: Path, *, strict: bool) -> None:
        self.root, self.strict = root, strict
        self.top = _loaded(root, {})
        self.names: list[Rename] = []  # since their commit, in order
        self.handles: dict[int, tuple[Node, int]] = {}  # with the position in the file

    # ------------------------------------------------------------------------------------------ what happened

    def replay(self, line: str) -> None:
        """One line of the record."""
        match = re.match(r"(\w+)\((.*)\) = (\d+)", line)
        if match is None:
            return  # a call that failed, or a signal
        call, arguments, result = match[1], match[2].split(", "), int(match[3])
        if call in STRANGE:
            if any(self._inside(_path(a)) for a in arguments if "<" in a or '"' in a):
                raise ReplayError(f"not understood: {call}")
        elif call in ("openat", "open", "creat"):
            self._open(_paths(arguments)[0], arguments, result)
        elif arguments[0].partition("<")[0].isdigit() and not call.endswith("at"):
            self._with_handle(call, int(arguments[0].partition("<")[0]), arguments, result)
        else:
            self._with_names(call, arguments)

    def _open(self, path: str, arguments: list[str], handle: int) -> None:
        self.handles.pop(handle, None)
        if not self._inside(path):
            return
        folder, name = self._parent(path)
        node = self.top if folder is None else folder.now.get(name)
        if node is None and folder is not None:
            if not any("O_CREAT" in a for a in arguments):
                return  # through a symbolic link: only to read
            node = File()
            self._name(folder, None, name, node)
        if node is None:
            raise ReplayError("a file that is not known")
        if isinstance(node, File) and any("O_TRUNC" in a for a in arguments):
            node.since.append((0, None))
        end = len(node.content(node.since)) if isinstance(node, File) and any("O_APPEND" in a for a in arguments) else 0
        self.handles[handle] = (node, end)

    def _with_handle(self, call: str, handle: int, arguments: list[str], result: int) -> None:
        if handle not in self.handles:
            return
        node, at = self.handles[handle]
        if call in ("fsync", "fdatasync"):
            self._commit(node)
            return
        if not isinstance(node, File):
            return
        if call == "pwrite64":
            node.since.append((int(arguments[3]), _bytes(arguments[1])[:result]))
        elif call == "ftruncate":
            length = int(arguments[1])
            node.since.append((length, None))
        elif call == "write":
            node.since.append((at, _bytes(arguments[1])[:result]))
        self.handles[handle] = (node, result if call == "lseek" else at + result * (call in ("read", "write")))

    def _with_names(self, call: str, arguments: list[str]) -> None:
        paths = _paths(arguments)
        if not self._inside(paths[-1]):
            return
        folder, name = self._child(paths[-1])
        if call.startswith("rename"):
            before, old = self._child(paths[0])
            if before is folder:
                self._name(folder, old, name, folder.now[old])
            else:  # a cut may leave both names; without a promise on their folders, also none
                self._name(folder, None, name, before.now[old])
                self._name(before, old, None, None)
        elif call.startswith("link"):
            source, old = self._child(paths[0])
            self._name(folder, None, name, source.now[old])
        elif call.startswith("symlink"):
            self._name(folder, None, name, Link(_bytes(arguments[0]).decode()))
        elif call.startswith("mkdir"):
            self._name(folder, None, name, Folder())
        else:
            self._name(folder, name, None, None)

    def _name(self, folder: Folder, old: str | None, new: str | None, node: Node | None) -> None:
        change = (folder, old, new, node)
        _renamed(folder.now, change)
        self.names.append(change)

    def _commit(self, node: Node) -> None:
        if isinstance(node, File):
            node.durable, node.since = node.content(node.since), []
        ready = [change for change in self.names if not self.strict or change[0] is node]
        self.names = [change for change in self.names if self.strict and change[0] is not node]
        for change in ready:
            _renamed(change[0].durable, change)

    def _inside(self, path: str) -> bool:
        return path == str(self.root) or path.startswith(f"{self.root}/")

    def _parent(self, path: str) -> tuple[Folder | None, str]:
        """The folder a path lies in, and its last name; None for the root itself."""
        *parts, name = Path(path).relative_to(self.root).parts or ("",)
        if not name:
            return None, ""
        folder = self.top
        for part in parts:
            node = folder.now.get(part)
            if not isinstance(node, Folder):
                return Folder(), name  # through a symbolic link: only to read
            folder = node
        return folder, name

    def _child(self, path: str) -> tuple[Folder, str]:
        """The same for a name that is made, changed or removed."""
        folder, name = self._parent(path)
        if folder is None:
            raise ReplayError("the whole folder was moved")
        return folder, name

    # ------------------------------------------------------------------------------------------- what is left

    def crashed(self, draw: random.Random, target: Path) -> None:
        """Write what one possible disk holds after a cut at this moment."""
        known: dict[int, dict[str, Node]] = {}
        kept: dict[int, list[Rename]] = {}
        for change in self.names:
            kept.setdefault(id(change[0]) if self.strict else 0, []).append(change)
        for changes in kept.values():
            for change in changes[: draw.randint(0, len(changes))]:
                _renamed(known.setdefault(id(change[0]), dict(change[0].durable)), change)
        habit = draw.choice(("nothing", "all", "prefix", "any"))
        self._write(self.top, target, known, lambda file: _survived(file, habit, draw), {})

    def whole(self, target: Path) -> None:
        """Write what the disk shows when nothing is cut."""
        self._write(self.top, target, None, lambda file: file.content(file.since), {})

    def _write(
        self,
        folder: Folder,
        target: Path,
        known: dict[int, dict[str, Node]] | None,
        content: Callable[[File], bytes],
        linked: dict[int, Path],
    ) -> None:
        target.mkdir(parents=True)
        names = folder.now if known is None else known.get(id(folder), folder.durable)
        for name, node in names.items():
            if isinstance(node, Folder):
                self._write(node, target / name, known, content, linked)
            elif isinstance(node, Link):
                (target / name).symlink_to(node.target)
            elif id(node) in linked:
                (target / name).hardlink_to(linked[id(node)])
            else:
                (target / name).write_bytes(content(node))
                linked[id(node)] = target / name


def contents(root: Path) -> dict[str, bytes | str]:
    """All files below a folder with their bytes, and all symbolic links with their targets."""
    found = [path for path in root.rglob("*") if path.is_symlink() or path.is_file()]
    return {
        path.relative_to(root).as_posix(): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in found
    }


def _survived(file: File, habit: str, draw: random.Random) -> bytes:
    """One possible content: parts of what was written since the last fsync, torn at sectors."""
    since = file.since
    if habit == "nothing":
        return file.durable
    if habit == "prefix":
        since = since[: draw.randint(0, len(since))]
    elif habit == "any":
        since = [part for change in since for part in _torn(change, draw) if draw.random() < 0.6]
    return file.content(since)


def _torn(change: tuple[int, bytes | None], draw: random.Random) -> list[tuple[int, bytes | None]]:
    at, data = change
    if data is None or len(data) <= SECTOR or draw.random() < 0.5:
        return [change]
    return [(at + start, data[start : start + SECTOR]) for start in range(0, len(data), SECTOR)]


def _renamed(names: dict[str, Node], change: Rename) -> None:
    _, old, new, node = change
    if old is not None:
        names.pop(old, None)
    if new is not None and node is not None:
        names[new] = node


def _loaded(path: Path, seen: dict[int, File]) -> Folder:
    names: dict[str, Node] = {}
    for entry in path.iterdir():
        if entry.is_symlink():
            names[entry.name] = Link(str(entry.readlink()))
        elif entry.is_dir():
            names[entry.name] = _loaded(entry, seen)
        else:
            names[entry.name] = seen.setdefault(entry.stat().st_ino, File(entry.read_bytes()))
    return Folder(dict(names), dict(names))


def _bytes(argument: str) -> bytes:
    return bytes.fromhex(re.sub(r'\\x|"', "", argument))


def _path(argument: str) -> str:
    """The path in a string or behind a file handle."""
    return _bytes(argument.partition("<")[2].rstrip(">") if "<" in argument else argument).decode(errors="replace")


def _paths(arguments: list[str]) -> list[str]:
    """The paths that a call names, made absolute by the folders' handles before them."""
    out, folder = [], ""
    for argument in arguments:
        if argument.startswith('"'):
            out.append(str(Path(folder) / _path(argument)))
        elif "<" in argument:
            folder = _path(argument)
    return out
