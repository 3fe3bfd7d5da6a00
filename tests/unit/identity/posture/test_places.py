"""Named networks and places of addresses, and at how many places somebody is."""

import pytest

from cloister.exchange.devices.places import SIGN_IN_SECONDS, Places
from cloister.identity.posture.places import NetworkIndex, read_address
from cloister.model.posture import Network

NOW = 1_700_000_000
NETWORKS = NetworkIndex(
    [
        Network(name="office", networks=("198.51.100.0/24", "2001:db8:1::/48")),
        Network(name="lab", networks=("198.51.100.64/26",)),
        Network(name="world", networks=("0.0.0.0/0",)),
    ]
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.7:5000", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
        ("[2001:db8::7]:5000", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("[::ffff:192.0.2.7]:5000", "192.0.2.7"),
        ("[fe80::1%eth0]:5000", "fe80::1"),
        ("", "None"),
        (None, "None"),
        ("nonsense", "None"),
        ("192.0.2.300:1", "None"),
        ("192.0.2.7/24", "None"),
        ("[", "None"),
    ],
)
def test_addresses_are_read_as_the_core_writes_them(text: str | None, address: str) -> None:
    assert str(read_address(text)) == address


def test_an_address_is_in_every_network_that_holds_it_and_at_one_place() -> None:
    assert NETWORKS.names_of("198.51.100.70:1") == {"office", "lab", "world"}
    assert NETWORKS.place_of("198.51.100.70:1") == "network lab"
    assert NETWORKS.place_of("198.51.100.7:1") == "network office"
    assert NETWORKS.place_of("[::ffff:198.51.100.7]:1") == "network office"
    assert NETWORKS.names_of("[2001:db8:1:2::3]:9") == {"office"}
    assert NETWORKS.names_of("garbage") == frozenset()
    assert NETWORKS.place_of("203.0.113.9:1") == "network world"


def test_without_a_name_the_place_is_the_network_around() -> None:
    index = NetworkIndex()
    assert index.place_of("203.0.113.9:1") == index.place_of("203.0.113.200:2") == "203.0.113.0/24"
    assert index.place_of("[2001:db8:5:1::1]:1") == index.place_of("[2001:db8:5:2::1]:1") == "2001:db8:5::/48"
    assert index.place_of("203.0.114.9:1") != index.place_of("203.0.113.9:1")


def test_places_are_those_of_live_links() -> None:
    places, index = Places(), NetworkIndex()
    assert places.count("ada", index, NOW) == (1, None)
    places.up("ada", "laptop", "192.0.2.7:1")
    places.up("ada", "phone", "192.0.2.9:1")
    places.up("bob", "laptop2", "203.0.113.9:1")
    assert places.count("ada", index, NOW) == (1, None)
    places.up("ada", "phone", "198.51.100.9:1")
    assert places.count("ada", index, NOW) == (2, None)
    places.up("ada", "laptop", "198.51.100.1:1")  # it moved there too
    assert places.count("ada", index, NOW) == (1, None)
    places.up("ada", "laptop", "192.0.2.7:1")
    places.down("ada", "phone")
    assert places.count("ada", index, NOW) == (1, None)


class Counting(NetworkIndex):
    looked_up = 0

    def place_of(self, address: str | None) -> str:
        self.looked_up += 1
        return super().place_of(address)


def test_a_thousand_clients_behind_one_address_are_looked_at_once() -> None:
    places, index = Places(), Counting()
    for number in range(1000):
        places.up("fleet", f"pod{number}", f"192.0.2.7:{number + 1}")
    assert places.count("fleet", index, NOW) == (1, None)
    assert index.looked_up == 1


def test_places_are_looked_up_again_only_when_somebody_moves_or_networks_change() -> None:
    places, index = Places(), Counting()
    for number in range(10):
        places.up("fleet", f"pod{number}", f"10.{number}.0.1:9")
    assert [places.count("fleet", index, NOW) for _ in range(5)] == [(10, None)] * 5
    assert index.looked_up == 10
    assert places.count("fleet", NetworkIndex([Network(name="all", networks=("10.0.0.0/8",))]), NOW) == (1, None)
    places.down("fleet", "pod0")
    assert places.count("fleet", index, NOW) == (9, None)


def test_addresses_that_cannot_be_read_are_one_place() -> None:
    places, index = Places(), NetworkIndex()
    places.up("fleet", "a", "")
    places.up("fleet", "b", "nonsense:1")
    assert places.count("fleet", index, NOW) == (1, None)
    places.up("fleet", "c", "192.0.2.7:1")
    assert places.count("fleet", index, NOW) == (2, None)


def test_a_sign_in_counts_for_a_while_unless_it_made_a_client_that_is_up() -> None:
    places, index = Places(), NetworkIndex()
    places.up("ada", "laptop", "192.0.2.7:1")
    places.signed_in("ada", "198.51.100.9", "phone", NOW)
    assert places.count("ada", index, NOW) == (2, NOW + SIGN_IN_SECONDS)
    places.up("ada", "phone", "192.0.2.9:1")  # the client that signed in there is here by now
    assert places.count("ada", index, NOW) == (1, None)
    places.signed_in("ada", "198.51.100.9", None, NOW)
    assert places.count("ada", index, NOW + SIGN_IN_SECONDS - 1) == (2, NOW + SIGN_IN_SECONDS)
    assert places.count("ada", index, NOW + SIGN_IN_SECONDS) == (1, None)


def test_what_is_over_leaves_nothing_behind() -> None:
    places, index = Places(), NetworkIndex()
    for at in range(100):
        places.signed_in(f"user{at}", "192.0.2.7", None, NOW)
    places.up("ada", "laptop", "192.0.2.7:1")
    places.down("ada", "laptop")
    places.forget(NOW + SIGN_IN_SECONDS)
    assert places._of == {}
    assert places.count("user1", index, NOW + SIGN_IN_SECONDS) == (1, None)
