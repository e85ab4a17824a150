"""What `ipvsproxy dump` says of a node where something was broken on purpose: its words, its exit codes."""

from __future__ import annotations

import io
import json
import socket
import tarfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import ServiceType
from netns_tests import others, tables
from netns_tests.cluster import Cluster
from netns_tests.deadline import await_that
from netns_tests.program import PROGRAM, run_to_end
from netns_tests.servers import HTTP_PORT
from netns_tests.traffic import Connection

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from netns_tests.cluster import ServiceUnderTest

    NewService = Callable[..., ServiceUnderTest]

REPOSITORY = Path(__file__).parents[1]
NOTHING_DIFFERS = "nothing differs: the kernel has what the agent wants\n"
WITHOUT_NET_ADMIN = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # What others change stays as it is while it is looked at.
    with Cluster.built(tmp_path_factory.mktemp("cluster"), sync_period="1h") as built:
        built.agent.start()
        yield built


@pytest.fixture
def stopped_agent(cluster: Cluster) -> Iterator[None]:
    cluster.agent.kill()
    yield
    cluster.agent.start()


@pytest.fixture
def repaired(cluster: Cluster) -> Iterator[None]:
    """Let the agent compare everything with the kernel at the end, and repair it."""
    yield
    cluster.agent.kill()
    cluster.agent.start()
    ended = dump(cluster, "--diff")
    assert (ended.stdout, ended.returncode) == (NOTHING_DIFFERS, 0)


def dump(
    cluster: Cluster, *options: str, prefix: tuple[str, ...] = (), run_directory: Path | None = None
) -> subprocess.CompletedProcess[str]:
    directory = run_directory or cluster.agent.run_directory
    with cluster.node.namespace.entered():
        return run_to_end([*prefix, *PROGRAM, "dump", f"--run-directory={directory}", *options])


def rows(text: str) -> list[list[str]]:
    """Return the cells of each row of each table, which are three spaces apart."""
    return [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in text.splitlines()]


def assert_differs(cluster: Cluster, *sentences: str) -> str:
    """Say that each of these sentences, and nothing else, differs; return what --diff shows."""
    ended = dump(cluster, "--diff")
    assert (ended.returncode, ended.stderr) == (1, "")
    _, _, table = ended.stdout.partition("DIFFERENCE\n")
    assert [row[-1] for row in rows(table.partition("\n\n")[0])] == list(sentences)
    shown = dump(cluster)
    assert (shown.returncode, shown.stderr) == (0, "")
    for sentence in sentences:
        assert sentence in shown.stdout
    return ended.stdout


def assert_refused(ended: subprocess.CompletedProcess[str], code: int, line: str) -> None:
    """Say that there is this one line, and nothing to read but that."""
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "", f"ipvsproxy: {line}\n")


@pytest.mark.usefixtures("repaired")
def test_a_virtual_server_that_somebody_deleted(cluster: Cluster, new_service: NewService) -> None:
    service = new_service("web-1")
    new_service("web-2")
    target = service.target(Family.IPV4)
    others.delete_virtual_server(cluster.node, target)
    shown = assert_differs(cluster, f"virtual server {target.address}:80/tcp is missing")
    # Of all virtual servers, this one alone.
    assert rows(shown)[1:3] == [
        [f"default/{service.name}", f"{target.address}:80/tcp", "-", "-", "-", "-", "missing"],
        [],
    ]
    found = json.loads(dump(cluster, "-o", "json", "--address", f"{target.address}:80").stdout)
    (virtual_server,) = found["virtualServers"]
    assert (virtual_server["state"], virtual_server["differences"]) == (
        "missing",
        [f"virtual server {target.address}:80/tcp is missing"],
    )


@pytest.mark.usefixtures("repaired")
def test_rules_that_somebody_flushed(cluster: Cluster, new_service: NewService) -> None:
    new_service("web-1")
    others.nft(cluster.node, f"flush table {tables.TABLE}")
    assert_differs(cluster, f"table {tables.TABLE} is not as the agent makes it")


@pytest.mark.usefixtures("repaired")
def test_a_set_that_somebody_flushed(cluster: Cluster, new_service: NewService) -> None:
    service = new_service("web-1")
    address = service.addresses[Family.IPV6]
    others.nft(cluster.node, f"flush set {tables.TABLE} service-addresses-ipv6")
    sentence = f"element {address} of set service-addresses-ipv6 is missing"
    shown = assert_differs(cluster, sentence)
    assert f"[{address}]:80/tcp" in shown
    found = json.loads(dump(cluster, "-o", "json", "--address", address).stdout)
    assert [each["differences"] for each in found["virtualServers"]] == [[sentence]] * 4
    assert all("service-ports-ipv6" in each["sets"] for each in found["virtualServers"])
    assert not any("service-addresses-ipv6" in each["sets"] for each in found["virtualServers"])


@pytest.mark.usefixtures("repaired")
def test_an_address_that_somebody_bound(cluster: Cluster, new_service: NewService) -> None:
    new_service("web-1")
    cluster.node.namespace.run("ip", "address", "add", "192.0.2.99/32", "dev", tables.INTERFACE)
    sentence = "address 192.0.2.99 is on the dummy interface, and no Service asks for it"
    assert_differs(cluster, sentence)
    assert sentence in dump(cluster, "--address=192.0.2.99").stdout
    assert ["192.0.2.99", "unwanted"] in rows(dump(cluster, "-o", "wide").stdout)


@pytest.mark.usefixtures("repaired")
def test_a_weight_that_somebody_changed(cluster: Cluster, new_service: NewService) -> None:
    service = new_service("web-1", "web-2")
    target, pod = service.target(Family.IPV4), cluster["web-1"].addresses[Family.IPV4]
    others.set_weight(cluster.node, target, pod, HTTP_PORT, weight=7)
    sentence = (
        f"real server {pod}:{HTTP_PORT} of virtual server {target.address}:80/tcp has weight 7 instead of 1"
    )
    shown = assert_differs(cluster, sentence)
    row = [f"default/{service.name}", f"{target.address}:80/tcp", f"{pod}:{HTTP_PORT}"]
    assert rows(shown)[1:3] == [[*row, "7, desired 1", "0", "0", "differs"], []]
    # It is nobody else's difference.
    healthy = cluster["web-2"].addresses[Family.IPV4]
    elsewhere = dump(cluster, "--diff", "--endpoint", healthy)
    assert (elsewhere.returncode, elsewhere.stdout) == (0, NOTHING_DIFFERS)
    here = dump(cluster, "--diff", "--endpoint", pod)
    assert (here.returncode, sentence in here.stdout) == (1, True)


def test_a_service_an_address_and_an_endpoint_are_found_with_what_belongs_to_them(
    cluster: Cluster, new_service: NewService
) -> None:
    service, other = new_service("web-1", "web-2"), new_service("web-1")
    address, pod = service.addresses[Family.IPV4], cluster["web-1"].addresses[Family.IPV4]
    by_service = json.loads(dump(cluster, "-o", "json", "--service", service.name).stdout)
    assert {each["address"] for each in by_service["virtualServers"]} == set(service.addresses.values())
    by_address = json.loads(dump(cluster, "-o", "json", "--address", address).stdout)
    assert {(each["service"], each["port"]) for each in by_address["virtualServers"]} == {
        (f"default/{service.name}", port.port) for port in service.ports
    }
    assert [each["address"] for each in by_address["addresses"]] == [address]
    by_endpoint = json.loads(dump(cluster, "-o", "json", "--endpoint", pod).stdout)
    found = {each["service"] for each in by_endpoint["virtualServers"]}
    assert found >= {f"default/{service.name}", f"default/{other.name}"}
    assert {
        real_server["address"]
        for virtual_server in by_endpoint["virtualServers"]
        for real_server in virtual_server["realServers"]
    } == {pod}
    both = dump(cluster, f"--service={service.name}", f"--endpoint={pod}", f"--address={address}:80")
    assert rows(both.stdout)[1:] == [
        [f"default/{service.name}", f"{address}:80/tcp", f"{pod}:{HTTP_PORT}", "1", "0", "0", "serving"]
    ]


def test_counters_and_clients_that_persistence_keeps_are_the_kernels(
    cluster: Cluster, new_service: NewService
) -> None:
    service = new_service("web-1")
    target, options = service.target(Family.IPV4), ("-o", "json", "--service", service.name)
    service.become(ServiceType.CLUSTER_IP, session_affinity_timeout=600)
    await_that(
        lambda: "persistent" in tables.virtual_servers(cluster.node)[target].settings,
        "affinity is programmed",
    )
    with Connection(cluster["client"], target) as connection:
        connection.ask()

        def counted() -> dict[str, Any]:
            found = json.loads(dump(cluster, *options, f"--address={target.address}:80").stdout)
            virtual_server: dict[str, Any] = found["virtualServers"][0]
            return virtual_server

        # The kernel adds up every two seconds.
        await_that(lambda: counted()["statistics"]["total"]["connections"] == 1, "the connection is counted")
        shown = counted()
    (actual,) = [each["actual"] for each in shown["realServers"]]
    assert (actual["activeConnections"], actual["persistentConnections"]) == (1, 1)
    assert actual["statistics"]["total"] == shown["statistics"]["total"]
    assert actual["statistics"]["total"]["bytesIn"] > 0


def test_what_nobody_has_is_one_line_and_exit_code_2(cluster: Cluster, new_service: NewService) -> None:
    service = new_service("web-1")
    address = service.addresses[Family.IPV4]
    assert_refused(
        dump(cluster, "--service=default/nope"),
        2,
        "--service default/nope: the agent knows no such Service; without --service, dump shows those that it knows",
    )
    assert_refused(
        dump(cluster, "--address=192.0.2.200"),
        2,
        "--address 192.0.2.200: no Service that is known here has it, and there is nothing of ipvsproxy's at it",
    )
    assert_refused(
        dump(cluster, f"--address={address}:7"),
        2,
        f"--address {address}:7: nobody has this port; there is "
        f"{address}:80/tcp, {address}:81/tcp, {address}:53/udp, {address}:3868/sctp",
    )
    assert_refused(
        dump(cluster, "--endpoint=192.0.2.200"),
        2,
        "--endpoint 192.0.2.200: no Service that is known here has such an endpoint, "
        "and no virtual server such a real server",
    )


def test_an_address_of_somebody_elses_virtual_server_is_said_to_be_that(cluster: Cluster) -> None:
    theirs = cluster.reserve_service().target(Family.IPV4)
    others.add_virtual_server(cluster.node, theirs, "rr", [])
    try:
        assert_refused(
            dump(cluster, f"--address={theirs.address}"),
            2,
            f"--address {theirs.address}: virtual server {theirs.address}:80/tcp is not ipvsproxy's",
        )
    finally:
        others.delete_virtual_server(cluster.node, theirs)


def test_without_the_agent_addresses_and_endpoints_are_found_in_the_kernel(
    cluster: Cluster, new_service: NewService
) -> None:
    socket_path = cluster.agent.run_directory / "agent.sock"
    service = new_service("web-1")
    # It is started again before the Service goes.
    cluster.agent.kill()
    address, pod = service.addresses[Family.IPV4], cluster["web-1"].addresses[Family.IPV4]
    for option in (f"--address={address}:80", f"--endpoint={pod}"):
        alone = dump(cluster, option)
        assert alone.returncode == 0
        assert alone.stderr == (
            f"ipvsproxy: the agent is not running, nobody listens on {socket_path}: this is the kernel's state alone\n"
        )
        assert ["-", f"{address}:80/tcp", f"{pod}:{HTTP_PORT}", "1", "0", "0", "serving"] in rows(
            alone.stdout
        )
    assert_refused(
        dump(cluster, "--diff"),
        1,
        "--diff: there is nothing to compare the kernel with: the agent is not running, "
        f"nobody listens on {socket_path}; without --diff, dump shows the kernel's state",
    )


def test_an_agent_of_another_schema_version_is_one_line(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b'{"schemaVersion":99}')

        thread = threading.Thread(target=answer)
        thread.start()
        ended = dump(cluster, run_directory=tmp_path)
        thread.join()
    assert_refused(
        ended,
        1,
        f"{path}: the agent answers in schema version 99, this program reads 1: "
        "use the ipvsproxy of the agent's version",
    )


@pytest.mark.parametrize("option", ["--diff", "--bundle=bundle.tar.gz"])
def test_without_the_right_to_look_there_is_one_line_and_exit_code_77(cluster: Cluster, option: str) -> None:
    assert_refused(
        dump(cluster, option, prefix=WITHOUT_NET_ADMIN),
        77,
        "CAP_NET_ADMIN is missing: run as root, or give the container the capability NET_ADMIN",
    )


def opened(archive: bytes) -> dict[str, bytes]:
    """Return the files of an archive by their names in its one folder."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened_archive:
        files = {member.name: opened_archive.extractfile(member) for member in opened_archive}
        contents = {name: file.read() for name, file in files.items() if file}
    assert len({name.partition("/")[0] for name in contents}) == 1
    return {name.partition("/")[2]: content for name, content in contents.items()}


def test_the_bundle_has_what_a_bug_report_needs(
    cluster: Cluster, new_service: NewService, tmp_path: Path
) -> None:
    service = new_service("web-1")
    file = tmp_path / "bundle.tar.gz"
    ended = dump(cluster, f"--bundle={file}")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr.startswith("ipvsproxy: collected dump.json\n")
    assert ended.stderr.endswith(f"ipvsproxy: {file} is written; MANIFEST in it says what is there\n")
    assert file.stat().st_mode & 0o777 == 0o600
    found = opened(file.read_bytes())
    assert json.loads(found["dump.json"])["differences"] == []
    for name in ("dump.txt", "report.json", "nft-ruleset.txt", "addresses.json"):
        assert service.addresses[Family.IPV4].encode() in found[name]
    assert b"first sync" in found["events.jsonl"]
    assert all(json.loads(line)["event"] for line in found["events.jsonl"].splitlines())
    assert b"hostname-override" in found["config.json"]
    assert b"RemoteAddress:Port" in found["ip_vs.txt"]
    assert b"net.ipv4.vs.conntrack = 1\n" in found["sysctls.txt"]
    assert b"nft: nftables v" in found["versions.txt"]
    assert "dump.json: what `ipvsproxy dump -o json` shows, " in found["MANIFEST"].decode()
    assert_refused(
        dump(cluster, f"--bundle={file}"), 2, f"--bundle {file}: the file is there already: give another name"
    )
    assert [each.name for each in tmp_path.iterdir()] == ["bundle.tar.gz"]


@pytest.mark.usefixtures("stopped_agent")
def test_the_bundle_is_written_without_the_agent_and_says_what_is_missing(
    cluster: Cluster, tmp_path: Path
) -> None:
    file = tmp_path / "bundle.tar.gz"
    ended = dump(cluster, f"--bundle={file}")
    assert ended.returncode == 0
    reason = f"the agent is not running, nobody listens on {cluster.agent.run_directory}/agent.sock"
    assert f"ipvsproxy: no report.json: {reason}\n" in ended.stderr
    found = opened(file.read_bytes())
    assert "report.json" not in found
    manifest = found["MANIFEST"].decode()
    assert f"report.json: what the agent wants, and why, missing: {reason}\n" in manifest
    assert json.loads(found["dump.json"])["agent"] is None
    assert b"table inet ipvsproxy" in found["nft-ruleset.txt"]
