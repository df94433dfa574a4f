"""A Galaxy server that is killed, started again and stopped."""

from __future__ import annotations

import pytest

from tests.servers.galaxy import GalaxyServer
from tests.servers.processes import pid_is_alive, port_is_listening


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_stop_and_start_keep_the_data_and_stop_leaves_nothing_behind(
    private_galaxy: GalaxyServer,
) -> None:
    server = private_galaxy
    server.start()
    key = server.create_user("kept@biobank.example")
    pids, ports, url = server.process_ids(), server.ports(), server.url

    server.kill()
    assert not [pid for pid in pids if pid_is_alive(pid)]

    server.start()
    assert server.url == url
    assert server.create_user("kept@biobank.example") == key
    pids = server.process_ids()
    assert all(port_is_listening(port) for port in ports)

    server.stop()
    assert not [pid for pid in pids if pid_is_alive(pid)]
    assert not [port for port in ports if port_is_listening(port)]
    assert not server.folder.exists()
