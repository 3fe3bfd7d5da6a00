"""Runs `nft` and `ip` and replaces the resolver file: the only place that does. Synchronous; a call takes milliseconds."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cloister.client.capture.resolver import DROP_INS, RESOLVER, RUNTIME, Resolved, ResolverFile
from cloister.client.capture.rules import (
    Network,
    Owner,
    Pair,
    Pools,
    choose_pools,
    overlap,
    parse_pairs,
    rules_to_remove,
    taken_networks,
    write_removal,
    write_routes,
    write_ruleset,
)
from cloister.client.capture.run import run
from cloister.client.errors import ClientError
from cloister.model.reasons import Code

MAX_UPSTREAMS = 8
RULES_PER_FAMILY = 2


@dataclass(frozen=True, slots=True)
class Preparation:
    """What the core needs before capture starts."""

    pools: Pools
    nameserver: str  # `address:port` to answer names at
    upstreams: list[str]  # `address:port` of the resolvers until now
    mark: int


class Capture:
    """Of one owner: `prepare`, `start`, `update` as often as needed, `stop`. Whatever was left by a killed process is cleaned first."""

    def __init__(
        self, uid: int, state: Path, resolver: Path = RESOLVER, resolved: Path = RUNTIME, drop_ins: Path = DROP_INS
    ) -> None:
        self._owner = Owner(uid)
        self._file = ResolverFile(resolver, state / "resolv.conf.before", self._owner)
        self._resolved = Resolved(resolved, drop_ins, self._owner)
        self._pools: Pools | None = None
        self._ports: dict[str, int] = {}
        self._pairs: tuple[Pair, ...] | None = None
        self._upstreams: list[str] = []

    @staticmethod
    def missing() -> str | None:
        """None where this process can capture, else the reason in one sentence."""
        if os.geteuid() != 0:
            return "capture needs root (CAP_NET_ADMIN): start the client with sudo, or use `cloister proxy`"
        for tool in ("nft", "ip"):
            if shutil.which(tool) is None:
                return f"`{tool}` is missing: install the package `{'nftables' if tool == 'nft' else 'iproute2'}`"
        return None

    def prepare(self, pool4: str, pool6: str) -> Preparation:
        """Choose pools that are free here and find the resolvers in use. Changes nothing: what a killed process left keeps private names
        from leaking until `start` takes it over. Raises ClientError.
        """
        reason = self.missing()
        if reason is not None:
            raise ClientError(Code.NOT_CAPTURED, reason, "use `cloister proxy` where there is no root")
        self._pools = choose_pools(pool4, pool6, self._taken())
        self._upstreams = self._find_upstreams()
        return Preparation(
            pools=self._pools,
            nameserver=f"{self._owner.nameserver}:53",
            upstreams=self._upstreams,
            mark=self._owner.mark,
        )

    def start(self, ports: Mapping[str, int], captured: Iterable[tuple[str, str, int, int]] = ()) -> None:
        """Capture towards the core's sockets (`Client.capture`), then send the host's look-ups to the core. Undone as a whole if a step fails."""
        if self._pools is None:
            raise RuntimeError("`start` before `prepare`")
        self._ports = dict(ports)
        try:
            self._pairs = None
            self.update(captured)
            self._route()
            self._install_resolver()
        except BaseException:
            self.clean()
            raise

    def update(self, captured: Iterable[tuple[str, str, int, int]]) -> bool:
        """Replace the captured pairs in one transaction; True if they changed."""
        if self._pools is None:
            raise RuntimeError("`update` before `prepare`")
        pairs = parse_pairs(captured)
        if pairs == self._pairs:
            return False
        run(["nft", "-f", "-"], write_ruleset(self._owner, self._pools, self._ports, pairs))
        self._pairs = pairs
        return True

    def repair_resolver(self) -> list[str] | None:
        """Take the resolver back if another program replaced it (a network came or went). The upstreams if they are others now."""
        if not self._is_resolver_ours():
            self._install_resolver()
        upstreams = self._find_upstreams()
        if upstreams == self._upstreams:
            return None
        self._upstreams = upstreams
        return upstreams

    def repair_rules(self) -> bool:
        """Put back packet filter rules and routes that another program flushed; True if something was missing."""
        if self._pools is None:
            raise RuntimeError("`repair_rules` before `prepare`")
        missing = False
        if not run(["nft", "list", "table", "inet", self._owner.table], check=False):
            run(["nft", "-f", "-"], write_ruleset(self._owner, self._pools, self._ports, self._pairs or ()))
            missing = True
        wanted = {f"-{version}": RULES_PER_FAMILY if version in self._families() else 0 for version in (4, 6)}
        if any(self._count_rules(flag) != count for flag, count in wanted.items()):
            self._route()
            missing = True
        return missing

    def overlap(self) -> str | None:
        """A sentence if a network that came up since overlaps a pool."""
        return None if self._pools is None else overlap(self._pools, self._taken())

    def stop(self) -> None:
        """Put everything back as it was."""
        self.clean()
        self._pools = None
        self._pairs = None

    def clean(self) -> None:
        """Remove what this owner's capture leaves on the host, now or from a killed process. Changes nothing where nothing is left."""
        self._file.restore()
        self._resolved.restore()
        self._remove_routes()
        run(["nft", "-f", "-"], write_removal(self._owner))

    def _install_resolver(self) -> None:
        if not self._resolved.is_running():
            self._file.install()
            return
        self._resolved.install()
        if not self._resolved.is_asked_by(self._file):
            self._file.install()

    def _is_resolver_ours(self) -> bool:
        if not self._resolved.is_running():
            return self._file.is_ours()
        return self._resolved.is_ours() and (self._file.is_ours() or self._resolved.is_asked_by(self._file))

    def _find_upstreams(self) -> list[str]:
        found = self._resolved.upstreams() or self._file.upstreams()
        return [f"[{address}]:53" if ":" in address else f"{address}:53" for address in found[:MAX_UPSTREAMS]]

    def _route(self) -> None:
        if self._pools is None:
            raise RuntimeError("routes before `prepare`")
        self._remove_routes()
        for arguments in write_routes(self._owner, self._pools, self._families()):
            run(["ip", *arguments])

    def _remove_routes(self) -> None:
        for flag in ("-4", "-6"):
            for _ in range(self._count_rules(flag)):
                run(["ip", flag, "rule", "delete", "lookup", str(self._owner.mark)])
            # a table without routes cannot be flushed, which is fine
            run(["ip", flag, "route", "flush", "table", str(self._owner.mark)], check=False)

    def _count_rules(self, flag: str) -> int:
        # a host without IPv6 lists nothing
        return rules_to_remove(self._owner, run(["ip", flag, "-json", "rule", "show"], check=flag == "-4"))

    def _families(self) -> list[int]:
        return [version for version in (4, 6) if f"tcp{version}" in self._ports]

    def _taken(self) -> list[Network]:
        addresses = run(["ip", "-json", "address", "show"])
        routes = []
        for flag in ("-4", "-6"):
            routes += json.loads(run(["ip", flag, "-json", "route", "show", "table", "all"], check=flag == "-4") or "[]")
        return taken_networks(addresses, json.dumps(routes), self._owner)
