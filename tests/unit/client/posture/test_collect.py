"""Reading in bounds, on this very machine; certificates; when to report."""

import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cloister.client.posture import read
from cloister.client.posture.certificates import judge_certificate
from cloister.client.posture.collect import Collector
from cloister.client.posture.machine import CALM, EVERY, Reporter
from cloister.client.posture.types import Collected, Unreadable
from cloister.model.posture import PostureProfile, asked_by

NOW = 1_700_000_000.0


def _asked(facts: tuple[str, ...] = (), **require: Any) -> Any:
    profiles = [PostureProfile.model_validate({"name": "p", "require": require})] if require else []
    return asked_by(profiles, facts)


# ------------------------------------------------------------------ reading


def test_only_regular_files_are_read_and_none_of_them_blocks(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * 11)
    stopping = threading.Event()
    assert read.read_file(str(tmp_path / "file")) == b"x"
    assert len(read.hash_file(str(tmp_path / "file"), stopping)) == 64
    for name in ("pipe", "link", ""):
        with pytest.raises(Unreadable):
            read.hash_file(str(tmp_path / name), stopping)
    with pytest.raises(Unreadable):
        read.read_file(str(tmp_path / "large"), 10)
    for name in ("nothing", "file/below"):
        with pytest.raises(FileNotFoundError):
            read.read_file(str(tmp_path / name))
    stopping.set()
    with pytest.raises(Unreadable):
        read.hash_file(str(tmp_path / "file"), stopping)


def test_commands_are_bounded_in_time_and_end_with_the_client() -> None:
    commands = read.Commands()
    assert commands.run("echo", "x", seconds=5) == "x\n"
    for failing in (("false",), ("no-such-command",)):
        with pytest.raises(Unreadable):
            commands.run(*failing, seconds=5)
    began = time.monotonic()
    with pytest.raises(Unreadable):
        commands.run("sleep", "30", seconds=0.05)
    with pytest.raises(Unreadable):
        commands.run("yes", seconds=30)  # too much
    assert time.monotonic() - began < 20
    commands.stop()
    with pytest.raises(Unreadable):
        commands.run("echo", "x", seconds=5)


def test_processes_files_and_certificates_that_are_named_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    name = next(iter(sorted(read.process_names())))
    asked = _asked(
        here={"process": name if name.isalnum() else "python"},
        gone={"process": "no-such-process-anywhere"},
        there={"file": {"path": str(tmp_path / "there")}},
        absent={"file": {"path": str(tmp_path / "absent")}},
        cert={"certificate": {"path": str(tmp_path / "there"), "ca": "-----BEGIN CERTIFICATE-----\nx"}},
    )
    collected = Collector(os.getuid()).collect("watched", asked)
    assert collected.facts["process/no-such-process-anywhere"] == "absent"
    assert collected.facts[f"file/{tmp_path / 'absent'}"] == "absent"
    assert len(collected.facts[f"file/{tmp_path / 'there'}"]) == 64
    assert list(collected.unreadable.values()) == ["the file holds no certificate in PEM"]


def test_the_system_says_what_it_is_and_why_it_does_not_say_more() -> None:
    collected = Collector(os.getuid()).collect("plain", _asked())
    assert {"os.platform", "client.version", "os.kernel"} <= set(collected.facts)
    assert not set(collected.facts) & set(collected.unreadable)
    assert all(value and value.isprintable() for value in collected.facts.values())


# ------------------------------------------------------------------ certificates


def _make(name: str, issuer: tuple[x509.Certificate, Any] | None, *, ca: bool, days: int = 10) -> tuple[x509.Certificate, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.now(UTC) - timedelta(days=20)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer[0].subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(datetime.now(UTC) + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(key if issuer is None else issuer[1], SHA256())
    )
    return certificate, key


def _pem(*certificates: tuple[x509.Certificate, Any]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate, _ in certificates)


def test_certificates_chain_to_the_ca_that_was_named() -> None:
    now = datetime.now(UTC)
    root, other = _make("root", None, ca=True), _make("root", None, ca=True)
    middle = _make("middle", root, ca=True)
    leaf, below = _make("leaf", root, ca=False), _make("leaf", middle, ca=False)
    old = _make("old", root, ca=False, days=-1)
    false_ca = _make("leaf", root, ca=False)
    forged = _make("forged", false_ca, ca=False)
    assert judge_certificate(_pem(leaf), _pem(root), now) == "valid"
    assert judge_certificate(_pem(leaf), _pem(other), now) == "untrusted"  # the same name, another key
    assert judge_certificate(_pem(below, middle), _pem(root), now) == "valid"
    assert judge_certificate(_pem(below), _pem(root), now) == "untrusted"
    assert judge_certificate(_pem(forged, false_ca), _pem(root), now) == "untrusted"  # a leaf issues nothing
    assert judge_certificate(_pem(old), _pem(root), now) == "expired"
    assert judge_certificate(_pem(leaf), _pem(root), now + timedelta(days=11)) == "expired"
    for garbage in (b"", b"x", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(Unreadable):
            judge_certificate(garbage, _pem(root), now)


# ------------------------------------------------------------------ when to report


def _up(reporter: Reporter) -> None:
    reporter.on_up()


def _collect(reporter: Reporter, now: float, **facts: str) -> None:
    for group in reporter.due(now):
        reporter.on_collected(group, reporter.asked, Collected(facts if group == "watched" else {"os.name": "ubuntu"}), now)


def test_nothing_is_looked_at_or_told_in_the_first_seconds_unless_it_is_asked_for() -> None:
    reporter = Reporter(NOW)
    _up(reporter)
    assert reporter.due(NOW + CALM - 1) == []
    assert reporter.due(NOW + CALM) == ["plain"]  # neither files nor updates


def test_what_is_asked_for_is_told_at_once_and_only_when_it_is_all_known() -> None:
    reporter = Reporter(NOW)
    _up(reporter)
    reporter.on_asked(_asked(edr={"process": "edr"}, **{"updates.security": "0"}), NOW)
    assert reporter.due(NOW) == ["watched", "plain", "updates"]
    reporter.on_collected("watched", reporter.asked, Collected({"process/edr": "running"}), NOW)
    assert reporter.report(NOW) is None
    reporter.on_collected("plain", reporter.asked, Collected({"os.name": "ubuntu"}), NOW)
    report = reporter.report(NOW)  # updates take their time
    assert report is not None
    assert {fact.name: fact.value for fact in report.facts} == {"process/edr": "running", "os.name": "ubuntu"}


def test_news_is_told_at_once_and_the_same_again_before_it_is_too_old() -> None:
    reporter = Reporter(NOW)
    _up(reporter)
    reporter.on_asked(_asked(edr={"process": "edr", "max_age": 40}), NOW)
    _collect(reporter, NOW, **{"process/edr": "running"})
    assert reporter.report(NOW) is not None
    now = NOW + EVERY["watched"]
    _collect(reporter, now, **{"process/edr": "running"})
    assert reporter.report(now) is None
    now += EVERY["watched"]
    _collect(reporter, now, **{"process/edr": "absent"})
    assert reporter.report(now) is not None
    assert reporter.report(now + 9) is None
    assert reporter.report(now + 10) is not None  # a quarter of its age


def test_a_new_link_is_told_everything_and_a_link_that_is_down_nothing() -> None:
    reporter = Reporter(NOW)
    _up(reporter)
    reporter.on_asked(_asked(edr={"process": "edr"}), NOW)
    _collect(reporter, NOW, **{"process/edr": "running"})
    assert reporter.report(NOW) is not None
    reporter.on_down()
    assert reporter.report(NOW + 1000) is None
    _up(reporter)
    assert reporter.report(NOW + 1001) is not None


def test_what_nobody_asks_for_any_more_is_forgotten_even_if_it_is_being_looked_at() -> None:
    reporter = Reporter(NOW)
    _up(reporter)
    asked = _asked(conf={"file": {"path": "/etc/x"}})
    reporter.on_asked(asked, NOW)
    assert reporter.due(NOW) == ["watched", "plain"]
    reporter.on_asked(_asked(), NOW)
    reporter.on_collected("watched", asked, Collected({"file//etc/x": "ab" * 32}), NOW)
    reporter.on_collected("plain", asked, Collected({"os.name": "ubuntu"}), NOW)
    assert [fact.name for fact in reporter.facts()] == ["os.name"]
    reporter.on_asked(asked, NOW)
    _collect(reporter, NOW, **{"file//etc/x": "ab" * 32})
    assert len(reporter.facts()) == 2
    reporter.on_asked(_asked(), NOW)
    assert [fact.name for fact in reporter.facts()] == ["os.name"]
