"""SCIM 2.0 (RFC 7642, 7643, 7644) as pure functions: schemas, filters, PATCH, resources, and what a resource means as a document.

Owns: reading and changing resources as values. Never: knows of storage, requests or sessions. Called by `exchange`. What comes in is written by
others: every text, list, filter and patch has a bound here.

The attribute tables are our own because what is served must be bounded, quick for groups of 10,000 members and strict about `active`; the tests
compare them, the filters and the patches with `scim2-models` as the independent oracle.
"""
