/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Flows between a client and a backend elsewhere that pass this host both ways: their two translations, applied at
 * once.
 */
#pragma once

#include "early.h"
#include "neighbour.h"

/* Both translations of a packet that goes through: `in` may have both ends, and `out` is NULL then. */
struct through {
	struct translation *in, *out;
	struct translation_key in_key, out_key;
};

INLINE const union address *new_source(const struct through *through)
{
	return through->out ? &through->out->address : &through->in->from;
}

INLINE __be16 new_source_port(const struct through *through)
{
	return through->out ? through->out->port : through->in->from_port;
}

INLINE bool serves(__u32 ifindex)
{
	struct device *device = bpf_map_lookup_elem(&devices, &ifindex);

	return device && device->flags & DEVICE_SERVICES;
}

/* Whether the flow goes through this host, and its answers too: `in_key` has its ends as the packet has them. */
INLINE bool goes_through(struct xdp_md *context, const struct transport *transport, struct through *through)
{
	through->in = find(&through->in_key, transport->now);
	if (likely(!through->in) || through->in->state & DIRECT || !serves(context->ingress_ifindex))
		return false;
	through->out = NULL;
	if (likely(through->in->state & THROUGH))
		return true;
	through->out_key = through->in_key;
	through->out_key.reply = false;
	through->out_key.destination = through->in->address;
	through->out_key.destination_port = through->in->port;
	through->out = find(&through->out_key, transport->now);
	return through->out && (through->in->backend || through->out->backend);
}

INLINE void keep_hop(struct next_hop *hop, const struct bpf_fib_lookup *route)
{
	hop->mtu = route->mtu_result;
	hop->wraps = 0;
	__builtin_memcpy(hop->macs, route->dmac, ETH_ALEN);
	__builtin_memcpy(hop->macs + ETH_ALEN, route->smac, ETH_ALEN);
}

INLINE void touch(struct through *through, __u8 tcp_flags, __u32 now)
{
	translation_touch(&through->in_key, through->in, tcp_flags, now);
	if (unlikely(through->out))
		translation_touch(&through->out_key, through->out, tcp_flags, now);
}

/* `difference`: between what the checksum covered and what it covers now. */
INLINE void mend_checksum(const struct transport *transport, __u16 difference)
{
	__sum16 sum;

	if (transport->protocol == IPPROTO_UDP && !*transport->checksum) /* it has none, RFC 768 */
		return;
	sum = ~plus(difference, *transport->checksum ^ 0xffff);
	*transport->checksum = !sum && transport->protocol == IPPROTO_UDP ? 0xffff : sum;
}

/* Where a flow goes by its translations. False if the packet is to be handed over. */
NOINLINE bool look_for_through4(struct xdp_md *context, const struct transport *transport,
				const struct passing4_key *key, struct passing4 *passing)
{
	struct through through = { .in_key = { .reply = true } };
	struct bpf_fib_lookup route = { .family = FAMILY_IPV4, .tot_len = transport->length + sizeof(struct iphdr) };

	through.in_key.source.v4 = key->ends.source;
	through.in_key.destination.v4 = key->ends.destination;
	through.in_key.source_port = key->ends.ports.source;
	through.in_key.destination_port = key->ends.ports.destination;
	through.in_key.protocol = key->protocol;
	if (!goes_through(context, transport, &through))
		return false;
	passing->ends.source = route.ipv4_src = new_source(&through)->v4;
	passing->ends.destination = route.ipv4_dst = through.in->address.v4;
	passing->ends.ports.source = new_source_port(&through);
	passing->ends.ports.destination = through.in->port;
	passing->hop.checked = transport->now;
	if (!leaves_here(context, &route))
		return false;
	keep_hop(&passing->hop, &route);
	passing->hop.transport_sum = ~fold(bpf_csum_diff((__be32 *)&key->ends, sizeof(key->ends),
							 (__be32 *)&passing->ends, sizeof(passing->ends), 0));
	passing->hop.header_sum =
		~fold(bpf_csum_diff((__be32 *)&key->ends, 8, (__be32 *)&passing->ends, 8, (__u16)~bpf_htons(0x0100)));
	passing->hop.pseudo_sum = pseudo_sum4(&key->ends, key->protocol);
	touch(&through, transport->tcp_flags, transport->now);
	return true;
}

/* Where a flow goes by its translations. False if the packet is to be handed over. */
NOINLINE bool look_for_through6(struct xdp_md *context, const struct transport *transport,
				const struct passing6_key *key, struct passing6 *passing)
{
	struct through through = { .in_key = { .reply = true, .v6 = true } };
	struct bpf_fib_lookup route = { .family = FAMILY_IPV6, .tot_len = transport->length + sizeof(struct ipv6hdr) };

	__builtin_memcpy(through.in_key.source.bytes, key->ends.source, 16);
	__builtin_memcpy(through.in_key.destination.bytes, key->ends.destination, 16);
	through.in_key.source_port = key->ends.ports.source;
	through.in_key.destination_port = key->ends.ports.destination;
	through.in_key.protocol = key->protocol;
	if (!goes_through(context, transport, &through))
		return false;
	__builtin_memcpy(passing->ends.source, new_source(&through)->bytes, 16);
	__builtin_memcpy(passing->ends.destination, through.in->address.bytes, 16);
	__builtin_memcpy(route.ipv6_src, passing->ends.source, 16);
	__builtin_memcpy(route.ipv6_dst, passing->ends.destination, 16);
	passing->ends.ports.source = new_source_port(&through);
	passing->ends.ports.destination = through.in->port;
	passing->hop.checked = transport->now;
	if (!leaves_here(context, &route))
		return false;
	keep_hop(&passing->hop, &route);
	passing->hop.transport_sum = ~fold(bpf_csum_diff((__be32 *)&key->ends, sizeof(key->ends),
							 (__be32 *)&passing->ends, sizeof(passing->ends), 0));
	passing->hop.header_sum = 0;
	passing->hop.pseudo_sum = pseudo_sum6(&key->ends, key->protocol);
	touch(&through, transport->tcp_flags, transport->now);
	return true;
}
