"""The laboratory itself: a claim about a closed cluster is worth what the closing is worth."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from netlab import CONGESTION_CONTROL, Lab, Machine, permitted

pytestmark = pytest.mark.skipif(permitted() is not None, reason=permitted() or "")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def test_laptop_reaches_inet_and_not_cluster(lab: Lab) -> None:
    listener = lab.inet.inside(lambda: socket.create_server((lab.inet.address, 7000)))
    closed = lab.cluster.inside(lambda: socket.create_server((lab.cluster.address, 7000)))
    with listener, closed:
        lab.laptop.dial(lab.inet.address, 7000).close()
        with pytest.raises(TimeoutError):
            lab.laptop.dial(lab.cluster.address, 7000, timeout=0.5)
        assert lab.laptop.scan(lab.inet.address, "6990-7010") == [7000]
        assert lab.laptop.scan(lab.cluster.address, "6990-7010") == []


def test_cluster_reaches_services_and_laptop_has_no_way_there(lab: Lab) -> None:
    address = lab.service_address(10)
    with lab.services.inside(lambda: socket.create_server((address, 8888))):
        lab.cluster.dial(address, 8888).close()
        with pytest.raises(OSError):
            lab.laptop.dial(address, 8888, timeout=0.5)


def test_cluster_may_dial_out_over_both_families(lab: Lab) -> None:
    for address in (lab.inet.address, lab.inet.address6):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with lab.inet.inside(lambda address=address, family=family: socket.create_server((address, 7001), family=family)):
            lab.cluster.dial(address, 7001).close()


def test_every_host_uses_the_named_congestion_control(lab: Lab) -> None:
    for host in lab.hosts.values():
        assert host.run("sysctl", "-n", "net.ipv4.tcp_congestion_control").stdout.strip() == CONGESTION_CONTROL


def test_capture_sees_what_crosses_its_leg(lab: Lab) -> None:
    listener = lab.inet.inside(lambda: socket.create_server((lab.inet.address, 7002)))
    with listener, lab.capture("laptop") as path, lab.laptop.dial(lab.inet.address, 7002) as flow:
        flow.sendall(b"a secret in the clear")
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(64) == b"a secret in the clear"
    text = subprocess.run(["tcpdump", "-A", "-r", path], capture_output=True, text=True, check=True).stdout
    assert "a secret in the clear" in text


def test_listening_names_the_sockets_of_one_process(lab: Lab) -> None:
    process = lab.services.start("nc", "python3", "-m", "http.server", "9009")
    for _ in range(200):
        if lab.services.listening(process.pid):
            break
        try:
            lab.services.dial("127.0.0.1", 9009, timeout=0.05).close()
        except OSError:
            continue
    assert lab.services.listening(process.pid) == ["tcp 0.0.0.0:9009"]
    assert lab.cluster.listening(process.pid) == []


def test_a_laboratory_leaves_nothing_behind() -> None:
    with Lab(prefix="lab-gone") as gone:
        gone.laptop.write_file("hosts", "192.0.2.1 somewhere\n")
        assert "192.0.2.1" in gone.laptop.run("cat", "/etc/hosts").stdout
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert "lab-gone" not in listed


def test_laptops_of_several_people_are_hosts_of_their_own() -> None:
    with Lab(prefix="lab-two", laptops=("ada", "ben")) as lab:
        assert lab.hosts["ada"].address != lab.hosts["ben"].address
        with lab.hosts["ada"].inside(lambda: socket.create_server(("127.0.0.1", 7000))), pytest.raises(ConnectionRefusedError):
            lab.hosts["ben"].dial("127.0.0.1", 7000)


def test_what_a_process_left_behind_ends_with_its_machine(tmp_path: Path) -> None:
    machine = Machine("here", tmp_path)
    child = "import subprocess, sys; p = subprocess.Popen(['sleep', '600'], start_new_session=True); print(p.pid, flush=True); sys.stdin.read()"
    process = machine.start("parent", sys.executable, "-c", child, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    machine.end()
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
