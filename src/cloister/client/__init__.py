"""The process beside the user: signs in, asks for sessions, opens local entrances, tells the person why not.

Owns: the requests for sessions, the control socket, what a person is told.
Never does: decide; move a byte; load a database, a web framework or policy.
Called by: cli.
"""
