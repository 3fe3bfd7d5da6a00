"""The kernel's part of the way in: packet filter rules, routes and the host's resolver, set up, kept current and taken back exactly.

Owns: the nftables table `cloister_<uid>`, the routing rules and table of its mark, the resolver file while it is replaced.
Never does: decide what is captured (the core's `captured`); touch anything that it did not make; run a shell.
Called by: client.service (as root).
"""

from cloister.client.capture.rules import Pools
from cloister.client.capture.service import Capture, Preparation

__all__ = ["Capture", "Pools", "Preparation"]
