"""Exit codes, and how a failure is told. No heavy import here."""

import json
import sys
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, NoReturn


class Exit(IntEnum):
    """Documented in docs/reference/cli.md; never renumbered."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DENIED = 3
    NOT_FOUND = 4
    UNREACHABLE = 5
    CONFLICT = 6
    NOT_SIGNED_IN = 7
    INTERRUPTED = 130


_EXITS: dict[Exit, frozenset[str]] = {
    Exit.OK: frozenset({"ok"}),
    Exit.USAGE: frozenset({"argument_invalid", "document_malformed", "host_malformed", "policy_malformed", "too_large"}),
    Exit.DENIED: frozenset(
        {
            "denied_by_default",
            "forbidden_by_rule",
            "condition_failed",
            "evaluation_error",
            "step_up_required",
            "approval_required",
            "approval_denied",
            "approval_expired",
            "posture_failed",
            "risk_too_high",
            "outside_network",
            "signal_received",
            "session_limit",
            "idle_limit",
            "segment_changed",
            "session_expired",
            "policy_changed",
            "group_changed",
            "user_disabled",
            "device_revoked",
            "session_revoked",
            "signed_out",
            "kill_switch",
            "agent_revoked",
            "agent_unknown",
            "agent_unconfirmed",
            "role_mismatch",
            "root_mismatch",
            "key_invalid",
            "key_used_up",
            "key_expired",
            "key_revoked",
            "csr_invalid",
            "sign_in_failed",
            "sign_in_expired",
            "sign_in_mismatch",
            "not_authorised",
            "certificate_expired",
            "version_unsupported",
            "token_malformed",
            "token_algorithm",
            "token_key_unknown",
            "token_signature",
            "token_type",
            "token_issuer",
            "token_audience",
            "token_expired",
            "token_claim",
            "token_replayed",
            "workload_unknown",
            "workload_ambiguous",
            "proof_ended",
            "delegation_invalid",
        }
    ),
    Exit.NOT_FOUND: frozenset({"not_found", "reference_unknown"}),
    Exit.UNREACHABLE: frozenset(
        {
            "exchange_unreachable",
            "no_connector",
            "segment_unhealthy",
            "name_unresolved",
            "dial_refused",
            "dial_timeout",
            "dial_unreachable",
            "no_carrier",
            "peer_silent",
            "handshake_failed",
            "handshake_timeout",
            "proxy_refused",
            "tunnel_lost",
        }
    ),
    Exit.CONFLICT: frozenset({"conflict", "document_tie"}),
    Exit.NOT_SIGNED_IN: frozenset({"not_authenticated"}),
}


def exit_code(code: str) -> Exit:
    """The exit code of a reason code; what is not listed is `FAILED`."""
    return next((number for number, codes in _EXITS.items() if code in codes), Exit.FAILED)


def tell_failure(code: str, message: str, remedy: str, errors: Sequence[Mapping[str, Any]] = (), *, as_json: bool = False) -> None:
    """One line on standard error: what, which value, what to do next, and the stable code; in JSON also each position in a document."""
    if as_json:
        text = json.dumps({"error": code, "message": message, "remedy": remedy, **({"errors": list(errors)} if errors else {})})
    else:
        text = f"error: {message}" + (f"; {remedy}" if remedy else "") + f" [{code}]"
    print(_one_line(text), file=sys.stderr)


def fail(code: str, message: str, remedy: str = "", errors: Sequence[Mapping[str, Any]] = (), *, as_json: bool = False) -> NoReturn:
    tell_failure(code, message, remedy, errors, as_json=as_json)
    sys.exit(exit_code(code))


def _one_line(text: str) -> str:
    """Names in messages come from elsewhere: no line ends, no control characters on the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
