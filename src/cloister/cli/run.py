"""`cloister run`: a program with an identity of its own for as long as it runs. It proves itself with a token that its surroundings give, its key lives
in memory, and when it ends nothing is left: no file here, no agent at the exchange."""

import asyncio
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloister.agent.disk import StateDir
from cloister.agent.enrol import by_token, enrol
from cloister.agent.errors import AgentError
from cloister.agent.process import PASSING, read_target
from cloister.agent.rules import read_proxy
from cloister.agent.tokens import TokenFile, TokenSource, TokenVariable, find_source
from cloister.cli.client import tell_notices
from cloister.cli.connect import read_destination
from cloister.cli.exits import Exit, tell_failure
from cloister.cli.local import ClientThread
from cloister.cli.up import UpOptions, check_permitted
from cloister.client.dirs import owner
from cloister.client.errors import ClientError
from cloister.client.login import recognise
from cloister.client.talk import ask
from cloister.client.types import ClientSettings
from cloister.model.first_contact import ExchangeTarget

ENROL_WAIT = 60.0  # seconds for an exchange that cannot be reached yet
RETRY = 1.0
NOT_EXECUTABLE, NOT_FOUND = 126, 127  # what a shell says of such commands
DELEGATION = "cloister-delegation-1."
LOCAL = "localhost,127.0.0.1,::1"
_KERNEL = 128  # si_code of signals that the terminal sends to the whole foreground group (sigaction(2))
_PASSED_ON = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)


@dataclass(frozen=True, slots=True)
class RunOptions:
    command: Sequence[str]
    exchange: str
    token_file: Path | None = None
    token_env: str | None = None
    subject_file: Path | None = None
    subject_env: str | None = None
    audience: str | None = None
    forwards: Sequence[str] = ()
    capture: UpOptions | None = None
    state: Path | None = None


def run(options: RunOptions) -> int:
    """The exit code of the command; 128 and the signal's number if a signal ended it."""
    forwards = [read_forward(text) for text in options.forwards]
    if options.capture is not None:
        check_permitted()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    target = recognise(read_target(options.exchange), StateDir(Path("/nonexistent")))
    source = find_source(
        os.environ, lambda: options.audience or _audience(target), file=options.token_file, variable=options.token_env
    )
    subject = _subject(options)
    with _state_directory(options.state) as directory:
        word = None if subject is None else subject.read()
        _enrol(StateDir(directory), target, source, word)
        again = None if word is None or word.startswith(DELEGATION) else subject
        settings = ClientSettings(state=directory, owner=owner(), source=source, subject=again)
        with _blocked_signals() as before, ExitStack() as stack:
            client = ClientThread(settings, options.capture)
            client.begin()
            stack.callback(client.end)
            environment = _environment(options, source, directory)
            for host, port, local in forwards:
                opened = ask(
                    directory, {"op": "forward", "address": f"127.0.0.1:{local}", "host": host, "port": port, "protocol": "tcp"}
                )
                stack.enter_context(opened).first()
            if not forwards and options.capture is None:
                address = stack.enter_context(ask(directory, {"op": "proxy", "address": "127.0.0.1:0"})).first()["address"]
                environment |= proxies(address, environment)
            threading.Thread(target=tell_notices, args=(directory,), daemon=True).start()
            if signal.sigpending() & {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}:
                return int(Exit.INTERRUPTED)
            return _run_child(options.command, environment, before)


def read_forward(text: str) -> tuple[str, int, int]:
    """`NAME:PORT[=LOCALPORT]` → name, port, local port."""
    destination, has_local, local = text.partition("=")
    host, port = read_destination(destination)
    if has_local and not (local.isascii() and local.isdigit() and 0 < int(local) < 65536):
        raise ClientError("argument_invalid", f"`{local[:64]}` is no local port", "write `NAME:PORT=LOCALPORT`")
    return host, port, int(local) if has_local else port


def proxies(address: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that programs read. HTTPS goes by CONNECT, which all of them know; the rest by SOCKS with names resolved at the far end."""
    connect, socks = f"http://{address}", f"socks5h://{address}"
    found = {"HTTPS_PROXY": connect, "ALL_PROXY": socks, "HTTP_PROXY": socks}
    if "NO_PROXY" not in environment and "no_proxy" not in environment:
        found["NO_PROXY"] = LOCAL
    return found | {name.lower(): value for name, value in found.items()}


# ------------------------------------------------------------------


def _audience(target: ExchangeTarget) -> str:
    """What tokens name by default: the trust domain, read from the root that the fingerprint names."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    from cloister.cli.api import fetch_root

    root = x509.load_pem_x509_certificate(fetch_root(target).encode())
    names = root.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return f"https://{str(names[0].value).split(' ', 1)[0]}"


def _subject(options: RunOptions) -> TokenSource | None:
    if options.subject_file is not None:
        return TokenFile(options.subject_file)
    if options.subject_env is not None:
        return TokenVariable(options.subject_env, os.environ.get(options.subject_env, ""))
    return None


def _environment(options: RunOptions, source: TokenSource, directory: Path) -> dict[str, str]:
    """The command's own: without the tokens, and with the client's directory for `cloister connect` and the like."""
    hidden = {options.subject_env} | ({source.name} if isinstance(source, TokenVariable) else set())
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return kept | {"CLOISTER_STATE": str(directory)}


@contextmanager
def _state_directory(chosen: Path | None) -> Iterator[Path]:
    """A directory in memory that goes with the command; a chosen one stays, but without key and identity."""
    if chosen is not None:
        state = StateDir(chosen)
        state.open()
        try:
            yield chosen
        finally:
            state.forget()
        return
    candidates = (os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm", tempfile.gettempdir())  # noqa: S108 (a fresh directory of mode 0700 below it)
    base = next(path for path in candidates if path and os.access(path, os.W_OK | os.X_OK))
    directory = Path(tempfile.mkdtemp(prefix="cloister-run-", dir=base))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _enrol(state: StateDir, target: ExchangeTarget, source: TokenSource, subject: str | None) -> None:
    """Patient while the exchange cannot be reached; at once over when it refuses."""
    proxy = read_proxy(os.environ)
    deadline = time.monotonic() + ENROL_WAIT
    while True:
        try:
            asyncio.run(enrol(state, target, "client", by_token(source.read(), subject), proxy=proxy))
        except AgentError as error:
            if error.code not in PASSING or time.monotonic() > deadline:
                raise
            time.sleep(RETRY)
        else:
            return


@contextmanager
def _blocked_signals() -> Iterator[set[signal.Signals]]:
    """Before any thread is started: signals wait for `sigwaitinfo`, whichever thread they would have met."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD})
    try:
        yield {signal.Signals(number) for number in before}
    finally:
        while signal.sigpending() & {*_PASSED_ON}:
            signal.sigwait(signal.sigpending() & {*_PASSED_ON})
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_child(command: Sequence[str], environment: Mapping[str, str], mask: set[signal.Signals]) -> int:
    try:
        child = os.posix_spawnp(
            command[0],
            list(command),
            dict(environment),
            setsigmask=mask,
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM],
        )
    except OSError as error:
        tell_failure("argument_invalid", f"`{command[0]}` cannot be run: {error.strerror}", "check the command behind `--`")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    while True:
        arrived = signal.sigwaitinfo({*_PASSED_ON, signal.SIGCHLD})
        if arrived.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        elif arrived.si_code != _KERNEL:  # the terminal's own reach the command without help
            os.kill(child, arrived.si_signo)
