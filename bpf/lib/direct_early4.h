/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Direct return of IPv4 at XDP: the way to a backend's host, and the packet in an outer header. */
#pragma once

#include "direct_early.h"
#include "path_mtu.h"

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
	way->mtu = path_mtu(&key->address, way->mtu, least_wrapped(sizeof(struct iphdr), false), now, false);
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
