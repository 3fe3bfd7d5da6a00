"""`cloister connector` and `cloister relay`: the composition of the processes beside services and at the edge."""

import asyncio
import logging
from pathlib import Path
from typing import Annotated

import typer

Exchange = Annotated[
    str, typer.Option("--exchange", envvar="CLOISTER_EXCHANGE", metavar="HOST:PORT", help="Where the exchange is.")
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        envvar="CLOISTER_KEY_FILE",
        metavar="FILE",
        allow_dash=True,
        help="File with the provisioning key; `-` for standard input. Needed once: the identity stays in the state directory.",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        envvar="CLOISTER_TOKEN_FILE",
        metavar="FILE",
        help="File with a projected service-account token that says who this is, instead of a provisioning key.",
    ),
]
State = Annotated[
    Path, typer.Option("--state", envvar="CLOISTER_STATE", metavar="DIR", help="The one directory that is written to.")
]
Grace = Annotated[float, typer.Option("--grace", min=0, max=86400, metavar="SECONDS", help="What open flows get after SIGTERM.")]


def add_to(app: typer.Typer) -> None:
    app.command(
        "connector",
        rich_help_panel="Processes",
        epilog="Example: cloister connector --exchange exchange.example:443 --key-file /run/secrets/cloister-key",
    )(run_connector)
    app.command(
        "relay",
        rich_help_panel="Processes",
        epilog="Example: cloister relay --exchange exchange.example:443 --key-file key --listen 0.0.0.0:443 --advertise relay1.example:443",
    )(run_relay)


def run_connector(
    exchange: Exchange,
    key_file: KeyFile = None,
    token_file: TokenFile = None,
    state: State = Path("/var/lib/cloister-connector"),
    grace: Grace = 30.0,
    spool_max: Annotated[
        int, typer.Option("--spool-max", min=1, max=1 << 20, metavar="MIB", help="Bound of the buffer for access records.")
    ] = 256,
    spare: Annotated[int, typer.Option("--spare", min=1, max=16, help="Carriers kept parked at each relay.")] = 2,
    cluster: Annotated[
        str,
        typer.Option(
            "--cluster",
            envvar="CLOISTER_CLUSTER",
            metavar="URL|auto|off",
            help="Report the keys of this Kubernetes cluster, from its API server; `auto` inside a pod that may ask it.",
        ),
    ] = "auto",
) -> None:
    """Run a connector beside private services: it dials out, enforces and opens the last hop. It listens nowhere.

    SIGTERM drains: no new tunnel, open flows get their grace. A second signal ends at once.
    """
    import os

    from cloister.agent.process import AgentSettings
    from cloister.connector.cluster import find_cluster
    from cloister.connector.service import ConnectorSettings, run

    _log_progress()
    server = find_cluster(cluster, os.environ)
    settings = AgentSettings(exchange=exchange, state=state, key_file=key_file, token_file=token_file, grace=grace)
    asyncio.run(run(ConnectorSettings(agent=settings, spool_max_bytes=spool_max << 20, spare_carriers=spare, cluster=server)))


def run_relay(
    exchange: Exchange,
    listen: Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Where carriers are accepted.")],
    advertise: Annotated[
        str, typer.Option("--advertise", metavar="HOST:PORT", help="The address that connectors and clients dial.")
    ],
    key_file: KeyFile = None,
    state: State = Path("/var/lib/cloister-relay"),
    grace: Grace = 30.0,
) -> None:
    """Run a relay alone, at its own address: it carries ciphertext between clients and connectors.

    SIGTERM drains: no new carrier, joined ones get their grace. A second signal ends at once.
    """
    from cloister.agent.process import AgentSettings
    from cloister.relay.service import RelaySettings, run

    _log_progress()
    settings = AgentSettings(exchange=exchange, state=state, key_file=key_file, grace=grace)
    asyncio.run(run(RelaySettings(agent=settings, listen=listen, advertise=advertise)))


def _log_progress() -> None:
    """A process that runs for long says what it does; `--verbose` still says more."""
    if logging.getLogger().level > logging.INFO:
        logging.getLogger().setLevel(logging.INFO)
