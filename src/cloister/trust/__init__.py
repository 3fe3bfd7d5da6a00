"""Trust: the exchange's CA, enrolment proofs, certificates and tickets.

Owns: every private key of the exchange and what is signed with it. Never: decides who may reach what, opens a socket, reads the
store. Called by `exchange` only; agents import `model` instead, so that no CA code is ever loaded beside a service.
"""
