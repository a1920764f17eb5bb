/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Direct return of IPv6 at XDP: the way to a backend's host, and the packet in an outer header. */
#pragma once

#include "direct_early.h"
#include "path_mtu.h"

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
	way->mtu = path_mtu(&key->address, way->mtu, least_wrapped(sizeof(struct ipv6hdr), true), now, true);
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
