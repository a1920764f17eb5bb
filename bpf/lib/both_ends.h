/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Both ends of a packet at once: other addresses, other ports, and the checksums that cover them. */
#pragma once

#include "neighbour.h"
#include "rewrite.h"
#include "translation.h"

/* As the addresses lie in an IP header. */
struct addresses4 {
	__be32 source;
	__be32 destination;
};

struct addresses6 {
	__u8 source[16];
	__u8 destination[16];
};

INLINE struct change destination_change(const struct flow *flow, const struct translation *found)
{
	struct change change = {
		.address = found->address,
		.was_address = flow->destination,
		.port = found->port,
		.was_port = flow->destination_port,
	};

	return change;
}

INLINE struct change source_change(const struct flow *flow, const struct translation *found)
{
	struct change change = {
		.address = found->from,
		.was_address = flow->source,
		.port = found->from_port,
		.was_port = flow->source_port,
		.source = true,
	};

	return change;
}

/* Into a transport checksum, which covers the addresses too. */
INLINE int checksum_addresses(struct __sk_buff *skb, __u32 checksum, __s64 sum, __u64 flags, const bool v6)
{
	flags |= BPF_F_PSEUDO_HDR;
	if (v6 && !bpf_l4_csum_replace(skb, checksum, 0, sum, flags | CHECKSUM_IPV6))
		return 0;
	return bpf_l4_csum_replace(skb, checksum, 0, sum, flags);
}

/* Straight in the packet, as rewrite_in_place() does. Returns 0 or not; 1: not such a packet, and it is as it was. */
INLINE int rewrite_ends_in_place(struct __sk_buff *skb, const struct flow *flow, const struct translation *found,
				 const bool v6)
{
	const __u32 transport = ETH_HLEN + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	const __u32 checksum = transport + checksum_offset(flow->protocol);
	const __u64 flags = flow->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	struct ports ports = { .source = found->from_port, .destination = found->port }, *were;
	struct ipv6hdr *ip6 = data + ETH_HLEN;
	struct iphdr *ip4 = data + ETH_HLEN;
	struct addresses6 to6;
	struct addresses4 to4;
	__s64 sum;

	were = data + transport;
	if ((void *)(were + 1) > data_end || (v6 ? ip6->nexthdr != flow->protocol : ip4->ihl != 5))
		return 1;
	if (v6) {
		__builtin_memcpy(to6.source, found->from.bytes, 16);
		__builtin_memcpy(to6.destination, found->address.bytes, 16);
		sum = bpf_csum_diff((__be32 *)&ip6->saddr, sizeof(to6), (__be32 *)&to6, sizeof(to6), 0);
	} else {
		to4.source = found->from.v4;
		to4.destination = found->address.v4;
		sum = bpf_csum_diff((__be32 *)&ip4->saddr, sizeof(to4), (__be32 *)&to4, sizeof(to4), 0);
		ip4->check = fold((__u64)sum + (__u16)~ip4->check); /* RFC 1624 */
		__builtin_memcpy(&ip4->saddr, &to4, sizeof(to4));
	}
	if (bpf_l4_csum_replace(skb, checksum, *(__be32 *)were, *(__be32 *)&ports, flags | 4) ||
	    checksum_addresses(skb, checksum, sum, flags, v6))
		return -1;
	data = (void *)(long)skb->data;
	data_end = (void *)(long)skb->data_end;
	ip6 = data + ETH_HLEN;
	were = data + transport;
	if ((void *)(were + 1) > data_end)
		return -1;
	*were = ports;
	if (v6)
		__builtin_memcpy(&ip6->saddr, &to6, sizeof(to6));
	return 0;
}

/* Returns 0 or not. */
INLINE int rewrite_ends(struct __sk_buff *skb, const struct flow *flow, const struct translation *found, const bool v6)
{
	struct change change;

	if (likely(!flow->later_fragment && (flow->protocol == IPPROTO_TCP || flow->protocol == IPPROTO_UDP))) {
		int done = rewrite_ends_in_place(skb, flow, found, v6);

		if (likely(done <= 0))
			return done;
	}
	change = destination_change(flow, found);
	if (rewrite(skb, &change, flow->protocol, flow->later_fragment, v6))
		return -1;
	change = source_change(flow, found);
	return rewrite(skb, &change, flow->protocol, flow->later_fragment, v6);
}

/* The same of the packet that an ICMP error quotes, whose receiver is who sent that one. Returns 0 or not. */
INLINE int rewrite_error_ends(struct __sk_buff *skb, const struct flow *flow, const struct translation *found,
			      const bool v6)
{
	struct change change = {
		.address = found->address,
		.was_address = flow->source,
		.port = found->port,
		.was_port = flow->source_port,
	};

	if (rewrite_error(skb, &change, v6))
		return -1;
	change.source = true;
	if (rewrite_quoted(skb, &change, flow->protocol, v6))
		return -1;
	change.source = false;
	change.address = found->from;
	change.was_address = flow->destination;
	change.port = found->from_port;
	change.was_port = flow->destination_port;
	return rewrite_quoted(skb, &change, flow->protocol, v6);
}
