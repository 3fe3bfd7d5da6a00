//! Reason codes: the closed list shared with `cloister.model.reasons` (a test compares the two).

macro_rules! codes {
    ($($name:ident = $text:literal,)*) => {
        /// What a refusal, an end or an error is called; stable, never renamed or reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($name,)* }

        impl Code {
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            pub fn parse(text: &str) -> Option<Code> {
                match text { $($text => Some(Code::$name),)* _ => None }
            }
        }
    };
}

codes! {
    Ok = "ok",
    NotFound = "not_found",
    DeniedByDefault = "denied_by_default",
    ForbiddenByRule = "forbidden_by_rule",
    ConditionFailed = "condition_failed",
    EvaluationError = "evaluation_error",
    StepUpRequired = "step_up_required",
    ApprovalRequired = "approval_required",
    ApprovalDenied = "approval_denied",
    ApprovalExpired = "approval_expired",
    PostureFailed = "posture_failed",
    RiskTooHigh = "risk_too_high",
    OutsideNetwork = "outside_network",
    SignedOut = "signed_out",
    SignalReceived = "signal_received",
    SessionLimit = "session_limit",
    IdleLimit = "idle_limit",
    PolicyChanged = "policy_changed",
    GroupChanged = "group_changed",
    SegmentChanged = "segment_changed",
    UserDisabled = "user_disabled",
    DeviceRevoked = "device_revoked",
    SessionRevoked = "session_revoked",
    SessionExpired = "session_expired",
    KillSwitch = "kill_switch",
    NoConnector = "no_connector",
    SegmentUnhealthy = "segment_unhealthy",
    ExchangeUnreachable = "exchange_unreachable",
    StateTooOld = "state_too_old",
    NotCaptured = "not_captured",
    HostMalformed = "host_malformed",
    NotInSegment = "not_in_segment",
    AddressForbidden = "address_forbidden",
    NameUnresolved = "name_unresolved",
    DialRefused = "dial_refused",
    DialTimeout = "dial_timeout",
    DialUnreachable = "dial_unreachable",
    ServiceReset = "service_reset",
    ClientReset = "client_reset",
    RecordsFull = "records_full",
    TooManyFlows = "too_many_flows",
    TicketMalformed = "ticket_malformed",
    TicketSignature = "ticket_signature",
    TicketKeyUnknown = "ticket_key_unknown",
    TicketExpired = "ticket_expired",
    TicketAudience = "ticket_audience",
    TicketNotYours = "ticket_not_yours",
    TicketRevoked = "ticket_revoked",
    TicketMissing = "ticket_missing",
    SnapshotMissing = "snapshot_missing",
    NoCarrier = "no_carrier",
    TooManyJoins = "too_many_joins",
    JoinBlocked = "join_blocked",
    TunnelLost = "tunnel_lost",
    TunnelFenced = "tunnel_fenced",
    TunnelUnknown = "tunnel_unknown",
    Draining = "draining",
    PeerSilent = "peer_silent",
    ProtocolError = "protocol_error",
    MessageMalformed = "message_malformed",
    MessageUnexpected = "message_unexpected",
    VersionUnsupported = "version_unsupported",
    QueueFull = "queue_full",
    HandshakeFailed = "handshake_failed",
    HandshakeTimeout = "handshake_timeout",
    RoleMismatch = "role_mismatch",
    AgentRevoked = "agent_revoked",
    AgentUnknown = "agent_unknown",
    AgentUnconfirmed = "agent_unconfirmed",
    AgentTwin = "agent_twin",
    CertificateExpired = "certificate_expired",
    RootMismatch = "root_mismatch",
    KeyInvalid = "key_invalid",
    KeyUsedUp = "key_used_up",
    KeyExpired = "key_expired",
    KeyRevoked = "key_revoked",
    CsrInvalid = "csr_invalid",
    SignInFailed = "sign_in_failed",
    TooManyAttempts = "too_many_attempts",
    ProxyRefused = "proxy_refused",
    Stopped = "stopped",
    Replaced = "replaced",
    DocumentMalformed = "document_malformed",
    DocumentTie = "document_tie",
    ReferenceUnknown = "reference_unknown",
    PolicyMalformed = "policy_malformed",
    Conflict = "conflict",
    NotAuthenticated = "not_authenticated",
    NotAuthorised = "not_authorised",
    TooLarge = "too_large",
    ArgumentInvalid = "argument_invalid",
    LimitReached = "limit_reached",
    Internal = "internal",
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
