import pytest

from cloister.agent.errors import AgentError
from cloister.agent.rules import OutboundProxy, read_proxy, renewal_time


def test_renewal_falls_at_two_thirds_of_life_and_spreads() -> None:
    day = 86400
    assert renewal_time(0, day, 0.0) == pytest.approx(day * 2 / 3)
    assert day * 2 / 3 < renewal_time(0, day, 0.999) < day * 0.72


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, OutboundProxy()),
        ({"NO_PROXY": "a"}, OutboundProxy()),
        ({"HTTPS_PROXY": "http://p:3128"}, OutboundProxy("http://p:3128")),
        ({"HTTPS_PROXY": "https://u:s@p"}, OutboundProxy("https://u:s@p")),
        ({"https_proxy": "p:3128", "HTTPS_PROXY": "http://other:1"}, OutboundProxy("http://p:3128")),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "a, 10.0.0.0/8"}, OutboundProxy("http://p:3128", "a, 10.0.0.0/8")),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "a", "no_proxy": "b"}, OutboundProxy("http://p:3128", "b")),
    ],
)
def test_proxy_follows_the_environment(environment: dict[str, str], expected: OutboundProxy) -> None:
    assert read_proxy(environment) == expected


@pytest.mark.parametrize("url", ["socks5://u:hunter2@p", "http://", "http://u:hunter2@p:99999", "http://[u:hunter2"])
def test_unusable_proxy_is_refused_without_showing_credentials(url: str) -> None:
    with pytest.raises(AgentError) as caught:
        read_proxy({"HTTPS_PROXY": url})
    assert "hunter2" not in caught.value.message + caught.value.remedy


def test_credentials_of_a_proxy_are_not_printed() -> None:
    assert "hunter2" not in repr(read_proxy({"HTTPS_PROXY": "http://u:hunter2@p"}))
