/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The way of a packet that is forwarded past the stack: by the kernel's routes and neighbours, which are asked once a
 * tick for each direction of a flow, and answer into its row.
 */
#pragma once

#include "masquerade.h"
#include "too_big.h"

#define FOR_THIS_HOST 0 /* PACKET_HOST, <linux/if_packet.h>: the frame has the device's own address */

/* Whether all that the stack would do to a packet on its way is known here. */
INLINE bool is_plain_packet(struct __sk_buff *skb, const bool v6)
{
	void *network = (void *)(long)skb->data + ETH_HLEN, *data_end = (void *)(long)skb->data_end;

	if (skb->pkt_type != FOR_THIS_HOST || skb->vlan_present)
		return false;
	if (v6) {
		struct ipv6hdr *ip = network;

		return (void *)(ip + 1) <= data_end && ip->hop_limit > 1 && ip->nexthdr != IPPROTO_HOPOPTS;
	} else {
		struct iphdr *ip = network;

		return (void *)(ip + 1) <= data_end && ip->ttl > 1 && ip->ihl == 5;
	}
}

/* Whether packets for a backend leave a device as `found` says. A new flow's get the device's address. */
INLINE bool leaves_as(struct translation *found, __u32 ifindex, const bool v6)
{
	const struct device *device = bpf_map_lookup_elem(&devices, &ifindex);
	union address address;

	if (!device || !(device->flags & DEVICE_SERVICES))
		return false;
	address = device_address(device, v6);
	if (likely(found->from_port))
		return same_address(&address, &found->from, v6);
	found->from = address;
	return !is_unset(&address, v6);
}

/* For the other packets of this tick. */
INLINE void remember_way(const struct flow *flow, const struct translation *found, const bool v6)
{
	struct translation_key key = key_of(flow, true, v6);
	struct translation *known = bpf_map_lookup_elem(&translations, &key);

	if (!known)
		return;
	known->device = found->device;
	known->mtu = found->mtu;
	__builtin_memcpy(known->macs, found->macs, sizeof(known->macs));
	barrier();
	known->checked = found->checked;
}

/* The way of a packet by the kernel's routes and neighbours. False if they do not say, or if it is another one than
 * the flow's address is for.
 */
INLINE bool find_way_through(struct __sk_buff *skb, const struct passage *at, struct translation *found, const bool v6)
{
	const struct flow *flow = &at->flow;
	struct bpf_fib_lookup route = {
		.family = v6 ? FAMILY_IPV6 : FAMILY_IPV4,
		.l4_protocol = flow->protocol,
		.sport = flow->source_port,
		.dport = found->port,
		.ifindex = skb->ifindex,
	};
	struct bpf_redir_neigh neighbour = {};
	int result;

	route.tot_len = network_length(skb, flow->protocol, v6);
	if (found->checked == at->now && route.tot_len <= found->mtu)
		return true;
	if (v6) {
		__builtin_memcpy(route.ipv6_src, flow->source.bytes, 16);
		__builtin_memcpy(route.ipv6_dst, found->address.bytes, 16);
	} else {
		route.ipv4_src = flow->source.v4;
		route.ipv4_dst = found->address.v4;
	}
	result = bpf_fib_lookup(skb, &route, sizeof(route), 0);
	if (result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH)
		return false;
	if (!(found->state & ANSWERS) && !leaves_as(found, route.ifindex, v6))
		return false;
	found->checked = 0;
	if (likely(!result)) {
		found->checked = at->now;
		found->device = route.ifindex;
		found->mtu = route.mtu_result;
		__builtin_memcpy(found->macs, route.dmac, ETH_ALEN);
		__builtin_memcpy(found->macs + ETH_ALEN, route.smac, ETH_ALEN);
		if (found->from_port) /* else it is entered with its flow */
			remember_way(flow, found, v6);
	}
	/* Only so the kernel asks for a neighbour that it does not know, keeps the packet so long, and asks again for
	 * one that it has not heard of for a while: what we send by MAC addresses alone it does not see.
	 */
	found->state |= ASKED;
	neighbour.nh_family = route.family;
	__builtin_memcpy(neighbour.ipv6_nh, route.ipv6_dst, 16);
	return bpf_redirect_neigh(route.ifindex, &neighbour, sizeof(neighbour), 0) == TC_ACT_REDIRECT;
}

/* Each in a frame of its own, and verified once. */
GLOBAL int find_way_through4(struct __sk_buff *skb, const struct passage *at)
{
	struct translation *found = towards_inside();

	return at && found && find_way_through(skb, at, found, false);
}

GLOBAL int find_way_through6(struct __sk_buff *skb, const struct passage *at)
{
	struct translation *found = towards_inside();

	return at && found && find_way_through(skb, at, found, true);
}

/* Whether it is known where a packet goes next. */
INLINE bool aim(struct __sk_buff *skb, const struct passage *at, struct translation *found, const bool v6)
{
	found->state &= ~ASKED;
	if (!is_plain_packet(skb, v6))
		return false;
	if (likely(found->checked == at->now && skb->len - ETH_HLEN <= found->mtu))
		return true;
	return v6 ? find_way_through6(skb, at) : find_way_through4(skb, at);
}
