"""What a person types: composes the processes, prints what they answer. Thin.

Owns: arguments, tables, exit codes, the composition roots.
Never does: decide anything a process could decide.
Called by: the `cloister` command.
"""

import sys


def main() -> None:
    """Entry point. `cloister connect` with plain arguments takes a short way: ssh starts it for every connection."""
    from cloister.cli.connect import plain_destination

    destination = plain_destination(sys.argv[1:])
    if destination is not None:
        from cloister.cli.connect import connect_quickly

        code = connect_quickly(destination)
        if code is not None:
            sys.exit(code)
    from cloister.cli.app import run

    run()
