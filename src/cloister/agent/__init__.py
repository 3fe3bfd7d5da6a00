"""What connector, client and relay share: who this process is, and its link to the exchange.

Owns: the identity on disk, enrolment, renewal, the life of the link, the event pump, the way out through a proxy.
Never does: anything about sessions, segments or flows; those belong to the process that composes this.
Called by: connector, client, relay, cli.
"""
