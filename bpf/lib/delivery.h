/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a router does to a packet on its way to a workload: a hop less, and the addresses of the next link. */
#pragma once

#include "neighbour.h"

/* Of an IP header within the packet. */
INLINE bool lower_hop(void *network, const bool v6)
{
	if (v6) {
		struct ipv6hdr *ip = network;

		if (ip->hop_limit <= 1)
			return false;
		ip->hop_limit--;
	} else {
		struct iphdr *ip = network;
		__u32 sum;

		if (ip->ttl <= 1)
			return false;
		ip->ttl--;
		sum = ip->check + bpf_htons(0x0100); /* RFC 1624 */
		ip->check = sum + (sum >= 0xffff);
	}
	return true;
}

/* As a router does, takes one off the hop count. False if none would be left: the stack answers that. */
INLINE bool take_hop(struct __sk_buff *skb, const bool v6)
{
	void *network = (void *)(long)skb->data + ETH_HLEN;
	void *end = network + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));

	return end <= (void *)(long)skb->data_end && lower_hop(network, v6);
}

/* The same, and the frame addressed to a workload: one look at where the packet ends. */
INLINE bool take_hop_to(struct __sk_buff *skb, const __u8 *mac, const bool v6)
{
	struct ethhdr *ethernet = (void *)(long)skb->data;
	void *end = (void *)(ethernet + 1) + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));

	if (end > (void *)(long)skb->data_end || !lower_hop(ethernet + 1, v6))
		return false;
	__builtin_memcpy(ethernet->h_dest, mac, ETH_ALEN);
	for (int i = 0; i < ETH_ALEN; i++)
		ethernet->h_source[i] = gateway_mac[i];
	return true;
}
