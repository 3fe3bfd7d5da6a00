"""The tables. Times are Unix seconds; ids are 16 lower hex; JSON columns hold text that only this package reads and writes."""

from sqlalchemy import Boolean, Column, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

metadata = MetaData()

settings = Table(
    "settings",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

documents = Table(
    "documents",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("name", String(128), nullable=False),
    Column("body", Text, nullable=False),  # canonical fields as JSON
    Column("generation", Integer, nullable=False),
    Column("changed_at", Integer, nullable=False),
    UniqueConstraint("kind", "name"),
)

accounts = Table(
    "accounts",
    metadata,
    Column(
        "user", String(16), primary_key=True
    ),  # the id of the user's document: a user made again under an old name inherits nothing
    Column("password_hash", Text, nullable=True),
    Column("role", String(16), nullable=False),
    Column("changed_at", Integer, nullable=False),
)

agents = Table(
    "agents",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("hostname", String(256), nullable=False),
    Column("principal", String(16), nullable=True),  # clients: a user's or workload's id
    Column("device", String(16), nullable=True),  # clients: a device document's id
    Column("connector_group", String(16), nullable=True),  # connectors
    Column("address", String(300), nullable=True),  # relays: where they are reached
    Column(
        "public_key", String(200), nullable=False
    ),  # SubjectPublicKeyInfo, DER in base64: renewal signs for the key that was enrolled
    Column("key_thumbprint", String(43), nullable=False),
    Column("enrolled_at", Integer, nullable=False),
    Column("enrolled_by", String(160), nullable=False),
    Column("actor", String(16), nullable=True),  # clients: the workload that acts for the principal
    Column("signed_in_at", Integer, nullable=True),
    Column("sign_in_strength", String(16), nullable=False, server_default="password"),
    Column("sign_in_issuer", String(63), nullable=False, server_default="local"),  # the name of an identity provider
    Column("sign_in_session", String(256), nullable=True),  # the provider's `sid`: what back-channel logout names
    Column("sign_in_vouched_at", Integer, nullable=True),  # when the provider said so: its token's `iat`
    Column("vouched_by", String(16), nullable=True),  # enrolled by a token: the document of its issuer
    Column("vouched_for_by", String(16), nullable=True),  # the document of the issuer that vouched for the person it acts for
    Column("vouched_mark", String(32), nullable=True),  # a digest of what these documents said then
    Column("vouched_until", Integer, nullable=True),  # unless it is proved anew
    Column("delegation", String(16), nullable=True),  # the person's own word, if that is what it acts on
    Column("revoked_at", Integer, nullable=True),
    Column("confirmed", Boolean, nullable=False),
    Column("last_seen_at", Integer, nullable=True),
    Column("last_address", String(64), nullable=True),
    Column("resume_hash", String(64), nullable=True),
    Column("twin_seen_at", Integer, nullable=True),
)
Index("agents_by_principal", agents.c.principal)

certificates = Table(
    "certificates",
    metadata,
    Column("fingerprint", String(64), primary_key=True),  # the issuer's log
    Column("serial", String(40), nullable=False, unique=True),
    Column("agent", String(16), nullable=False),
    Column("role", String(16), nullable=False),
    Column("authority", String(16), nullable=False),
    Column("not_before", Integer, nullable=False),
    Column("not_after", Integer, nullable=False),
)
Index("certificates_by_agent", certificates.c.agent)

provisioning_keys = Table(
    "provisioning_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("secret_hash", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("connector_group", String(16), nullable=True),
    Column("principal", String(16), nullable=True),
    Column("address", String(300), nullable=True),
    Column("note", String(256), nullable=False),
    Column("max_uses", Integer, nullable=False),
    Column("uses", Integer, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("created_by", String(160), nullable=False),
    Column("expires_at", Integer, nullable=False),
    Column("revoked_at", Integer, nullable=True),
)

presented_tokens = Table(
    "presented_tokens",
    metadata,
    Column("id", String(64), primary_key=True),  # a digest of issuer and `jti`, or of the token
    Column(
        "key_thumbprint", String(43), nullable=False
    ),  # the first key that it was presented for: no other gets anything for it; empty: good once
    Column("expires_at", Integer, nullable=False),
)
Index("presented_tokens_by_expiry", presented_tokens.c.expires_at)

cluster_keys = Table(
    "cluster_keys",
    metadata,
    Column("issuer", String(16), primary_key=True),
    Column("thumbprint", String(43), primary_key=True),
    Column("jwk", Text, nullable=False),
    Column("retired_at", Integer),
    Column("basis", String(64), nullable=False),  # digest of the keys of the issuer's document: others void what was reported
)

delegations = Table(
    "delegations",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("secret_hash", String(64), nullable=False),
    Column("user", String(16), nullable=False),  # the person who lends
    Column("workload", String(16), nullable=False),  # the program that may act for that person
    Column("agent", String(16), nullable=False),  # the client over which it was made
    Column("created_at", Integer, nullable=False),
    Column("expires_at", Integer, nullable=False),
    Column("revoked_at", Integer, nullable=True),
)
Index("delegations_by_user", delegations.c.user)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("principal", String(16), nullable=False),
    Column("client", String(16), nullable=False),
    Column("segment", String(16), nullable=False),
    Column("rules", Text, nullable=False),  # JSON list of rule ids
    Column("connectors", Text, nullable=False),  # JSON list, preferred first
    Column("audience", Text, nullable=False),  # JSON object: connector → end of the last ticket that names it
    Column("opened_at", Integer, nullable=False),
    Column("ticket_expires", Integer, nullable=False),
    Column("ends_at", Integer, nullable=False),  # the last instant at which a connector may honour its ticket
    Column("idle", Boolean, nullable=False),
    UniqueConstraint("client", "segment"),
)

relay_blocks = Table(
    "relay_blocks",
    metadata,
    Column("client", String(16), primary_key=True),
    Column("connector", String(16), primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("until", Integer, nullable=False),
    Column("cleared", Boolean, nullable=False),
    Column("owed", Text, nullable=False),  # JSON list of relays that have not been told that it is cleared
)

evidence = Table(
    "evidence",
    metadata,
    Column("kind", String(16), primary_key=True),  # of the subject: `agent`, `device` or `user`
    Column("subject", String(16), primary_key=True),
    Column("source", String(63), primary_key=True),  # `client`, or the name of whoever pushed it
    Column("name", String(63), primary_key=True),
    Column("value", Text, nullable=False),
    Column("observed_at", Integer, nullable=False),
    Column("expires_at", Integer, nullable=True),
)

transmitter_secrets = Table(
    "transmitter_secrets",
    metadata,
    Column("transmitter", String(16), primary_key=True),  # the id of its document
    Column("secret_hash", String(64), nullable=False),
    Column("changed_at", Integer, nullable=False),
)

seen_events = Table(
    "seen_events",
    metadata,
    Column("transmitter", String(16), primary_key=True),
    Column("id", String(64), primary_key=True),  # SHA-256 of the token's `jti`
    Column("issued_at", Integer, nullable=False),
)

kill_switches = Table(
    "kill_switches",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("scope", String(16), nullable=False),
    Column("target", String(128), nullable=False),
    Column("reason", String(256), nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("created_by", String(160), nullable=False),
    Column("expires_at", Integer, nullable=True),
)

access_requests = Table(
    "access_requests",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("principal", String(16), nullable=False),
    Column("rule", String(16), nullable=False),
    Column("segment", String(16), nullable=False),
    Column("reason", String(512), nullable=False),
    Column("seconds", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("until", Integer, nullable=False),
    Column("decided_by", String(16), nullable=True),
    Column("decided_at", Integer, nullable=True),
    Column("note", String(512), nullable=False),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("token_hash", String(64), nullable=False, unique=True),
    Column("user", String(16), nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("expires_at", Integer, nullable=False),
    Column("fact_source", String(63)),
)
Index("api_tokens_by_user", api_tokens.c.user)

audit = Table(
    "audit",
    metadata,
    Column("n", Integer, primary_key=True, autoincrement=True),
    Column("at", Integer, nullable=False),
    Column("actor", String(160), nullable=False),
    Column("action", String(64), nullable=False),
    Column("target", String(256), nullable=False),
    Column("detail", Text, nullable=False),  # JSON object, no secrets
    Column("source", String(64), nullable=False),
    Column("code", String(64), nullable=False),  # `ok` or the reason of a refusal
    Column("generation", Integer, nullable=True),
    Column("chain", String(64), nullable=False),  # SHA-256 over the previous row's chain and this row
    sqlite_autoincrement=True,
)
Index("audit_by_action", audit.c.action)

directories = Table(
    "directories",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(63), nullable=False, unique=True),
    Column("issuer", String(256), nullable=False, unique=True),  # what its users' documents say
    Column("subject", String(16), nullable=False),  # `externalId` or `userName`: what the issuer calls the subject
    Column("token_hash", String(64), nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("created_by", String(160), nullable=False),
    Column("rotated_at", Integer, nullable=False),
    Column("revoked_at", Integer, nullable=True),
)

scim_resources = Table(
    "scim_resources",
    metadata,
    Column("id", String(16), primary_key=True),  # the document's
    Column("directory", String(16), nullable=False),
    Column("kind", String(16), nullable=False),  # `User` or `Group`
    Column("key", String(1024), nullable=False),  # userName or displayName in canonical form
    Column("title", String(256), nullable=False),  # the same as it was given
    Column("external_id", String(256), nullable=True),
    Column("body", Text, nullable=False),  # JSON without members and what the document says
    Column("generation", Integer, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("modified_at", Integer, nullable=False),
    UniqueConstraint("directory", "kind", "key"),
)

retired_names = Table(
    "retired_names",
    metadata,
    Column("kind", String(32), primary_key=True),  # names that users of directories have had: nobody else gets them (case 7)
    Column("name", String(128), primary_key=True),
    Column("directory", String(16), nullable=False),
    Column("retired_at", Integer, nullable=False),
)
