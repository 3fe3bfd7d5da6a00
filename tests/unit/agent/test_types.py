import pytest
from tests.unit.agent.certificates import DAY, START, Authority, key_pem, make_authority, new_key, spiffe_id

from cloister.agent.errors import AgentError
from cloister.agent.types import Identity, check_anchored, read_identity
from cloister.model.reasons import Code


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority()


def _identity(authority: Authority, uri: str = spiffe_id("client")) -> Identity:
    key = new_key()
    return read_identity(
        role="client", address="x:443", chain_pem=authority.chain(key, uri), key_pem=key_pem(key), roots_pem=authority.roots_pem
    )


def test_identity_is_read_from_the_leaf(authority: Authority) -> None:
    identity = _identity(authority)
    assert (identity.agent, identity.exchange) == ("0123456789abcdef", "00112233445566aa.cloister")
    assert identity.not_after - identity.not_before == 86400


def test_identity_never_shows_its_key(authority: Authority) -> None:
    identity = _identity(authority)
    assert "PRIVATE" not in repr(identity)


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        (spiffe_id("connector"), Code.ROLE_MISMATCH),
        (spiffe_id("client", "0123456789ABCDEF"), Code.ROLE_MISMATCH),
        (spiffe_id("client") + "/x", Code.ROLE_MISMATCH),
        ("https://example/client/0123456789abcdef", Code.ROLE_MISMATCH),
    ],
)
def test_leaf_of_another_role_or_form_is_refused(authority: Authority, uri: str, code: Code) -> None:
    with pytest.raises(AgentError) as caught:
        _identity(authority, uri)
    assert caught.value.code == code


def test_leaf_for_another_key_is_refused(authority: Authority) -> None:
    chain = authority.chain(new_key(), spiffe_id("client"))
    with pytest.raises(AgentError) as caught:
        read_identity(role="client", address="x:443", chain_pem=chain, key_pem=key_pem(new_key()), roots_pem=authority.roots_pem)
    assert caught.value.code == Code.CSR_INVALID


def test_chain_to_another_root_is_refused_at_enrolment(authority: Authority) -> None:
    identity = _identity(authority)
    check_anchored(identity)
    with pytest.raises(AgentError) as caught:
        check_anchored(identity.with_roots(make_authority().roots_pem))
    assert caught.value.code == Code.ROOT_MISMATCH


def test_leaf_without_its_issuer_is_refused(authority: Authority) -> None:
    key, other = new_key(), make_authority()
    chain = authority.chain(key, spiffe_id("client"))
    leaf = chain[: chain.index("-----END CERTIFICATE-----") + 26]
    for broken in (leaf, leaf + other.roots_pem):
        with pytest.raises(AgentError) as caught:
            read_identity(role="client", address="x:443", chain_pem=broken, key_pem=key_pem(key), roots_pem=authority.roots_pem)
        assert caught.value.code == Code.ROOT_MISMATCH


def test_renewal_below_a_root_that_is_not_known_yet_is_taken(authority: Authority) -> None:
    """A planned rotation that the agent slept through: the link is proved, the new root follows with Trust."""
    key = new_key()
    chain = authority.chain(key, spiffe_id("client"))
    identity = read_identity(role="client", address="x:443", chain_pem=chain, key_pem=key_pem(key), roots_pem=authority.roots_pem)
    assert identity.with_chain(make_authority().chain(key, spiffe_id("client"))).agent == identity.agent


def test_renewed_chain_must_be_for_the_same_agent_and_key(authority: Authority) -> None:
    key = new_key()
    chain = authority.chain(key, spiffe_id("client"))
    identity = read_identity(role="client", address="x:443", chain_pem=chain, key_pem=key_pem(key), roots_pem=authority.roots_pem)
    later = identity.with_chain(authority.chain(key, spiffe_id("client"), not_before=START + DAY))
    assert later.not_after == identity.not_after + 86400
    with pytest.raises(AgentError):
        identity.with_chain(authority.chain(key, spiffe_id("client", "f" * 16)))
    with pytest.raises(AgentError):
        identity.with_chain(authority.chain(new_key(), spiffe_id("client")))
