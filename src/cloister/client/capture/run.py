"""One command at a time, from a list, without a shell."""

import subprocess

from cloister.client.errors import ClientError
from cloister.model.reasons import Code

COMMAND_TIMEOUT = 10.0


def run(command: list[str], text: str | None = None, *, check: bool = True) -> str:
    """Its output. Raises ClientError if it cannot be started, takes too long or (with `check`) fails."""
    try:
        result = subprocess.run(command, input=text, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClientError(
            Code.NOT_CAPTURED, f"`{command[0]}` did not run: {error}", "see that nftables and iproute2 are installed"
        ) from error
    if check and result.returncode != 0:
        said = " ".join(result.stderr.split())[:300]
        raise ClientError(
            Code.NOT_CAPTURED, f"`{' '.join(command)}` failed: {said}", "see that the kernel has nftables with TPROXY"
        )
    return result.stdout
