"""Hosts of a laboratory: network namespaces that stand for the internet, a closed cluster and a laptop.

```
   laptop ──leg──┐                          ┌── services (the private network behind the cluster's host)
                 ├── inet (exchange) ──leg──┤
   relay  ──leg──┘                       cluster (drops every inbound packet)
```

`inet` bridges the legs, so every host can address every other one: what keeps the cluster closed is the cluster's own packet
filter. A laboratory removes exactly the namespaces that it made. Needs root; `permitted()` says whether it can work here.
"""

import contextlib
import ctypes
import ipaddress
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

CONGESTION_CONTROL = "cubic"
CLONE_NEWNET = 0x40000000
INNER = "inner"  # the device between cluster and services, on either side
OUTER = "outer"  # every host's device towards inet

T = TypeVar("T")

DISCARD = 9  # RFC 863
END_OF_CAPTURE = b"the capture ends here"

NO_RESOLVER = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"
"""Nothing answers there, at once: a host of the laboratory never asks this machine's resolver."""

CLOSED = """
table inet closed {
    chain input {
        type filter hook input priority filter; policy drop;
        iif lo accept
        ct state established,related accept comment "answers to what was dialled from here"
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept comment "addresses of IPv6 neighbours, as ARP is for IPv4"
        counter comment "everything else that came in"
    }
    chain forward { type filter hook forward priority filter; policy drop; }
}
"""


class LabError(Exception):
    """A command of the laboratory failed; the message holds what it said."""


def permitted() -> str | None:
    """None where namespaces can be made, else the reason in one sentence."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "nft"):
        if shutil.which(tool) is None:
            return f"`{tool}` is missing; `make test` and `make demo` install it"
    name = f"lab-{os.getpid()}-try"
    result = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        return f"this machine does not permit network namespaces: {result.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=False)
    return None


class Machine:
    """A place where processes run. As it stands: this machine itself, for where namespaces are not permitted."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory  # logs
        self.processes: list[subprocess.Popen[str]] = []

    def command(self, arguments: Sequence[object], user: str | None = None) -> list[str]:
        """The command line that runs `arguments` here. The process keeps its pid through every step."""
        inside = [str(argument) for argument in arguments]
        if user is not None:
            inside = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--", *inside]
        return inside

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def run(
        self,
        *arguments: object,
        check: bool = True,
        user: str | None = None,
        timeout: float = 60,
        input: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            self.command(arguments, user),
            capture_output=True,
            text=True,
            timeout=timeout,
            input=input,
            env={**os.environ, **(environment or {})},
            check=False,
        )
        if check and result.returncode != 0:
            raise LabError(f"`{' '.join(map(str, arguments))}` on {self.name}: {(result.stderr or result.stdout).strip()}")
        return result

    def start(
        self,
        name: str,
        *arguments: object,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int | None = None,
    ) -> subprocess.Popen[str]:
        """A process with its output in NAME.log."""
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                self.command(arguments, user),
                stdin=stdin,
                stdout=log if stdout is None else stdout,
                stderr=log,
                text=True,
                cwd=directory,
                env={**os.environ, **(environment or {})},
            )
        self.processes.append(process)
        return process

    def inside(self, work: Callable[[], T]) -> T:
        """Call `work` where this machine's network is: sockets made there stay here."""
        return work()

    def dial(self, address: str, port: int, timeout: float = 5.0) -> socket.socket:
        return self.inside(lambda: socket.create_connection((address, port), timeout=timeout))

    def listening(self, pid: int | None = None) -> list[str]:
        """TCP listeners and bound UDP sockets, as `protocol address:port`; of one process and its children, or of the whole host."""
        lines = self.run("ss", "-tulnpH").stdout.splitlines()
        owners = None if pid is None else _family(pid)
        found = []
        for line in lines:
            fields = line.split()
            if owners is None or any(f"pid={owner}," in line for owner in owners):
                found.append(f"{fields[0]} {fields[4]}")
        return sorted(found)

    def end(self) -> None:
        """End what was started here, last first, and what that has started and left behind."""
        started = {process.pid for process in self.processes}
        left_behind = _open_processes(set().union(*map(_family, started)) - started)
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
        for handle in left_behind:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [], 10)
            os.close(handle)
        self.processes.clear()


class Host(Machine):
    """One namespace."""

    def __init__(self, name: str, directory: Path, prefix: str) -> None:
        super().__init__(name, directory)
        self.namespace = f"{prefix}-{name}"
        self.address = ""  # on the outside, where it has one
        self.address6 = ""

    def command(self, arguments: Sequence[object], user: str | None = None) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *super().command(arguments, user)]

    def inside(self, work: Callable[[], T]) -> T:
        """Call `work` on a thread that stands in this namespace."""
        outcome: list[T] = []
        failure: list[BaseException] = []

        def body() -> None:
            try:
                with Path(f"/run/netns/{self.namespace}").open() as handle:
                    if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), f"cannot enter namespace `{self.namespace}`")
                outcome.append(work())
            except BaseException as error:  # noqa: BLE001  raised again on the caller's thread
                failure.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    def scan(self, address: str, ports: str = "1-65535", rate: int = 8000) -> list[int]:
        """Open TCP ports of `address` as seen from here (nmap)."""
        family = ["-6"] if ":" in address else []
        options = ["-n", "-Pn", "-sS", "--max-retries", "1", "--min-rate", rate, "-p", ports, "-oG", "-"]
        text = self.run("nmap", *family, *options, address, timeout=300).stdout
        entries = [entry for line in text.splitlines() if "Ports:" in line for entry in line.split("Ports:")[1].split(",")]
        return [int(entry.strip().split("/")[0]) for entry in entries if "/open/" in entry]

    def write_file(self, name: str, text: str) -> None:
        """A file under /etc as processes of this host see it; those that run see a change only of a file that was there before."""
        place = Path("/etc/netns") / self.namespace
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)


class Lab:
    """A context: inside, the namespaces stand."""

    def __init__(
        self,
        prefix: str | None = None,
        network: str = "10.90.0.0/24",
        inner: str = "10.91.0.0/24",
        laptops: Sequence[str] = ("laptop",),
        relay: bool = False,
    ) -> None:
        self.prefix = prefix or f"lab-{os.getpid()}"
        self.network = ipaddress.ip_network(network)
        self.inner = ipaddress.ip_network(inner)
        names = ["inet", "cluster", "services", *laptops, *(["relay"] if relay else [])]
        self._temporary = tempfile.TemporaryDirectory(prefix=f"{self.prefix}-")
        self.directory = Path(self._temporary.name)
        self.hosts = {name: Host(name, self.directory, self.prefix) for name in names}

    @property
    def inet(self) -> Host:
        return self.hosts["inet"]

    @property
    def cluster(self) -> Host:
        return self.hosts["cluster"]

    @property
    def services(self) -> Host:
        return self.hosts["services"]

    @property
    def laptop(self) -> Host:
        return self.hosts["laptop"]

    @property
    def relay(self) -> Host:
        return self.hosts["relay"]

    def __enter__(self) -> Self:
        self.directory.chmod(0o755)  # services run as users of their own
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _build(self) -> None:
        _allow_congestion_control()
        for host in self.hosts.values():
            _command("ip", "netns", "add", host.namespace)
            host.write_file("resolv.conf", NO_RESOLVER)
            host.write_file("hosts", "127.0.0.1 localhost\n")
            host.run("ip", "link", "set", "lo", "up")
            host.run("sysctl", "-qw", f"net.ipv4.tcp_congestion_control={CONGESTION_CONTROL}", "net.ipv6.conf.default.accept_dad=0")
        self._connect_outside()
        self._connect_inside()
        self.cluster.run("nft", "-f", "-", input=CLOSED)

    def _connect_outside(self) -> None:
        """One bridge in inet; the legs are its ports, named after the host behind them."""
        inet = self.inet
        inet.run("ip", "link", "add", OUTER, "type", "bridge", "forward_delay", "0")
        inet.run("ip", "link", "set", OUTER, "up")
        self._give_address(inet, OUTER, 1)
        for place, host in enumerate((host for name, host in self.hosts.items() if name not in ("inet", "services")), start=2):
            peer = ["peer", "name", OUTER, "netns", host.namespace]
            inet.run("ip", "link", "add", host.name, "type", "veth", *peer)
            inet.run("ip", "link", "set", host.name, "master", OUTER, "up")
            host.run("ip", "link", "set", OUTER, "up")
            self._give_address(host, OUTER, place)

    def _connect_inside(self) -> None:
        self.cluster.run("ip", "link", "add", INNER, "type", "veth", "peer", "name", INNER, "netns", self.services.namespace)
        for place, host in enumerate((self.cluster, self.services), start=1):
            host.run("ip", "link", "set", INNER, "up")
            host.run("ip", "address", "add", f"{self.inner[place]}/{self.inner.prefixlen}", "dev", INNER)

    def service_address(self, place: int) -> str:
        """A further address of the services' host (3, 4, …), so that one host can stand for several."""
        address = str(self.inner[place])
        self.services.run("ip", "address", "replace", f"{address}/{self.inner.prefixlen}", "dev", INNER)
        return address

    def _give_address(self, host: Host, device: str, place: int) -> None:
        host.address = str(self.network[place])
        host.address6 = f"fd00:90::{place}"
        host.run("ip", "address", "add", f"{host.address}/{self.network.prefixlen}", "dev", device)
        host.run("ip", "-6", "address", "add", f"{host.address6}/64", "dev", device, "nodad")

    @contextlib.contextmanager
    def capture(self, leg: str, name: str | None = None) -> Iterator[Path]:
        """Every packet on the leg of one host, as a file that is complete when the context ends."""
        path = self.directory / f"{name or leg}.pcap"
        command = ["tcpdump", "-i", leg, "-s", "0", "--immediate-mode", "-U", "-Z", "root", "-w", path]
        process = subprocess.Popen(self.inet.command(command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if "listening on" in line:
                break
        else:
            raise LabError(f"tcpdump does not listen on `{leg}`")
        try:
            yield path
            self._mark_end(leg, path)
        finally:
            process.terminate()
            process.wait(timeout=10)
            process.stderr.close()

    def _mark_end(self, leg: str, path: Path) -> None:
        """Send a last packet over the leg, and wait until it is in the file: then everything before it is."""
        with self.inet.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as channel:
            until = time.monotonic() + 30
            while END_OF_CAPTURE not in path.read_bytes()[-4096:]:
                if time.monotonic() > until:
                    raise LabError(f"the capture of `{leg}` does not keep up")
                channel.sendto(END_OF_CAPTURE, (self.hosts[leg].address, DISCARD))
                time.sleep(0.05)

    def close(self) -> None:
        for host in reversed(self.hosts.values()):
            host.end()
        for host in self.hosts.values():
            if Path(f"/run/netns/{host.namespace}").exists():
                subprocess.run(["ip", "netns", "delete", host.namespace], check=False)
            shutil.rmtree(Path("/etc/netns") / host.namespace, ignore_errors=True)
        self._temporary.cleanup()


def _allow_congestion_control() -> None:
    """A namespace may only choose what the machine's own one lists as allowed; the list grows, nothing else changes."""
    allowed = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
    names = allowed.read_text().split()
    if CONGESTION_CONTROL not in names:
        allowed.write_text(" ".join([*names, CONGESTION_CONTROL]))


def _command(*arguments: str) -> None:
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise LabError(f"`{' '.join(arguments)}`: {result.stderr.strip()}")


def _open_processes(pids: set[int]) -> list[int]:
    """A handle of each that still lives: it never means another process that was given the same number."""
    handles = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            handles.append(os.pidfd_open(pid))
    return handles


def _family(root: int) -> set[int]:
    found, waiting = set(), [root]
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                waiting += map(int, task.read_text().split())
    return found
