"""etcd with users: the CN of a host's certificate is one, and what it may not do is said in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from reconciler.errors import StoreError
from reconciler.store.credentials import Credentials
from reconciler.store.etcd import EtcdStore
from reconciler.store.etcd_client import Etcd3Client, etcdrpc
from reconciler.store.etcd_servers import Servers
from reconciler.store.session import Session

from .certificates import Authority
from .contract import polled
from .etcd_server import EtcdServer, running

READWRITE = 2  # authpb.Permission.READWRITE
PASSWORD = "unused: certificates are shown instead"


def enable_users(server: EtcdServer, shown: Credentials) -> None:
    """root, whom etcd insists on, and alpha with a role for /plumbline/."""
    channel = Etcd3Client("127.0.0.1", server.port, shown.ca, shown.key, shown.cert).channel
    auth = etcdrpc.AuthStub(channel)
    grpc.channel_ready_future(channel).result(20)
    for user, role in (("root", "root"), ("alpha", "hosts")):
        auth.RoleAdd(etcdrpc.AuthRoleAddRequest(name=role))
        auth.UserAdd(etcdrpc.AuthUserAddRequest(name=user, password=PASSWORD))
        auth.UserGrantRole(etcdrpc.AuthUserGrantRoleRequest(user=user, role=role))
    request = etcdrpc.AuthRoleGrantPermissionRequest(name="hosts")
    request.perm.permType = READWRITE
    request.perm.key, request.perm.range_end = b"/plumbline/", b"/plumbline0"
    auth.RoleGrantPermission(request)
    auth.AuthEnable(etcdrpc.AuthEnableRequest())
    channel.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdStore]:
    folder: Path = tmp_path_factory.mktemp("users")
    authority = Authority(folder, "pt-authority")
    own = authority.credentials("pt-etcd")
    tls = f"--client-cert-auth --trusted-ca-file {own.ca} --cert-file {own.cert} --key-file {own.key}"
    with running(folder / "etcd", tls.split()) as server:
        enable_users(server, authority.credentials("root"))
        with closing(EtcdStore(Servers([server.endpoint], authority.credentials("alpha")))) as opened:
            yield opened


def test_a_host_may_use_what_its_role_grants(store: EtcdStore) -> None:
    with closing(store.watch("/plumbline/a", store.range("/plumbline/").revision)) as watch:
        assert store.transact({"/plumbline/a": 0}, {"/plumbline/a": b"1"})
        assert [event.value for event in polled(watch, 1)] == [b"1"]
    with closing(Session(store)) as session:
        assert session.put("/plumbline/b", b"1")


def test_what_it_may_not_is_said_with_the_way_to_grant_it(store: EtcdStore) -> None:
    with pytest.raises(StoreError, match="permission denied") as caught:
        store.put("/elsewhere", b"1")
    assert "role for the keys below /plumbline/" in caught.value.remedy


def test_a_watch_that_it_may_not_have_says_so(store: EtcdStore) -> None:
    with closing(store.watch("/elsewhere", 0)) as watch, pytest.raises(StoreError, match="permission denied") as caught:
        watch.poll(20)
    assert "role for the keys below /plumbline/" in caught.value.remedy
