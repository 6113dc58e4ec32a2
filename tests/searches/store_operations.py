"""Everything that processes do to the files below a folder: recorded, and replayed up to a crash.

``strace`` records, as it sees the system calls of all processes and threads in one order, whoever makes them: Python,
C code, children of children. A :class:`Recording` is the list of them, each with the inode that it went to. From its
prefixes come the states in which a crash may leave the folder:

- *killed*: all processes ended at once. What was done is there, the last write may have been cut.
- *power lost*: what was not synced may be missing, too. The operations on one directory survive in their order, but no
  order holds between two directories, nor between a file's name and its data, which may be short, or zeros.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    *("open", "openat", "creat", "write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range"),
    *("rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat"),
    *("symlink", "symlinkat", "truncate", "ftruncate", "fallocate", "fsync", "fdatasync", "lseek", "mmap"),
)
LONGEST = 2**24
"""Bytes of a single write that are recorded."""

CALL = re.compile(r"(\d+) +(\w+)\((.*)\) += (\d+)(?:<.*>)?$")
UNFINISHED = re.compile(r"(\d+) +(\w+\(.*) <unfinished \.\.\.>$")
RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)$")
ARGUMENT = re.compile(r'"((?:\\x..)*)"(\.\.\.)?|(AT_FDCWD|\d+)<((?:\\x..)*)[^>]*>|([^\s,\[\]{}][^,\[\]{}]*)')

BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Operation:
    """One change of the folder, or a mark of the recorded script; paths are relative to the folder."""

    kind: str  # create write truncate rename link unlink mkdir rmdir sync mark
    path: str = ""
    to: str = ""
    inode: int = 0
    offset: int = 0
    data: bytes = b""

    def __str__(self):
        return " ".join(filter(None, (self.kind, self.path, self.to, repr(self.data[:40]))))

    @property
    def directory(self):
        """The one whose entries it changes."""
        return str(Path(self.to or self.path).parent)


@dataclass
class State:
    """What a folder holds: names of directories (0) and of files (their inodes), and the inodes' bytes."""

    names: dict[str, int] = field(default_factory=dict)
    files: dict[int, bytearray] = field(default_factory=lambda: defaultdict(bytearray))

    def rename(self, operation):
        """Change the names as an operation says; nothing, where what it needs is not there."""
        path, to, names = operation.path, operation.to, self.names
        if operation.directory != "." and names.get(operation.directory) != 0:
            return
        match operation.kind:
            case "create":
                names[path] = operation.inode
            case "mkdir":
                names[path] = 0
            case "link":  # to a file, whatever becomes of its other name
                names.setdefault(to, operation.inode)
            case "rename" if path in names:
                for name in [name for name in names if name == path or name.startswith(path + "/")]:
                    names[to + name[len(path) :]] = names.pop(name)
            case "unlink" | "rmdir":
                for name in [name for name in names if name == path or name.startswith(path + "/")]:
                    del names[name]

    def write(self, operation, size=None):
        """Change the bytes of a file as an operation says, or only so many of them."""
        content = self.files[operation.inode]
        data = operation.data[:size]
        if operation.kind == "truncate":
            del content[operation.offset :]
            content.extend(bytes(operation.offset - len(content)))
        elif operation.kind == "write" and data:
            content.extend(bytes(max(0, operation.offset - len(content))))
            content[operation.offset : operation.offset + len(data)] = data

    def put(self, folder):
        """Write it to disk."""
        folder.mkdir()
        paths = {}
        for name, inode in sorted(self.names.items()):
            if inode == 0:
                (folder / name).mkdir()
            elif inode in paths:
                (folder / name).hardlink_to(paths[inode])
            else:
                paths[inode] = folder / name
                paths[inode].write_bytes(self.files[inode])


class Recording:
    """The operations on one folder.

    Args:
        folder: where they happened.
        marks: a file; what is written into it is a mark.
        trace: what strace wrote.
    """

    def __init__(self, folder, marks, trace):
        self._folder, self._marks = str(folder), str(marks)
        self.operations: list[Operation] = []
        self._state = State()
        self._appended: set[int] = set()
        self._positions: dict[tuple[int, int], int] = {}  # by inode and descriptor
        self._next = 1
        waiting: dict[str, str] = {}
        with trace.open() as lines:
            for whole in lines:
                line = whole.rstrip("\n")
                if begun := UNFINISHED.match(line):
                    waiting[begun[1]] = begun[2]
                    continue
                if resumed := RESUMED.match(line):
                    line = f"{resumed[1]} {waiting.pop(resumed[1])}{resumed[2]}"
                if call := CALL.match(line):
                    self._note(call[2], list(arguments(call[3])), int(call[4]))

    def end(self):
        """Return the names and bytes after the last operation."""
        return self._state

    def killed(self, count, size=None):
        """Return what is there when all processes are killed after so many operations, the last cut to a size."""
        state = State()
        for number, operation in enumerate(self.operations[:count], 1):
            state.rename(operation)
            state.write(operation, size if number == count else None)
        return state

    def power_lost(self, count, random):
        """Return what may be there when the machine loses its power after so many operations."""
        done = self.operations[:count]
        lost_from = self._lost_from(done, random)
        state = State()
        for number, operation in enumerate(done):
            if number < lost_from.get(operation.directory, count):
                state.rename(operation)
        for inode in set(state.names.values()) - {0}:
            writes = [one for one in done if one.inode == inode]
            synced = max((number for number, one in enumerate(writes) if one.kind == "sync"), default=0)
            for one in writes[:synced]:
                state.write(one)
            sure = len(state.files[inode])
            for one in writes[synced:]:
                state.write(one)
            damage(state.files[inode], sure, random)
        return state

    @staticmethod
    def _lost_from(done, random):
        """Choose for each directory the first operation on it that is lost, after the last that was synced."""
        chosen = {}
        for directory in {one.directory for one in done}:
            synced = max((n for n, one in enumerate(done) if (one.kind, one.path) == ("sync", directory)), default=0)
            numbers = [n for n, one in enumerate(done) if one.directory == directory and n >= synced]
            if random.random() < 0.5 and numbers:
                chosen[directory] = random.choice(numbers[-8:])
        return chosen

    def _note(self, call, given, value):
        getattr(self, f"_{CALL_KINDS.get(call, 'none')}")(given, value)

    def _none(self, given, value):
        """Pass over a call that changes nothing."""

    def _open(self, given, value):
        path = self._inside(given)
        flags = next(one for one in given if isinstance(one, str) and one.startswith("O_"))
        if path is None or "O_DIRECTORY" in flags or "O_PATH" in flags:
            return
        if "O_CREAT" in flags and path not in self._state.names:
            self._add(Operation("create", path, inode=self._next))
            self._next += 1
        inode = self._state.names[path]
        if "O_TRUNC" in flags and self._state.files[inode]:
            self._add(Operation("truncate", path, inode=inode))
        if "O_APPEND" in flags:
            self._appended.add(inode)
        elif "O_RDONLY" not in flags:
            self._positions[inode, value] = 0

    def _write(self, given, value):
        if given[0].path == self._marks:
            self._add(Operation("mark", data=given[1]))
            return
        if (path := self._inside(given[:1])) is None:
            return
        data = b"".join(one for one in given[1:] if isinstance(one, bytes))[:value]
        assert len(data) == value, f"{value} bytes were written to {path}, of which {len(data)} are recorded"
        inode = self._state.names[path]
        writer = inode, given[0].number
        offset = self._size(inode) if inode in self._appended else self._positions[writer]
        self._add(Operation("write", path, inode=inode, offset=offset, data=data))
        self._positions[writer] = offset + value

    def _pwrite(self, given, value):
        if (path := self._inside(given[:1])) is not None:
            inode = self._state.names[path]
            self._add(Operation("write", path, inode=inode, offset=int(given[-1]), data=given[1][:value]))

    def _copy(self, given, value):
        """Take the bytes of a copy that the kernel makes from the file that is read."""
        target, source = (given[0], given[1]) if len(given) == 4 else (given[2], given[0])
        if (path := self._inside([target])) is not None:
            inner = self._inside([source])
            whole = bytes(self._state.files[self._state.names[inner]]) if inner else Path(source.path).read_bytes()
            inode = self._state.names[path]
            start = self._size(inode)
            self._add(Operation("write", path, inode=inode, offset=start, data=whole[start : start + value]))

    def _seek(self, given, value):
        if (path := self._inside(given[:1])) is not None:
            self._positions[self._state.names.get(path, 0), given[0].number] = value

    def _truncate(self, given, _value):
        if (path := self._inside(given[:1])) is not None:
            numbers = [int(one) for one in given[1:] if isinstance(one, str) and one.isdigit()]
            self._add(Operation("truncate", path, inode=self._state.names[path], offset=numbers[-1]))

    def _allocate(self, given, _value):
        if (path := self._inside(given[:1])) is not None:
            inode, end = self._state.names[path], int(given[2]) + int(given[3])
            if end > self._size(inode):
                self._add(Operation("truncate", path, inode=inode, offset=end))

    def _rename(self, given, _value):
        path, to = self._two(given)
        if path is not None and to is not None:
            assert Path(path).parent == Path(to).parent, "renames between directories are not modelled"
            self._add(Operation("rename", path, to))

    def _link(self, given, _value):
        path, to = self._two(given)
        if to is not None:
            assert path is not None, "a file from outside was linked into the folder"
            self._add(Operation("link", path, to, inode=self._state.names[path]))

    def _remove(self, given, _value):
        if (path := self._inside(given)) is not None:
            self._add(Operation("rmdir" if self._state.names.get(path) == 0 else "unlink", path))

    def _make(self, given, _value):
        if (path := self._inside(given)) not in {None, "."}:
            self._add(Operation("mkdir", path))

    def _sync(self, given, _value):
        if (path := self._inside(given[:1])) is not None:
            self._add(Operation("sync", path, inode=self._state.names.get(path, 0)))

    def _map(self, given, _value):
        shared = "MAP_SHARED" in given[3] and "PROT_WRITE" in given[2]
        assert not (shared and self._inside(given[4:5])), "writes to mapped files are not recorded"

    def _symlink(self, given, _value):
        assert self._inside(given[1:]) is None, "symbolic links are not modelled"

    def _add(self, operation):
        if operation.kind == "write" and not operation.data:
            return
        self._state.rename(operation)
        self._state.write(operation)
        self.operations.append(operation)

    def _size(self, inode):
        return len(self._state.files[inode])

    def _two(self, given):
        """Return both paths of a call that takes two, each of which may come behind a directory."""
        first = given.index(next(one for one in given if isinstance(one, bytes)))
        second = next(n for n, one in enumerate(given) if n > first and isinstance(one, bytes))
        return self._inside(given[: first + 1]), self._inside(given[first + 1 : second + 1])

    def _inside(self, given):
        """Return the path that a descriptor, or a name that may be relative to one, leads to; None where outside."""
        base, name = "", ""
        for one in given[:2]:
            if isinstance(one, Descriptor):
                base = one.path
            elif isinstance(one, bytes):
                name = one.decode()
        path = str(Path(base, name)) if isinstance(given[0], bytes | Descriptor) else ""
        if path == self._folder:
            return "."
        return path.removeprefix(self._folder + "/") if path.startswith(self._folder + "/") else None


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One that a call was given, and the path that it leads to."""

    number: int
    path: str


CALL_KINDS = {
    **dict.fromkeys(("open", "openat", "creat"), "open"),
    **dict.fromkeys(("write", "writev"), "write"),
    **dict.fromkeys(("pwrite64", "pwritev", "pwritev2"), "pwrite"),
    **dict.fromkeys(("sendfile", "copy_file_range"), "copy"),
    **dict.fromkeys(("rename", "renameat", "renameat2"), "rename"),
    **dict.fromkeys(("link", "linkat"), "link"),
    **dict.fromkeys(("unlink", "unlinkat", "rmdir"), "remove"),
    **dict.fromkeys(("mkdir", "mkdirat"), "make"),
    **dict.fromkeys(("truncate", "ftruncate"), "truncate"),
    **dict.fromkeys(("symlink", "symlinkat"), "symlink"),
    **dict.fromkeys(("fsync", "fdatasync"), "sync"),
    "fallocate": "allocate",
    "lseek": "seek",
    "mmap": "map",
}


def record(script, folder, marks, trace):
    """Run a script under strace until all that it started has ended; return its recording."""
    tracer = ["strace", "-f", "--seccomp-bpf", "-y", "-xx", "-s", str(LONGEST), "-o", trace, "-e", ",".join(CALLS)]
    done = subprocess.run([*tracer, *script["args"]], env=script["env"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Recording(folder, marks, trace)


def is_available():
    """Whether strace is installed, and may trace."""
    return (
        shutil.which("strace") is not None
        and not subprocess.run(["strace", "-o", "/dev/null", "true"], check=False, capture_output=True).returncode
    )


def damage(content, sure, random):
    """Lose what was not synced of a file, all behind so many bytes: some of it, all of it, or its content alone."""
    if len(content) == sure:
        return
    cut = random.randint(sure, len(content))
    match random.choice(("whole", "whole", "empty", "short", "zeros", "hole")):
        case "empty":
            del content[sure:]
        case "short":
            del content[cut:]
        case "zeros":
            content[cut:] = bytes(len(content) - cut)
        case "hole":
            end = min(len(content), cut + BLOCK)
            content[cut:end] = bytes(end - cut)


def arguments(text):
    """Go through the arguments of a call: descriptors, texts as bytes, everything else as it stands."""
    for found in ARGUMENT.finditer(text):
        string, cut, descriptor, path, other = found.groups()
        if string is not None:
            assert not cut, "a write was longer than what is recorded of one"
            yield unescaped(string)
        elif descriptor is not None:
            yield Descriptor(-1 if descriptor == "AT_FDCWD" else int(descriptor), unescaped(path).decode())
        elif other.strip():
            yield other.strip()


def unescaped(text):
    return bytes.fromhex(text.replace("\\x", ""))
