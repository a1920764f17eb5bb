"""Objects become pinned programs with their options; maps keep their rows or make way; errors say why."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reconciler import shipped
from reconciler.bpf import clock, maps, pins, syscalls
from reconciler.bpf.bpffs import escaped, unescaped
from reconciler.bpf.syscalls import held
from reconciler.datapath.build import build, compile_object
from reconciler.datapath.loader import Datapath
from reconciler.datapath.objects import BpfObject
from reconciler.datapath.options import map_sizes_of, options_of, ticks
from reconciler.errors import KernelError
from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.kernel.programs import ProgramsTable
from reconciler.model.cluster import Cluster, Conntrack, DirectReturn, Network, NetworkMode, Services, Timeouts
from reconciler.model.datapath import ProgramRow
from reconciler.model.origin import Origin

from .conftest import OPTIONS

CHECKOUT = Path(__file__).parents[2]
BROKEN = """
#include "lib/state.h"
SEC("tc") int from_workload(struct __sk_buff *skb) { return *(int *)(long)skb->len; }
SEC("tc") int to_workload(struct __sk_buff *skb) { return host_state() ? 0 : skb->len; }
char LICENSE[] SEC("license") = "GPL";
"""


def ids(root: Path) -> dict[tuple[str, str], int]:
    return {(program.name, program.digest): program.id for program in pins.pinned_programs(root)}


def test_programs_and_maps_are_pinned_by_name(pin_root: Path) -> None:
    datapath = Datapath(pin_root, OPTIONS)
    datapath.load()
    assert set(ids(pin_root)) == {(name, row.digest) for name, row in datapath.program_rows().items()}
    assert {"state", "policy", "ipcache4", "cidr6", "conntrack4", "events"} <= set(pins.map_ids(pin_root))


def test_loading_again_does_nothing(pin_root: Path) -> None:
    Datapath(pin_root, OPTIONS).load()
    before = ids(pin_root)
    Datapath(pin_root, OPTIONS).load()
    assert ids(pin_root) == before


def test_other_options_make_another_program_over_the_same_maps(pin_root: Path) -> None:
    Datapath(pin_root, OPTIONS).load()
    maps_before = pins.map_ids(pin_root)
    Datapath(pin_root, OPTIONS | {"timeout_udp": 3}).load()
    made_anew = dict.fromkeys(("policy", "service_tables"), 0)  # empty: nobody knows what they may hold
    assert {**pins.map_ids(pin_root), **made_anew} == {**maps_before, **made_anew}
    assert [name for name, _ in ids(pin_root)].count("from_workload") == 2


@pytest.mark.parametrize(
    ("options", "sizes", "message"),
    [
        ({"timeout_icpm": 1}, {}, "no BPF object knows timeout_icpm"),
        ({}, {"conntrack": 1}, "no BPF object knows conntrack"),
        ({"gateway_mac": b"\1\2"}, {}, "does not fit its type"),
        ({"redirect_peer": 256}, {}, "does not fit its type"),
        ({"timeout_udp": -1}, {}, "does not fit its type"),
    ],
)
def test_an_option_that_does_not_exist_or_fit_is_an_error(
    pin_root: Path, options: dict[str, int | bytes], sizes: dict[str, int], message: str
) -> None:
    with pytest.raises(KernelError, match=message):
        Datapath(pin_root, options, sizes).load()


def test_what_a_kernel_cannot_load_is_left_out(pin_root: Path) -> None:
    whole = Datapath(pin_root, OPTIONS).program_rows()
    rest = Datapath(pin_root, OPTIONS, left_out=("xdp",)).program_rows()
    assert whole.keys() - rest.keys() == {"at_device", "in_driver"}


def test_a_clusters_settings_of_what_is_left_out_mean_nothing(pin_root: Path) -> None:
    cluster = Cluster("c", Origin("cluster.yaml", 1, "Cluster", "c", "0" * 40))
    rest = Datapath(pin_root, options_of(cluster), map_sizes_of(cluster), left_out=("xdp",))
    rest.load()
    assert {name for name, _ in ids(pin_root)} == rest.program_rows().keys()
    assert "passing4" not in pins.map_ids(pin_root)


def test_a_map_of_another_size_makes_way_and_the_others_keep_their_rows(pin_root: Path) -> None:
    Datapath(pin_root, OPTIONS).load()
    kept = PinnedMaps(pin_root).open("ipcache4")
    kept.update(np.array([7], kept.key_dtype), np.ones(1, kept.value_dtype))
    Datapath(pin_root, OPTIONS, {"conntrack4": 4096}).load()
    assert PinnedMaps(pin_root).open("conntrack4").info.max_entries == 4096
    assert PinnedMaps(pin_root).open("ipcache4").read()[0].tolist() == [7]
    assert (pin_root / "maps" / "conntrack4__old").exists()


def test_a_map_of_another_layout_makes_way(pin_root: Path) -> None:
    Datapath(pin_root, OPTIONS).load()
    with held(maps.create(maps.HASH, 4, 20, 524288, flags=maps.NO_PREALLOC, name="ipcache4")) as wider:
        syscalls.pin(wider, str(pin_root / "maps" / "ipcache4"))
    Datapath(pin_root, OPTIONS | {"timeout_udp": 3}).load()
    assert PinnedMaps(pin_root).open("ipcache4").info.value_size == 16


def test_the_verifiers_reason_is_in_the_error_and_replaced_maps_come_back(pin_root: Path, tmp_path: Path) -> None:
    Datapath(pin_root, OPTIONS).load()
    before = pins.map_ids(pin_root)
    source = tmp_path / "endpoint.bpf.c"
    source.write_text(BROKEN.replace("lib/", f"{CHECKOUT}/bpf/lib/"))
    compile_object(source, tmp_path / "endpoint.bpf.o", tmp_path)
    for other in shipped.bpf_objects().glob("*.bpf.o"):
        if other.name != "endpoint.bpf.o":
            (tmp_path / other.name).write_bytes(other.read_bytes())
    with pytest.raises(KernelError, match="invalid mem access") as error:
        Datapath(pin_root, map_sizes={"conntrack4": 512, "state": 1}, objects=tmp_path).load()
    assert "from_workload" in str(error.value)
    assert pins.map_ids(pin_root) == before


def test_an_object_that_is_missing_or_no_object_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="missing"):
        BpfObject(tmp_path / "none.bpf.o", tmp_path)
    (tmp_path / "text.bpf.o").write_text("not an object")
    with pytest.raises(KernelError, match=r"text\.bpf\.o"):
        BpfObject(tmp_path / "text.bpf.o", tmp_path)


def test_a_pin_root_elsewhere_or_with_a_dot_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="not on a BPF file system") as error:
        Datapath(tmp_path / "pins", OPTIONS).load()
    assert "mount -t bpf" in error.value.remedy
    with pytest.raises(KernelError, match="no dots"):
        Datapath(Path("/sys/fs/bpf/pt.dot"), OPTIONS).load()


def test_the_bpf_file_system_is_mounted_where_it_is_missing() -> None:
    program = "from pathlib import Path; from reconciler.bpf import bpffs; bpffs.ensure(Path('/sys/fs/bpf/x'))"
    script = f'umount -R /sys/fs/bpf; {sys.executable} -c "{program}" && ls /sys/fs/bpf/x'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, cwd=CHECKOUT, check=False
    )
    assert done.stdout.split() == ["links", "maps", "programs"], done.stderr


def test_names_survive_their_escape() -> None:
    assert "." not in escaped("eth0.100%")
    assert unescaped(escaped("eth0.100%2e")) == "eth0.100%2e"


def test_the_programs_table_loads_replaces_and_unpins(pin_root: Path) -> None:
    datapath = Datapath(pin_root, OPTIONS)
    table = ProgramsTable(pin_root, datapath.load_program)
    assert table.live().rows == {}
    table.write(datapath.program_rows(), ())
    assert table.live().rows == datapath.program_rows()
    assert set(table.live({"to_workload"}).rows) == {"to_workload"}
    table.write({}, list(datapath.program_rows()))
    table.write({}, list(datapath.program_rows()))
    assert table.live().rows == {}
    assert not list((pin_root / "programs").iterdir())


def test_programs_know_how_long_a_tick_of_this_kernel_is(pin_root: Path) -> None:
    given = {ns: Datapath(pin_root, {"jiffy_ns": ns}).program_rows() for ns in (clock.tick_ns(), clock.tick_ns() + 1)}
    assert Datapath(pin_root).program_rows() == given[clock.tick_ns()] != given[clock.tick_ns() + 1]


def test_a_program_that_is_not_ours_to_load_is_an_error(pin_root: Path) -> None:
    table = ProgramsTable(pin_root, Datapath(pin_root, OPTIONS).load_program)
    with pytest.raises(KernelError, match="not what this version"):
        table.write({"to_workload": ProgramRow("0123456789ab")}, ())


def test_a_clusters_settings_become_options_and_sizes() -> None:
    origin = Origin("cluster.yaml", 1, "Cluster", "c", "0" * 40)
    cluster = Cluster("c", origin, conntrack=Conntrack(1000, Timeouts(udp_s=60)))
    assert options_of(cluster, redirect_peer=False)["timeout_udp"] == 56
    assert options_of(cluster)["gateway_mac"] == bytes.fromhex("ee" * 6)
    assert map_sizes_of(cluster)["conntrack6"] == 1000
    assert [ticks(0), ticks(1), ticks(2)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("entries", "cpus", "remembered"), [(131072, 1, 32768), (131072, 2, 16384), (131072, 128, 256), (1024, 2, 256)]
)
def test_a_tick_of_a_flood_takes_an_eighth_of_the_rows_or_little(entries: int, cpus: int, remembered: int) -> None:
    origin = Origin("cluster.yaml", 1, "Cluster", "c", "0" * 40)
    cluster = Cluster("c", origin, conntrack=Conntrack(entries), services=Services())
    assert options_of(cluster, cpus=cpus)["remembered_per_tick"] == remembered


@pytest.mark.parametrize(("way", "number"), [*zip(DirectReturn, (0, 1, 2, 3), strict=True)])
def test_programs_know_how_answers_return(way: DirectReturn, number: int) -> None:
    cluster = Cluster("c", Origin("cluster.yaml", 1, "Cluster", "c", "0" * 40))
    assert options_of(cluster)["direct_return"] == 0
    assert options_of(replace(cluster, services=Services(direct_return=way)))["direct_return"] == number


@pytest.mark.parametrize(
    ("network", "port"),
    [
        (Network(), 6081),
        (Network(NetworkMode.VXLAN, port=4789), 6081),
        (Network(NetworkMode.GENEVE), 6081),
        (Network(NetworkMode.GENEVE, port=7081), 7081),
    ],
)
def test_geneve_has_one_port_in_a_cluster(network: Network, port: int) -> None:
    cluster = Cluster("c", Origin("cluster.yaml", 1, "Cluster", "c", "0" * 40), network=network)
    assert options_of(cluster)["direct_port"] == port


def test_maps_of_services_are_small_until_the_cluster_serves_them() -> None:
    cluster = Cluster("c", Origin("cluster.yaml", 1, "Cluster", "c", "0" * 40))
    assert {map_sizes_of(cluster)[name] for name in ("frontends4", "service_flows6", "affinities")} == {64}
    assert "frontends4" not in map_sizes_of(replace(cluster, services=Services()))


def test_objects_are_built_once_and_the_same_bytes_anywhere(tmp_path: Path) -> None:
    for name in ("a", "b"):
        subprocess.run(["cp", "-r", str(CHECKOUT / "bpf"), str(tmp_path / name)], check=True)
        assert build(tmp_path / name, tmp_path / f"{name}-out")
        assert build(tmp_path / name, tmp_path / f"{name}-out") == []
    for path in (tmp_path / "a-out").glob("*.bpf.o"):
        assert path.read_bytes() == (tmp_path / "b-out" / path.name).read_bytes()


def test_an_error_of_the_compiler_is_shown(tmp_path: Path) -> None:
    (tmp_path / "x.bpf.c").write_text("int f( {")
    with pytest.raises(KernelError, match=r"x\.bpf\.c:1"):
        build(tmp_path, tmp_path / "out")
