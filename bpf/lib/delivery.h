/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a router does to a packet on its way to a workload: a hop less, and the addresses of the next link. */
#pragma once

#include "neighbour.h"

/* As a router does, takes one off the hop count. False if none would be left: the stack answers that. */
INLINE bool take_hop(struct __sk_buff *skb, const bool v6)
{
	void *data_end = (void *)(long)skb->data_end;
	void *network = (void *)(long)skb->data + ETH_HLEN;

	if (v6) {
		struct ipv6hdr *ip = network;

		if ((void *)(ip + 1) > data_end || ip->hop_limit <= 1)
			return false;
		ip->hop_limit--;
	} else {
		struct iphdr *ip = network;
		__u32 sum;

		if ((void *)(ip + 1) > data_end || ip->ttl <= 1)
			return false;
		ip->ttl--;
		sum = ip->check + bpf_htons(0x0100); /* RFC 1624 */
		ip->check = sum + (sum >= 0xffff);
	}
	return true;
}

/* False if there is no Ethernet header to write. */
INLINE bool address_frame(struct __sk_buff *skb, const __u8 *mac)
{
	struct ethhdr *ethernet = (void *)(long)skb->data;

	if ((void *)(ethernet + 1) > (void *)(long)skb->data_end)
		return false;
	__builtin_memcpy(ethernet->h_dest, mac, ETH_ALEN);
	for (int i = 0; i < ETH_ALEN; i++)
		ethernet->h_source[i] = gateway_mac[i];
	return true;
}
