"""A connector or client process loads no database, no web framework, nothing of policy, store or the CA's half of trust (DESIGN 8)."""

import os
import subprocess
import sys

import pytest

FORBIDDEN = (
    "sqlalchemy",
    "alembic",
    "sqlite3",
    "fastapi",
    "starlette",
    "uvicorn",
    "argon2",
    "ruamel",
    "cloister.policy",
    "cloister.store",
    "cloister.trust",
    "cloister.exchange",
    "cloister.telemetry",
    "cloister.insight",
)
PROCESSES = {
    "connector": "from cloister.connector.service import run",
    "relay": "from cloister.relay.service import run",
    "client": "from cloister.client.service import ClientService; import cloister.cli.up, cloister.cli.client",
}


def _loaded(statement: str) -> list[str]:
    script = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    return [name for name in result.stdout.split() if any(name == bad or name.startswith(bad + ".") for bad in FORBIDDEN)]


@pytest.mark.parametrize("process", sorted(PROCESSES))
def test_agent_process_loads_nothing_of_the_exchange(process: str) -> None:
    assert _loaded(PROCESSES[process]) == []


def test_the_walk_would_notice() -> None:
    assert _loaded("import cloister.store.service") != []
