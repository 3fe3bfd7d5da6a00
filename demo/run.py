"""`make demo`: the main job on real services, told line by line.

Three kinds of host, each a network namespace: the exchange on an internet, a cluster that drops every inbound packet with the
connector and the services behind it, and a laptop for each of two people. Where namespaces are not permitted everything runs on
this machine's loopback and people go through `cloister proxy`. Exit status: 0 as expected, 1 a line is not, 2 it could not be run.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "demo"), str(ROOT / "tests" / "e2e"), str(ROOT)]

from deployment import DeploymentError  # noqa: E402  the demo is run from the tree
from netlab import LabError, permitted  # noqa: E402
from tests.idp.keycloak import KeycloakFailed  # noqa: E402

from corp import Corp  # noqa: E402
from people import ADA, BEN, GROUP, PEOPLE, TRIES, Person, Try, rules, segments  # noqa: E402
from report import Line, Report, commands, summary, told  # noqa: E402
from scene import Loopback, Namespaces, Scene, Visitor  # noqa: E402
from staff import Accounts, Staff  # noqa: E402
from stage import StageFailed  # noqa: E402

CUT = 1.0
"""Seconds from the change to the last byte of a stream, at most."""

CUT_FROM_OUTSIDE = 3.0
"""The same where the identity provider first has to tell the exchange: from the administrator's word there."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="end by itself; fail if a line is not as expected")
    parser.add_argument("--loopback", action="store_true", help="run on loopback even where namespaces are permitted")
    parser.add_argument(
        "--idp", choices=["keycloak"], help="people sign in at a real identity provider, not with accounts of the exchange"
    )
    options = parser.parse_args(arguments)
    reason = "asked for" if options.loopback else permitted()
    started = time.monotonic()
    programs = install()
    with contextlib.ExitStack() as stack:
        if reason is None:
            scene: Scene = stack.enter_context(Namespaces(programs))
        else:
            say(f"On loopback, through `cloister proxy`: {reason}.")
            scene = stack.enter_context(Loopback(programs))
        report = play(scene, Corp(scene) if options.idp else Accounts(scene))
        print(f"\n{summary(report, time.monotonic() - started)}")
        if not options.check:
            linger(scene)
    return 0 if report.holds else 1


def say(text: str) -> None:
    print(text, flush=True)


def install() -> Path:
    """The services' environment, locked, under the cache; uv shows its progress. Returns its programs' directory."""
    cache = Path(os.environ.get("CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cloister")
    place = cache / "demo-venv"
    started = time.monotonic()
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    say("Services' environment (Jupyter, MLflow, Chroma, scikit-learn, gRPC) …")
    subprocess.run(
        ["uv", "sync", "--project", str(ROOT / "demo"), "--locked", *quiet],
        env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(place)},
        check=True,
    )
    say(f"  ready after {time.monotonic() - started:.1f} s")
    return place / "bin"


# ------------------------------------------------------------------ the play


def play(scene: Scene, staff: Staff) -> Report:
    report = Report()
    set_up(scene, staff)
    visitors = {person: Visitor(scene.machine_of(person), scene.programs, person.name) for person in PEOPLE}
    for visitor in visitors.values():
        visitor.send(visit="warm")
    for visitor in visitors.values():
        visitor.hear()
    if isinstance(scene, Namespaces):
        section(report, "Seen from outside")
        show_outside(scene, report)
    for person in PEOPLE:
        section(report, f"{person.display} ({person.group})")
        for attempt in TRIES:
            show_try(scene, report, visitors[person], person, attempt)
    section(report, f"{ADA.display} is taken out of {ADA.group}{staff.out_by} while a stream runs")
    show_revocation(scene, staff, report, visitors)
    if isinstance(staff, Corp):
        section(report, f"{BEN.display} is disabled and signed out at Keycloak while a stream runs")
        show_departure(scene, staff, report, visitors[BEN])
    return report


def set_up(scene: Scene, staff: Staff) -> None:
    started = time.monotonic()
    say("Services, in the closed network …" if not scene.loopback else "Services …")
    scene.stage.start()
    scene.deployment.start_exchange()
    say(f"  the exchange is up ({time.monotonic() - started:.1f} s); its administrator's secret was made and is used from here on")
    deployment, places = scene.deployment, scene.stage.places
    staff.begin()
    deployment.apply("---\n".join([segments(places, loopback=scene.loopback), staff.documents(), rules(places)]))
    connector = scene.lab.cluster if isinstance(scene, Namespaces) else scene.machine_of(ADA)
    deployment.start_connector(connector, GROUP)
    say(f"  the connector is up ({time.monotonic() - started:.1f} s)")
    scene.stage.wait(lambda name, seconds: say(f"  {name} answers ({seconds:.1f} s)"))
    staff.wait()
    for person in PEOPLE:
        before = time.monotonic()
        staff.sign_in(person)
        scene.enter_as(person)
        say(f"  {person.display} is signed in and up ({time.monotonic() - before:.1f} s)")
    deployment.wait_until_served(scene.machine_of(ADA), ADA.name, {attempt.service for attempt in TRIES if ADA.group in attempt.by})


def section(report: Report, title: str) -> None:
    report.section(title)
    say(f"\n{title}")


def show(report: Report, line: Line) -> None:
    say(told(report.add(line)))


def show_outside(scene: Namespaces, report: Report) -> None:
    lab = scene.lab
    started = time.monotonic()
    found = lab.inet.scan(lab.cluster.address)
    seen = "no open port" if not found else f"open: {found}"
    show(
        report,
        Line(
            "internet",
            "scan of the cluster's host, all TCP ports",
            "no open port",
            seen,
            time.monotonic() - started,
            "nmap",
            not found,
        ),
    )
    listening = lab.cluster.listening(scene.deployment.connector_pids[0])
    seen = "none" if not listening else ", ".join(listening)
    show(report, Line("cluster", "listening sockets of the connector", "none", seen, None, "ss", not listening))


def show_try(scene: Scene, report: Report, visitor: Visitor, person: Person, attempt: Try) -> None:
    answer = visit(scene, visitor, person, attempt)
    expected = "reached" if person.group in attempt.by else "refused"
    seen = "reached" if answer["ok"] else "refused"
    holds = seen == expected and (answer["ok"] or answer["told"] in REFUSALS)
    show(report, Line(person.display, attempt.tried, expected, seen, answer["seconds"], answer["told"], holds))


REFUSALS = ("no such name", "connection refused", "connection reset", "timed out", "refused by the proxy")


def visit(scene: Scene, visitor: Visitor, person: Person, attempt: Try) -> dict[str, Any]:
    secrets = {"jupyter": scene.stage.secrets.jupyter, "psql": scene.stage.secrets.database}
    place = scene.stage.places[attempt.service]
    return visitor.ask(visit=attempt.visit, secret=secrets.get(attempt.visit, ""), **scene.target(person, place))


def show_revocation(scene: Scene, staff: Staff, report: Report, visitors: dict[Person, Visitor]) -> None:
    streams = {person: start_stream(scene, report, person) for person in PEOPLE}
    changed = staff.take_out(ADA)
    answered = time.time()
    show_cut(report, ADA, streams[ADA].hear(), changed, answered, CUT)
    show_rest(scene, report, visitors[ADA], ADA, "refused")
    show_rest(scene, report, visitors[BEN], BEN, "reached")
    # The newest notice ends with its code, which the reference of reason codes explains.
    notices = scene.deployment.notices(scene.machine_of(ADA), ADA.name)
    show_told(report, ADA, (notices or [""])[-1].rpartition(" ended: ")[2], told_why=any("group" in notice for notice in notices))
    streams[BEN].stop()


def show_departure(scene: Scene, corp: Corp, report: Report, visitor: Visitor) -> None:
    """What only an identity provider can do: end a sign-in from outside (back-channel logout), and let nobody in again."""
    stream = start_stream(scene, report, BEN)
    changed = corp.disable(BEN)
    answered = time.time()
    show_cut(report, BEN, stream.hear(), changed, answered, CUT_FROM_OUTSIDE)
    show_rest(scene, report, visitor, BEN, "refused")
    words = scene.last_words(BEN)
    show_told(report, BEN, words, told_why="signed_out" in words)
    page = corp.try_again(BEN)
    said = next((line for line in page.splitlines() if "disabled" in line), "")
    show(
        report, Line(BEN.display, "signs in again at Keycloak", "refused", "refused" if said else "let in", None, said, bool(said))
    )
    corp.enable(BEN)
    corp.sign_in(BEN)
    scene.enter_as(BEN)
    show_rest(scene, report, visitor, BEN, "reached", "enabled again, signed in: REST")


def start_stream(scene: Scene, report: Report, person: Person) -> Visitor:
    reader = Visitor(scene.machine_of(person), scene.programs, f"{person.name}-stream")
    reader.send(visit="stream", **scene.target(person, scene.stage.places["inference"]))
    seen = reader.hear()["told"]
    show(report, Line(person.display, "chat words are streaming", "streaming", seen, None, "", seen == "streaming"))
    return reader


def show_cut(report: Report, person: Person, ended: dict[str, Any], changed: float, answered: float, within: float) -> None:
    took = ended["last"] - changed
    holds = ended["told"] == "connection reset" and took <= within
    seen = "cut" if holds else ended["told"]
    about = f"{ended['words']} words; the change was answered after {(answered - changed) * 1000:.0f} ms"
    show(report, Line(person.display, "last word after the change", f"cut in {within:g} s", seen, max(took, 0.0), about, holds))


def show_rest(scene: Scene, report: Report, visitor: Visitor, person: Person, expected: str, tried: str = "") -> None:
    rest = next(attempt for attempt in TRIES if attempt.visit == "rest")
    answer = visit(scene, visitor, person, rest)
    seen = "reached" if answer["ok"] else "refused"
    tried = tried or f"{rest.tried}, again"
    show(report, Line(person.display, tried, expected, seen, answer["seconds"], answer["told"], seen == expected))


def show_told(report: Report, person: Person, words: str, *, told_why: bool) -> None:
    show(report, Line(person.display, "is told why", "told", "told" if told_why else "not told", None, words, told_why))


def linger(scene: Scene) -> None:
    """Leave everything up until Ctrl-C."""
    say("\nEverything is still up. To try, from another terminal:\n" + commands(scene.try_commands()))
    say("\nCtrl-C ends it.")
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with contextlib.suppress(KeyboardInterrupt):
        ended.wait()
    say("\nEnding.")


@contextlib.contextmanager
def failures_told() -> Iterator[None]:
    try:
        yield
    except (StageFailed, LabError, DeploymentError, KeycloakFailed, OSError, subprocess.SubprocessError) as error:
        say(f"\nThe demo could not be run: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        say("\nEnded before the end.")
        sys.exit(130)


if __name__ == "__main__":
    with failures_told():
        sys.exit(main(sys.argv[1:]))
