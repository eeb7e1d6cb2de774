"""What `serd doctor` looks at on the machine: ports, files, limits, clock and services.

Each check is a function from what it needs to findings. Nothing is changed, nothing is started, and
no secret is read.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from serd.config.combinations import bound_endpoints
from serd.config.schema import Config
from serd.runtime.health import split_address
from serd.runtime.security import secret_key_path


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(NamedTuple):
    """One line of the doctor: how bad, what was looked at, what was found, what to do about it."""

    level: Level
    what: str
    text: str
    advice: str = ""


def ok(what: str, text: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, what, text)


def warn(what: str, text: str, advice: str) -> Finding:
    """serd runs, and something should be seen to."""
    return Finding(Level.WARN, what, text, advice)


def fail(what: str, text: str, advice: str) -> Finding:
    """serd cannot run like this."""
    return Finding(Level.FAIL, what, text, advice)


# What libraries, files and serd's own sockets take; the rest is for peers.
_FEW_DESCRIPTORS: Final = 4096
_LITTLE_ROOM_MIB: Final = 512
_UNIT = "serd.service"


class Address(NamedTuple):
    """A TCP address that the configuration binds, and the key that says so."""

    key: str
    host: str
    port: int


def addresses(config: Config) -> Iterator[Address]:
    """TCP addresses with a port of their own that `config` binds."""
    for key, endpoint in bound_endpoints(config):
        match = re.fullmatch(r"tcp://(.+):(\d+)", endpoint)
        if match and int(match[2]):
            host = match[1].strip("[]")
            yield Address(key, "0.0.0.0" if host == "*" else host, int(match[2]))
    if config.metrics.bind:
        host, port = split_address(config.metrics.bind)
        if port:
            yield Address("metrics.bind", host, port)


def ports(
    wanted: Iterable[Address], owner: Callable[[int], str | None] | None = None
) -> Iterator[Finding]:
    """Whether each address can be bound, and who has it if not."""
    for address in wanted:
        name = f"port {address.port}"
        try:
            _try_to_bind(address)
        except OSError as error:
            who = (owner or port_owner)(address.port) or "another process"
            if "serd" in who:
                yield ok(name, f"in use by {who} ({address.key})")
            elif error.errno in (13, 1):
                yield fail(
                    name,
                    f"{address.key}: not permitted",
                    "use a port above 1023, or give the unit CAP_NET_BIND_SERVICE",
                )
            else:
                reason = error.strerror or str(error)
                yield fail(
                    name,
                    f"{address.key}: {reason}, held by {who}",
                    f"stop that process, or change {address.key}",
                )
        else:
            yield ok(name, f"free on {address.host} ({address.key})")


def _try_to_bind(address: Address) -> None:
    info = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(info[0], socket.SOCK_STREAM) as probe:
        # As serd binds: what an ended connection leaves behind is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(info[4])
        probe.listen(1)


def port_owner(port: int, proc: Path = Path("/proc")) -> str | None:
    """Name and id of the process that listens on a port, as far as one may know."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for process in proc.glob("[0-9]*"):
        # Other users' descriptors are not ours to see, and processes end while we look.
        with contextlib.suppress(OSError):
            if any(str(fd.readlink()) in inodes for fd in (process / "fd").iterdir()):
                words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                name = "serd" if "serd" in (Path(word).name for word in words[:4]) else None
                return f"{name or (process / 'comm').read_text().strip()} (process {process.name})"
    return None


def credentials(config: Config) -> Iterator[Finding]:
    """The secret key: there, and for nobody else to read."""
    if not config.security.curve:
        exposed = [address for address in addresses(config) if not _is_loopback(address.host)]
        plain = [address.key for address in exposed if address.key != "metrics.bind"]
        if plain:
            yield warn(
                "encryption",
                f"none, and {', '.join(plain)} can be reached from other machines",
                "set security.curve = true and make keys with serd keygen",
            )
        return
    path = secret_key_path(config.security.secret_key)
    try:
        status = path.stat()
    except OSError as error:
        yield fail(
            "secret key",
            f"{path}: {error.strerror}",
            "make one with serd keygen, and name it in security.secret_key",
        )
        return
    mode = stat.S_IMODE(status.st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IRGRP:
        yield fail("secret key", f"{path} has mode {mode:04o}", f"chmod 600 {path}")
    elif mode & stat.S_IRGRP and "CREDENTIALS_DIRECTORY" not in os.environ:
        yield warn("secret key", f"{path} can be read by its group", f"chmod 600 {path}")
    elif not os.access(path, os.R_OK):
        yield fail("secret key", f"{path} cannot be read by this user", "chown it to serd's user")
    else:
        yield ok("secret key", f"{path}, mode {mode:04o}")


def _is_loopback(host: str) -> bool:
    return host.startswith("127.") or host in {"::1", "localhost"}


def disk(
    what: str, key: str, path: Path, needed_mib: float, free: Callable[[Path], int] | None = None
) -> Iterator[Finding]:
    """Whether a file of serd's can be written, and whether there is room for it."""
    folder = next(parent for parent in (path.parent, *path.absolute().parents) if parent.exists())
    held_mib = path.stat().st_size >> 20 if path.exists() else 0
    if not os.access(path if path.exists() else folder, os.W_OK):
        yield fail(what, f"{path} cannot be written", f"chown it to serd's user, or change {key}")
        return
    free_mib = (free or (lambda place: shutil.disk_usage(place).free))(folder) >> 20
    wanted_mib = max(0, round(needed_mib) - held_mib)
    text = f"{path}: {free_mib:,} MiB free, it may take {wanted_mib:,} more"
    if free_mib < wanted_mib:
        yield fail(what, text, "make room, or lower its max_mib")
    elif free_mib < wanted_mib + _LITTLE_ROOM_MIB:
        yield warn(what, text, "make room: others write on this disk as well")
    else:
        yield ok(what, text)


def limits(config: Config) -> Iterator[Finding]:
    """File descriptors and core dumps."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(_FEW_DESCRIPTORS, 256 + config.limits.connections)
    text = f"{soft:,} (may be raised to {hard:,})"
    if hard != resource.RLIM_INFINITY and hard < wanted:
        yield warn(
            "open files", text, "raise LimitNOFILE of the unit to 65536, or ulimit -n in a shell"
        )
    else:
        yield ok("open files", text)
    core = resource.getrlimit(resource.RLIMIT_CORE)[0]
    if core:
        yield warn(
            "core dumps",
            "on: a crash could write audio to the disk",
            "LimitCORE=0 in the unit; serd run also forbids them for itself",
        )
    else:
        yield ok("core dumps", "off")


class _Timex(ctypes.Structure):
    # struct timex of adjtimex(2); of its fields only those before the padding have names here.
    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


_STA_UNSYNC = 0x40


def clock(read: Callable[[], tuple[bool, float]] | None = None) -> Iterator[Finding]:
    """Whether the system's clock is kept right: `captured_at` of events is no better than it."""
    try:
        synchronised, error_s = (read or kernel_clock)()
    except OSError as error:
        yield warn("clock", f"its state cannot be read: {error.strerror}", "check it on the host")
        return
    if synchronised:
        yield ok("clock", f"synchronised, at most {error_s * 1000:.0f} ms off")
    else:
        yield warn(
            "clock",
            "not synchronised: times in events may be wrong",
            "run systemd-timesyncd, chrony or another time service (in a container: on the host)",
        )


def kernel_clock() -> tuple[bool, float]:
    """Whether the kernel's clock is synchronised, and its greatest error in seconds.

    Raises
    ------
    OSError
        The kernel does not say.
    """
    library = ctypes.CDLL(None, use_errno=True)
    timex = _Timex()
    if library.adjtimex(ctypes.byref(timex)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return not timex.status & _STA_UNSYNC, timex.maxerror / 1e6


def unit(
    run: Callable[[tuple[str, ...]], Mapping[str, str] | None] | None = None,
) -> Iterator[Finding]:
    """The service, where systemd runs this machine."""
    state = (run or _show)(("LoadState", "ActiveState", "SubState", "NRestarts", "Result"))
    if state is None:
        yield ok("systemd", "does not run this machine")
        return
    if state.get("LoadState") != "loaded":
        yield ok("systemd", f"{_UNIT} is not installed (see systemd/README.md)")
        return
    active = f"{_UNIT} is {state.get('ActiveState')} ({state.get('SubState')})"
    restarts = int(state.get("NRestarts") or 0)
    if state.get("ActiveState") == "failed":
        yield fail(
            "systemd",
            f"{active}, result {state.get('Result')}",
            "journalctl -u serd -e says why; then systemctl reset-failed serd",
        )
    elif restarts:
        yield warn(
            "systemd", f"{active}, restarted {restarts} times", "journalctl -u serd -p err says why"
        )
    else:
        yield ok("systemd", active)


def _show(names: tuple[str, ...]) -> Mapping[str, str] | None:
    if not Path("/run/systemd/system").is_dir():
        return None
    try:
        shown = subprocess.run(
            ["systemctl", "show", _UNIT, *(f"--property={name}" for name in names)],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)
