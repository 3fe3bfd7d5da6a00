"""docs/guide/approvals.md as two people type it: one asks and takes back, the other answers."""

import json
import re
import time
from collections.abc import Iterator

import pytest
from lab import PASSWORD, Client, Lab

RULES = """
kind: connector-group
name: lab
suffixes: [lab.internal]
---
kind: segment
name: postgres
hosts: [db.lab.internal]
ports: [5432]
groups: [lab]
---
kind: rule
name: production-database-on-request
effect: permit
who: {users: [ada]}
what: {segments: [postgres]}
approval: {approvers: [platform], longest: 4h}
---
kind: group
name: platform
users: [bea]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("approvals")) as lab:
        lab.start_exchange()
        for user in ("ada", "bea"):
            lab.call("POST", "/users", {"name": user, "password": PASSWORD})
        lab.apply(RULES)
        yield lab


def _ask(client: Client) -> str:
    result = client.run("request", "db.lab.internal:5432", "--reason", "fix order 4711", "--for", "1h")
    assert result.returncode == 0, result.stderr
    found = re.fullmatch(r"asked for postgres: request ([0-9a-f]{16}) waits for an approver\n", result.stdout.decode())
    assert found is not None, result.stdout
    return found[1]


def _listed(client: Client, *options: str) -> dict[str, str]:
    result = client.run("requests", "--json", *options)
    assert result.returncode == 0, result.stderr
    return {one["id"]: one["state"] for one in json.loads(result.stdout)}


def test_asked_withdrawn_and_approved_each_with_the_sign_in_that_the_person_has(lab: Lab) -> None:
    ada, bea = lab.sign_in("ada"), lab.sign_in("bea")
    line = lab.exchange.login_line
    assert bea.run("admin", "sign-in", line, "--user", "bea", "--password-stdin", stdin=PASSWORD.encode()).returncode == 0
    assert _listed(ada) == _listed(bea) == {}

    first = _ask(ada)
    assert _listed(ada) == _listed(bea) == {first: "pending"}
    others = bea.run("withdraw", first)
    assert (others.returncode, others.stdout) == (4, b""), others.stderr
    assert ada.run("withdraw", first).stdout == b"withdrawn: ada to postgres\n"
    assert _listed(ada) == {}
    assert _listed(ada, "--all") == {first: "withdrawn"}

    second = _ask(ada)
    until = int(time.time()) + 30 * 60
    approved = bea.run("approve", second, "--for", "30m", "--note", "until noon", "--json")
    assert approved.returncode == 0, approved.stderr
    assert json.loads(approved.stdout)["until"] - until in range(30)
    assert _listed(ada, "--all") == {first: "withdrawn", second: "approved"}
    assert b"postgres" in ada.run("requests", "--all").stdout
