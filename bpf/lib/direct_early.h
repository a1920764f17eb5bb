/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Direct return at XDP: a client's packet is wrapped for a backend that answers it, from the first one on. */
#pragma once

#include "balance.h"
#include "direct_return.h"
#include "early.h"
#include "ipcache.h"
#include "neighbour.h"
#include "path_mtu.h"
#include "state.h"

/* Packets to backends that answer directly are wrapped here. Geneve and options are left to tc. */
INLINE bool wraps(void)
{
	return direct_return == DIRECT_IPIP;
}

/* The service behind a frontend that anybody may use, from wherever; NULL: it is not for this program. */
INLINE struct service *open_service(const struct frontend *frontend, __u32 epoch, __u32 *id)
{
	struct fronted fronted = frontend_at(frontend, epoch);
	struct service *service;

	if (!fronted.service || fronted.flags)
		return NULL;
	service = bpf_map_lookup_elem(&services, &fronted.service);
	*id = fronted.service;
	return service && service->slots && !service->affinity_s ? service : NULL;
}

/* So many flows of Maglev services each CPU remembers in a tick. */
OPTION(__u32, remembered_per_tick, 1 << 17);

/* How many it has. Written and read by the program. */
struct remembered {
	__u32 tick;
	__u32 flows;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct remembered);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} remembered SEC(".maps");

/* More flows begin than anybody's clients do: each new row would push out that of a flow which lives. */
INLINE bool is_flooded(__u32 now)
{
	__u32 zero = 0;
	struct remembered *remembered_here = bpf_map_lookup_elem(&remembered, &zero);

	if (!remembered_here)
		return false;
	if (remembered_here->tick != now) {
		remembered_here->tick = now;
		remembered_here->flows = 0;
	}
	return ++remembered_here->flows > remembered_per_tick;
}

/* Whether a new flow needs no row: what ends it comes first, or it is one of a flood. Its next packet, if there is one,
 * gets the same backend from the same table.
 */
INLINE bool is_passing_by(const struct service *service, const struct transport *transport)
{
	return service->algorithm == ALGORITHM_MAGLEV &&
	       (unlikely(transport->tcp_flags & TCP_RST) || unlikely(is_flooded(transport->now)));
}

/* Remembers the backend of a flow that is not known, if it answers directly: it does not answer nodes and workloads, as
 * these may be on its own host. Returns it, or NULL; so it does for a flow that is known, whatever has become of it.
 */
INLINE struct backend *enter_direct(const struct translation_key *flow, const struct frontend *frontend,
				    const struct transport *transport, const bool v6)
{
	__u32 id, hash = flow_hash(&flow->source, &flow->destination, flow->source_port, flow->destination_port,
				   flow->protocol, v6);
	struct translation *fresh = towards_inside();
	struct state *state = host_state();
	struct service *service;
	struct choice choice;
	union version version;

	if (!state || !fresh)
		return NULL;
	version.word = *(volatile __u64 *)&state->version;
	service = open_service(frontend, version.epoch, &id);
	if (!service || is_known_member(&flow->source, version.epoch, v6))
		return NULL;
	if (service->algorithm == ALGORITHM_RANDOM)
		hash = bpf_get_prandom_u32();
	choice = backend_of(backend_in_slot(id, service->slots, (__u64)hash * service->slots >> 32));
	if (!choice.backend || !(choice.backend->flags & BACKEND_DIRECT))
		return NULL;
	if (is_passing_by(service, transport))
		return bpf_map_lookup_elem(&translations, flow) ? NULL : choice.backend;
	fresh->address = choice.backend->address;
	fresh->port = choice.backend->port;
	fresh->closing = 0;
	fresh->state = SENT_IN | DIRECT;
	fresh->expires = transport->now + flow_timeout(flow->protocol, 0, false);
	fresh->backend = choice.id;
	fresh->service = id;
	return bpf_map_update_elem(&translations, flow, fresh, BPF_NOEXIST) ? NULL : choice.backend;
}

/* Where an outer header comes from, as in direct_send.h; NULL: nowhere, or services are not reached by the device. */
INLINE const struct device *device_known(__u32 ifindex, const bool v6)
{
	const __u32 own = DEVICE_OWN;
	const struct device *device = bpf_map_lookup_elem(&devices, &ifindex), *known;

	if (!device || !(device->flags & DEVICE_SERVICES))
		return NULL;
	known = bpf_map_lookup_elem(&devices, &own);
	if (known && has_address(known, v6))
		return known;
	return has_address(device, v6) ? device : NULL;
}

/* The way from a device to another host. */
struct way4_key {
	__u32 ifindex;
	__be32 address;
};

struct way4 {
	__u32 checked; /* the tick in which route and neighbour were looked at */
	__u32 mtu;
	__u8 macs[2 * ETH_ALEN];
	__be32 local;
};

/* Written and read by the program. Full: the least recently used is looked at again. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct way4_key);
	__type(value, struct way4);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ways4 SEC(".maps");

/* What the host's own route says of the way to a backend. False if it is not by the device that the packet came in by.
 */
INLINE bool ask_route4(struct xdp_md *context, const struct way4_key *key, struct way4 *way)
{
	struct bpf_fib_lookup route = { .family = FAMILY_IPV4, .tot_len = 1 }; /* so that the MTU is told */

	route.ipv4_dst = key->address;
	if (!leaves_here(context, &route))
		return false;
	way->mtu = route.mtu_result;
	__builtin_memcpy(way->macs, route.dmac, ETH_ALEN);
	__builtin_memcpy(way->macs + ETH_ALEN, route.smac, ETH_ALEN);
	return true;
}

/* The way to a backend as it is now, kept for a tick. False if there is none. */
NOINLINE bool find_way4(struct xdp_md *context, const struct way4_key *key, __u32 now, struct way4 *way)
{
	const struct device *device = device_known(key->ifindex, false);

	if (!device || !ask_route4(context, key, way))
		return false;
	way->checked = now;
	way->mtu = path_mtu(&key->address, way->mtu, LEAST_MTU4 + sizeof(struct iphdr), now, false);
	way->local = device->address4;
	bpf_map_update_elem(&ways4, key, way, BPF_ANY);
	return true;
}

/* Without its checksum. */
INLINE void fill_outer4(struct iphdr *outer, const struct passing4 *passing, __u8 class, __be16 length)
{
	outer->version = 4;
	outer->ihl = 5;
	outer->tos = class;
	outer->tot_len = length;
	outer->id = passing->ends.ports.destination;
	outer->frag_off = bpf_htons(0x4000);
	outer->ttl = 64;
	outer->protocol = IPPROTO_IPIP;
	outer->check = 0;
	outer->saddr = passing->ends.source;
	outer->daddr = passing->ends.destination;
}

INLINE void name_flow4(struct translation_key *flow, const struct passing4_key *key)
{
	flow->source.v4 = key->ends.source;
	flow->destination.v4 = key->ends.destination;
	flow->source_port = key->ends.ports.source;
	flow->destination_port = key->ends.ports.destination;
	flow->protocol = key->protocol;
}

/* Of everything but its length and its class. */
INLINE __u16 sum_outer4(const struct passing4 *passing)
{
	const __u32 same = bpf_htons(0x4500) + bpf_htons(0x4000) + bpf_htons(64 << 8 | IPPROTO_IPIP);

	return ~fold((__u64)passing->ends.source + passing->ends.destination + passing->ends.ports.destination + same);
}

/* The outer header of a flow to a backend, as far as all of its packets have the same. False if the packet is to be
 * handed over.
 */
INLINE bool aim4(struct xdp_md *context, const struct transport *transport, const struct passing4_key *flow,
		 const union address *backend, __be16 port, struct passing4 *passing)
{
	struct way4_key key = { .ifindex = context->ingress_ifindex };
	struct way4 *way, fresh;

	key.address = backend->v4;
	way = bpf_map_lookup_elem(&ways4, &key);
	if (unlikely(!way || way->checked != transport->now)) {
		if (!find_way4(context, &key, transport->now, &fresh))
			return false;
		way = &fresh;
	}
	if (transport->length + 2 * sizeof(struct iphdr) > way->mtu)
		return false;
	passing->ends.source = way->local;
	passing->ends.destination = backend->v4;
	passing->ends.ports.source = 0;
	passing->ends.ports.destination = port;
	passing->hop.checked = transport->now;
	passing->hop.mtu = way->mtu - sizeof(struct iphdr);
	__builtin_memcpy(passing->hop.macs, way->macs, sizeof(way->macs));
	passing->hop.transport_sum = 0;
	passing->hop.wraps = 1;
	passing->hop.header_sum = sum_outer4(passing);
	passing->hop.pseudo_sum = pseudo_sum4(&flow->ends, flow->protocol);
	return true;
}

/* Where a flow to a backend that answers directly goes. */
NOINLINE enum looked look_for_direct4(struct xdp_md *context, const struct transport *transport,
				      const struct passing4_key *key, const struct frontend *frontend,
				      struct passing4 *passing)
{
	struct translation_key flow = { .reply = true };
	struct translation *known;
	struct backend *backend;

	name_flow4(&flow, key);
	known = find(&flow, transport->now);
	if (!known) {
		backend = enter_direct(&flow, frontend, transport, false);
		if (!backend || !aim4(context, transport, key, &backend->address, backend->port, passing))
			return HANDED_OVER;
		return AIMED_ONCE;
	}
	if (!(known->state & DIRECT) || !aim4(context, transport, key, &known->address, known->port, passing))
		return HANDED_OVER;
	translation_touch(&flow, known, transport->tcp_flags, transport->now);
	return AIMED;
}

/* The same of a packet that begins a flow. One that is known begins again, and is handed over. */
NOINLINE bool begin_direct4(struct xdp_md *context, const struct transport *transport, const struct passing4_key *key,
			    const struct frontend *frontend, struct passing4 *passing)
{
	struct translation_key flow = { .reply = true };
	struct backend *backend;

	name_flow4(&flow, key);
	backend = enter_direct(&flow, frontend, transport, false);
	return backend && aim4(context, transport, key, &backend->address, backend->port, passing);
}

/* The packet as it came, behind an outer header. */
INLINE int wrap4(struct xdp_md *context, const struct passing4 *passing, const struct transport *transport)
{
	const __be16 length = bpf_htons(transport->length + 2 * sizeof(struct iphdr));
	__sum16 check = ~plus(plus(passing->hop.header_sum, length), bpf_htons(transport->class));
	struct ethhdr *ethernet;
	struct iphdr *outer;

	if (bpf_xdp_adjust_head(context, -(int)sizeof(*outer)))
		return XDP_PASS;
	ethernet = (void *)(long)context->data;
	outer = (void *)(ethernet + 1);
	if ((void *)(outer + 1) > (void *)(long)context->data_end)
		return XDP_DROP;
	__builtin_memcpy(ethernet, passing->hop.macs, sizeof(passing->hop.macs));
	ethernet->h_proto = bpf_htons(ETH_P_IP);
	fill_outer4(outer, passing, transport->class, length);
	outer->check = check;
	return XDP_TX;
}

/* The way from a device to another host. */
struct way6_key {
	__u32 ifindex;
	struct address6 address;
};

struct way6 {
	__u32 checked; /* the tick in which route and neighbour were looked at */
	__u32 mtu;
	__u8 macs[2 * ETH_ALEN];
	__u8 local[16];
};

/* Written and read by the program. Full: the least recently used is looked at again. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct way6_key);
	__type(value, struct way6);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ways6 SEC(".maps");

/* What the host's own route says of the way to a backend. False if it is not by the device that the packet came in by.
 */
INLINE bool ask_route6(struct xdp_md *context, const struct way6_key *key, struct way6 *way)
{
	struct bpf_fib_lookup route = { .family = FAMILY_IPV6, .tot_len = 1 }; /* so that the MTU is told */

	__builtin_memcpy(route.ipv6_dst, key->address.bytes, 16);
	if (!leaves_here(context, &route))
		return false;
	way->mtu = route.mtu_result;
	__builtin_memcpy(way->macs, route.dmac, ETH_ALEN);
	__builtin_memcpy(way->macs + ETH_ALEN, route.smac, ETH_ALEN);
	return true;
}

/* The way to a backend as it is now, kept for a tick. False if there is none. */
NOINLINE bool find_way6(struct xdp_md *context, const struct way6_key *key, __u32 now, struct way6 *way)
{
	const struct device *device = device_known(key->ifindex, true);

	if (!device || !ask_route6(context, key, way))
		return false;
	way->checked = now;
	way->mtu = path_mtu(&key->address, way->mtu, LEAST_MTU6 + sizeof(struct ipv6hdr), now, true);
	__builtin_memcpy(way->local, device->address6, 16);
	bpf_map_update_elem(&ways6, key, way, BPF_ANY);
	return true;
}

INLINE void fill_outer6(struct ipv6hdr *outer, const struct passing6 *passing, __u8 class, __be16 length)
{
	__u32 port = bpf_ntohs(passing->ends.ports.destination);

	outer->version = 6;
	set_class6(outer, class);
	outer->flow_lbl[1] = port >> 8;
	outer->flow_lbl[2] = port;
	outer->payload_len = length;
	outer->nexthdr = IPPROTO_IPV6;
	outer->hop_limit = 64;
	__builtin_memcpy(&outer->saddr, passing->ends.source, 16);
	__builtin_memcpy(&outer->daddr, passing->ends.destination, 16);
}

INLINE void name_flow6(struct translation_key *flow, const struct passing6_key *key)
{
	__builtin_memcpy(flow->source.bytes, key->ends.source, 16);
	__builtin_memcpy(flow->destination.bytes, key->ends.destination, 16);
	flow->source_port = key->ends.ports.source;
	flow->destination_port = key->ends.ports.destination;
	flow->protocol = key->protocol;
}

/* The outer header of a flow to a backend, as far as all of its packets have the same. False if the packet is to be
 * handed over.
 */
INLINE bool aim6(struct xdp_md *context, const struct transport *transport, const struct passing6_key *flow,
		 const union address *backend, __be16 port, struct passing6 *passing)
{
	struct way6_key key = { .ifindex = context->ingress_ifindex };
	struct way6 *way, fresh;

	__builtin_memcpy(key.address.bytes, backend->bytes, 16);
	way = bpf_map_lookup_elem(&ways6, &key);
	if (unlikely(!way || way->checked != transport->now)) {
		if (!find_way6(context, &key, transport->now, &fresh))
			return false;
		way = &fresh;
	}
	if (transport->length + 2 * sizeof(struct ipv6hdr) > way->mtu)
		return false;
	__builtin_memcpy(passing->ends.source, way->local, 16);
	__builtin_memcpy(passing->ends.destination, backend->bytes, 16);
	passing->ends.ports.source = 0;
	passing->ends.ports.destination = port;
	passing->hop.checked = transport->now;
	passing->hop.mtu = way->mtu - sizeof(struct ipv6hdr);
	__builtin_memcpy(passing->hop.macs, way->macs, sizeof(way->macs));
	passing->hop.transport_sum = 0;
	passing->hop.wraps = 1;
	passing->hop.header_sum = 0;
	passing->hop.pseudo_sum = pseudo_sum6(&flow->ends, flow->protocol);
	return true;
}

/* Where a flow to a backend that answers directly goes. */
NOINLINE enum looked look_for_direct6(struct xdp_md *context, const struct transport *transport,
				      const struct passing6_key *key, const struct frontend *frontend,
				      struct passing6 *passing)
{
	struct translation_key flow = { .reply = true, .v6 = true };
	struct translation *known;
	struct backend *backend;

	name_flow6(&flow, key);
	known = find(&flow, transport->now);
	if (!known) {
		backend = enter_direct(&flow, frontend, transport, true);
		if (!backend || !aim6(context, transport, key, &backend->address, backend->port, passing))
			return HANDED_OVER;
		return AIMED_ONCE;
	}
	if (!(known->state & DIRECT) || !aim6(context, transport, key, &known->address, known->port, passing))
		return HANDED_OVER;
	translation_touch(&flow, known, transport->tcp_flags, transport->now);
	return AIMED;
}

/* The same of a packet that begins a flow. One that is known begins again, and is handed over. */
NOINLINE bool begin_direct6(struct xdp_md *context, const struct transport *transport, const struct passing6_key *key,
			    const struct frontend *frontend, struct passing6 *passing)
{
	struct translation_key flow = { .reply = true, .v6 = true };
	struct backend *backend;

	name_flow6(&flow, key);
	backend = enter_direct(&flow, frontend, transport, true);
	return backend && aim6(context, transport, key, &backend->address, backend->port, passing);
}

/* The packet as it came, behind an outer header. */
INLINE int wrap6(struct xdp_md *context, const struct passing6 *passing, const struct transport *transport)
{
	struct ethhdr *ethernet;
	struct ipv6hdr *outer;

	if (bpf_xdp_adjust_head(context, -(int)sizeof(*outer)))
		return XDP_PASS;
	ethernet = (void *)(long)context->data;
	outer = (void *)(ethernet + 1);
	if ((void *)(outer + 1) > (void *)(long)context->data_end)
		return XDP_DROP;
	__builtin_memcpy(ethernet, passing->hop.macs, sizeof(passing->hop.macs));
	ethernet->h_proto = bpf_htons(ETH_P_IPV6);
	fill_outer6(outer, passing, transport->class, bpf_htons(transport->length + sizeof(struct ipv6hdr)));
	return XDP_TX;
}
