"""What a cluster's settings mean for the programs: load-time options and sizes of maps."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.datapath.objects import Option
from reconciler.model import overlay
from reconciler.model.cluster import Cluster, DirectReturn, NetworkMode, XdpMode
from reconciler.model.datapath import GATEWAY_MAC

_TICK_BITS = 30  # bpf/lib/base.h: a tick is 2^30 ns
_NS = 10**9
_NONE = 16  # entries that such a map has at least to have
_OF_SERVICES = (
    *("frontends4", "frontends6", "services", "service_tables", "service_sources4", "service_sources6", "backends"),
    *("service_flows4", "service_flows6", "affinities"),
)
_DIRECT = {DirectReturn.NONE: 0, DirectReturn.OPTION: 1, DirectReturn.IPIP: 2, DirectReturn.GENEVE: 3}
_SHARE = 8  # of the rows of `translations`, one in so many may be new in a tick: all at once would push out all others
_SOME = 256  # new ones in a tick on each CPU in any case
_UNUSED = 64  # entries of these where the cluster serves no services: they take their room whether they are used or not


def options_of(
    cluster: Cluster, *, redirect_peer: bool = True, prefilter: bool = False, cpus: int = 1
) -> Mapping[str, Option]:
    """Option name -> value, for `Datapath`. `redirect_peer`: this kernel has it. `prefilter`: some are denied. `cpus`:
    possible ones.
    """
    timeouts = cluster.conntrack.timeouts
    return {
        "timeout_tcp_established": ticks(timeouts.tcp_established_s),
        "timeout_tcp_opening": ticks(timeouts.tcp_opening_s),
        "timeout_tcp_closing": ticks(timeouts.tcp_closing_s),
        "timeout_udp": ticks(timeouts.udp_s),
        "timeout_icmp": ticks(timeouts.icmp_s),
        "timeout_other": ticks(timeouts.other_s),
        "gateway_mac": bytes.fromhex(GATEWAY_MAC.replace(":", "")),
        "redirect_peer": redirect_peer,
        "overlay": cluster.network.is_overlay,
        "geneve": cluster.network.mode is NetworkMode.GENEVE,
        "serving": cluster.services is not None,
        "prefilter": prefilter,
        "tunnel_port": overlay.port(cluster.network),
        "direct_return": _DIRECT[cluster.direct_return],
        "direct_port": overlay.direct_port(cluster.network),
        "remembered_per_tick": max(map_sizes_of(cluster)["translations"] // (_SHARE * cpus), _SOME),
        "masquerade_first_port": cluster.masquerade.first_port,
        "masquerade_last_port": cluster.masquerade.last_port,
    }


def map_sizes_of(cluster: Cluster) -> Mapping[str, int]:
    """Map name -> entries, for `Datapath`."""
    entries = cluster.conntrack.max_entries
    translates = cluster.masquerade.enabled or cluster.services is not None
    translations = 2 * entries if translates else _NONE  # one for each direction
    passing = entries if cluster.services is not None and cluster.xdp is not XdpMode.OFF else _UNUSED
    sizes = {
        "conntrack4": entries,
        "conntrack6": entries,
        "translations": translations,
        "passing4": passing,
        "passing6": passing,
        "backend_ports": entries if cluster.direct_return is DirectReturn.IPIP else _UNUSED,
    }
    return sizes if cluster.services else {**sizes, **dict.fromkeys(_OF_SERVICES, _UNUSED)}


def ticks(seconds: int) -> int:
    """Seconds as ticks of the datapath's clock, rounded up."""
    return -(-seconds * _NS >> _TICK_BITS)
