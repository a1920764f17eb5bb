/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a packet says of its class and of congestion, kept where it is wrapped and where that is taken off (RFC 6040).
 *
 * The class is DSCP and ECN: the type of service of IPv4, the traffic class of IPv6 (RFC 2474, RFC 3168).
 */
#pragma once

#include "passage.h"

#define ECN_MASK 3 /* of the class; the rest is the DSCP */
#define ECN_CE 3 /* a router was congested */

INLINE __u8 class4(const struct iphdr *ip)
{
	return ip->tos;
}

INLINE __u8 class6(const struct ipv6hdr *ip)
{
	return ip->priority << 4 | ip->flow_lbl[0] >> 4;
}

/* The rest of the flow label's first byte becomes zero. */
INLINE void set_class6(struct ipv6hdr *ip, __u8 class)
{
	ip->priority = class >> 4;
	ip->flow_lbl[0] = class << 4;
}

/* Of a packet whose headers can be read. */
INLINE __u8 class_of(struct __sk_buff *skb, const bool v6)
{
	void *network = (void *)(long)skb->data + ETH_HLEN, *data_end = (void *)(long)skb->data_end;

	if (v6)
		return network + sizeof(struct ipv6hdr) <= data_end ? class6(network) : 0;
	return network + sizeof(struct iphdr) <= data_end ? class4(network) : 0;
}

/* Without the DSCP, which an overlay does not carry outside: as the kernel's VXLAN device has it. */
INLINE __u8 ecn_of(struct __sk_buff *skb)
{
	return class_of(skb, skb->protocol == bpf_htons(ETH_P_IPV6)) & ECN_MASK;
}

/* What routers told the outer header, which is gone, is told the packet that was in it (RFC 6040, section 4.2). Not 0:
 * its sender does not listen to that, and only the loss of the packet tells it.
 */
INLINE int hear_congestion(struct __sk_buff *skb, __u8 outer)
{
	if (likely((outer & ECN_MASK) != ECN_CE))
		return 0;
	make_readable(skb, HEADERS6);
	return !bpf_skb_ecn_set_ce(skb);
}
