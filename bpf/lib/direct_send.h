/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A client's packet on its way to a backend that answers it directly: told what the client knows, and sent to the
 * backend's host.
 */
#pragma once

#include "congestion.h"
#include "direct.h"
#include "geneve.h"
#include "forward.h"
#include "too_big.h"

/* Behind the outer IP header, before the packet. */
struct direct_frame4 {
	struct udphdr udp;
	struct genevehdr geneve;
	struct geneve_front4 front;
};

struct direct_frame6 {
	struct udphdr udp;
	struct genevehdr geneve;
	struct geneve_front6 front;
};

INLINE bool is_over6(const struct direct_way *way)
{
	return way->family == FAMILY_IPV6;
}

/* By how much the packet grows. */
INLINE __u32 direct_room(const struct direct_way *way, bool tells, const bool v6)
{
	__u32 outer = is_over6(way) ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);

	switch (direct_return) {
	case DIRECT_IPIP:
		return outer;
	case DIRECT_GENEVE:
		return outer + (v6 ? sizeof(struct direct_frame6) : sizeof(struct direct_frame4));
	default:
		return !tells ? 0 : v6 ? sizeof(struct option6) : sizeof(struct option4);
	}
}

/* The outer packet comes from this host: from where its tunnel is, or as other nodes know it, as only those are
 * believed; or else as the device by which it leaves, or the one that it came in by. Returns 0 or a reason.
 */
INLINE int set_local(struct direct_way *way, __u32 came_in)
{
	const __u32 ifindex[] = { DEVICE_OWN, way->device, came_in };
	const bool v6 = is_over6(way);

	if (!is_unset(&way->local, v6))
		return 0;
	for (int i = 0; i < 3; i++) {
		const struct device *device = bpf_map_lookup_elem(&devices, &ifindex[i]);

		if (device && has_address(device, v6)) {
			way->local = device_address(device, v6);
			return 0;
		}
	}
	return REASON_UNTRANSLATABLE;
}

/* The way to `way->remote` for a packet of this length, and how long one may be. Returns 0 or a reason. */
GLOBAL int find_way(struct __sk_buff *skb, __u32 length, __u32 room)
{
	struct direct_way *way = direct_way_of_packet();
	struct bpf_fib_lookup route = { .l4_protocol = IPPROTO_UDP, .ifindex = skb->ifindex };
	const __u32 least = least_wrapped(room, skb->protocol == bpf_htons(ETH_P_IPV6));
	__u32 mtu = 0xffff;
	int found;

	if (!way)
		return REASON_TUNNEL_DESTINATION;
	route.tot_len = length + room;
	route.family = way->family;
	if (is_over6(way))
		__builtin_memcpy(route.ipv6_dst, way->remote.bytes, 16);
	else
		route.ipv4_dst = way->remote.v4;
	found = bpf_fib_lookup(skb, &route, sizeof(route), 0);
	if (found == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		mtu = route.mtu_result;
	else if (found && found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return REASON_TUNNEL_DESTINATION;
	if (direct_return != DIRECT_OPTION && length + room > least)
		mtu = path_mtu(&way->remote, mtu, least, ticks_now(), is_over6(way));
	if (length + room > mtu) {
		way->mtu = mtu - room;
		return REASON_TOO_LARGE;
	}
	way->device = route.ifindex;
	return direct_return == DIRECT_OPTION ? 0 : set_local(way, skb->ifindex);
}

/* Puts the outer IP header in its room, and says in the frame's header what it is. */
GLOBAL int store_outer4(struct __sk_buff *skb, __u32 protocol, __u32 id)
{
	struct direct_way *way = direct_way_of_packet();
	const __be16 kind = bpf_htons(ETH_P_IP);
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tot_len = bpf_htons(skb->len - ETH_HLEN),
		.id = id,
		.frag_off = bpf_htons(IPV4_DONT_FRAGMENT),
		.ttl = 64,
		.protocol = protocol,
	};

	if (!way)
		return -1;
	ip.tos = way->class;
	ip.saddr = way->local.v4;
	ip.daddr = way->remote.v4;
	ip.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&ip, sizeof(ip), 0));
	return bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), BPF_F_INVALIDATE_HASH) ||
	       bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &kind, sizeof(kind), 0);
}

GLOBAL int store_outer6(struct __sk_buff *skb, __u32 next, __u32 label)
{
	struct direct_way *way = direct_way_of_packet();
	const __be16 kind = bpf_htons(ETH_P_IPV6);
	struct ipv6hdr ip = {
		.version = 6,
		.flow_lbl = { 0, bpf_ntohs(label) >> 8, bpf_ntohs(label) },
		.payload_len = bpf_htons(skb->len - ETH_HLEN - sizeof(ip)),
		.nexthdr = next,
		.hop_limit = 64,
	};

	if (!way)
		return -1;
	set_class6(&ip, way->class);
	__builtin_memcpy(&ip.saddr, way->local.bytes, 16);
	__builtin_memcpy(&ip.daddr, way->remote.bytes, 16);
	return bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), BPF_F_INVALIDATE_HASH) ||
	       bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &kind, sizeof(kind), 0);
}

/* The packet as it came, behind an outer header that is for the backend. Returns 0 or not. */
INLINE int wrap_ipip(struct __sk_buff *skb, const struct direct_way *way, const bool v6)
{
	const __u32 outer = v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);

	if (bpf_skb_adjust_room(skb, outer, BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_FIXED_GSO |
					(v6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4)))
		return -1;
	return v6 ? store_outer6(skb, IPPROTO_IPV6, way->backend_port) :
		    store_outer4(skb, IPPROTO_IPIP, way->backend_port);
}

/* What is the same in the frames of both families. `length`: of the UDP datagram. */
INLINE void fill_geneve(struct __sk_buff *skb, struct udphdr *udp, struct genevehdr *geneve, __u32 length,
			__u32 options, const bool v6)
{
	udp->source = bpf_htons(0xc000 | (bpf_get_hash_recalc(skb) & 0x3fff)); /* RFC 8926, section 3.3 */
	udp->dest = bpf_htons(direct_port);
	udp->len = bpf_htons(length);
	udp->check = 0; /* RFC 6935: a tunnel may go without */
	geneve->options = options / 4;
	geneve->flags = GENEVE_HAS_CRITICAL;
	geneve->protocol = v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	geneve->vni = bpf_htonl(IDENTITY_WORLD << GENEVE_VNI_SHIFT);
}

GLOBAL int store_frame4(struct __sk_buff *skb, __u32 behind)
{
	struct direct_way *way = direct_way_of_packet();
	struct direct_frame4 frame = {
		.front = {
			.class = bpf_htons(GENEVE_CLASS_FRONT),
			.type = GENEVE_TYPE_FRONT,
			.length = sizeof(frame.front) / 4 - 1,
		},
	};

	if (!way)
		return -1;
	fill_geneve(skb, &frame.udp, &frame.geneve, skb->len - behind, sizeof(frame.front), false);
	frame.front.front.port = way->front_port;
	frame.front.front.address = way->front.v4;
	return bpf_skb_store_bytes(skb, behind, &frame, sizeof(frame), 0);
}

GLOBAL int store_frame6(struct __sk_buff *skb, __u32 behind)
{
	struct direct_way *way = direct_way_of_packet();
	struct direct_frame6 frame = {
		.front = {
			.class = bpf_htons(GENEVE_CLASS_FRONT),
			.type = GENEVE_TYPE_FRONT,
			.length = sizeof(frame.front) / 4 - 1,
		},
	};

	if (!way)
		return -1;
	fill_geneve(skb, &frame.udp, &frame.geneve, skb->len - behind, sizeof(frame.front), true);
	frame.front.front.port = way->front_port;
	__builtin_memcpy(frame.front.front.address, way->front.bytes, 16);
	return bpf_skb_store_bytes(skb, behind, &frame, sizeof(frame), 0);
}

/* The packet, which is for the backend already, behind outer headers that say what its client knows. Returns 0 or not.
 */
INLINE int wrap_direct_geneve(struct __sk_buff *skb, const struct direct_way *way, const bool v6)
{
	const __u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
	const __u32 frame = v6 ? sizeof(struct direct_frame6) : sizeof(struct direct_frame4);

	if (is_over6(way)) {
		if (bpf_skb_adjust_room(skb, sizeof(struct ipv6hdr) + frame, BPF_ADJ_ROOM_MAC,
					flags | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6) ||
		    store_outer6(skb, IPPROTO_UDP, 0))
			return -1;
	} else {
		if (bpf_skb_adjust_room(skb, sizeof(struct iphdr) + frame, BPF_ADJ_ROOM_MAC,
					flags | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4) ||
		    store_outer4(skb, IPPROTO_UDP, 0))
			return -1;
	}
	return v6 ? store_frame6(skb, ETH_HLEN + (is_over6(way) ? sizeof(struct ipv6hdr) : sizeof(struct iphdr))) :
		    store_frame4(skb, ETH_HLEN + (is_over6(way) ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)));
}

/* Behind the fixed part of the IP header, before options that are there. Returns 0 or not. */
GLOBAL int insert_option4(struct __sk_buff *skb)
{
	struct direct_way *way = direct_way_of_packet();
	struct option4 option = { .type = IPV4_OPTION_FRONT, .length = sizeof(option) };
	struct iphdr ip;
	__be32 first;
	__s64 sum;

	if (!way || bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.ihl > 15 - sizeof(option) / 4)
		return -1;
	option.front.port = way->front_port;
	option.front.address = way->front.v4;
	first = *(__be32 *)&ip;
	ip.ihl += sizeof(option) / 4;
	ip.tot_len = bpf_htons(bpf_ntohs(ip.tot_len) + sizeof(option));
	sum = bpf_csum_diff(&first, sizeof(first), (__be32 *)&ip, sizeof(first), (__u16)~ip.check);
	ip.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&option, sizeof(option), sum)); /* RFC 1624 */
	return bpf_skb_adjust_room(skb, sizeof(option), BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(ip), &option, sizeof(option), 0);
}

GLOBAL int insert_option6(struct __sk_buff *skb)
{
	struct direct_way *way = direct_way_of_packet();
	struct option6 option = {
		.length = sizeof(option) / 8 - 1,
		.type = IPV6_OPTION_FRONT,
		.front_length = sizeof(option.front),
	};
	struct ipv6hdr ip;

	if (!way || bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return -1;
	option.next = ip.nexthdr;
	option.front.port = way->front_port;
	__builtin_memcpy(option.front.address, way->front.bytes, 16);
	ip.nexthdr = IPPROTO_DSTOPTS;
	ip.payload_len = bpf_htons(bpf_ntohs(ip.payload_len) + sizeof(option));
	return bpf_skb_adjust_room(skb, sizeof(option), BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(ip), &option, sizeof(option), BPF_F_RECOMPUTE_CSUM);
}

/* Whether the packet has to say what its client knows: where nothing wraps it, once for a connection. */
INLINE bool tells_front(const struct flow *flow)
{
	if (direct_return != DIRECT_OPTION)
		return true;
	return !flow->related && !flow->later_fragment && (flow->protocol != IPPROTO_TCP || flow->tcp_flags & TCP_SYN);
}

/* Whether nobody may cut the packet on its way. */
INLINE bool is_whole_only(struct __sk_buff *skb, const bool v6)
{
	__be16 fragmentation;

	return v6 || (!bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, frag_off), &fragmentation, 2) &&
		      fragmentation & bpf_htons(IPV4_DONT_FRAGMENT));
}

/* Everything but the way itself. `found`: the translation of the packet's flow. */
INLINE void describe_way(struct direct_way *way, const struct flow *flow, const struct translation *found,
			 const bool v6)
{
	struct tunnel *tunnel = overlay ? find_tunnel(&found->address, v6) : NULL;

	set_address(&way->front, flow->related ? &flow->source : &flow->destination, v6);
	way->front_port = flow->related ? flow->source_port : flow->destination_port;
	way->backend = found->address;
	way->backend_port = found->port;
	if (tunnel) {
		__builtin_memcpy(way->local.bytes, tunnel->local, 16);
		__builtin_memcpy(way->remote.bytes, tunnel->remote, 16);
		way->family = tunnel->family;
	} else {
		way->local.v6[0] = way->local.v6[1] = 0;
		way->remote = found->address;
		way->family = v6 ? FAMILY_IPV6 : FAMILY_IPV4;
	}
}

/* Finds the way to the host of a packet's backend. Returns 0, a reason to drop it, NOT_TRANSLATED or TOO_LARGE. */
INLINE int find_backend(struct __sk_buff *skb, const struct passage *at, const bool v6)
{
	struct direct_way *way = direct_way_of_packet();
	struct translation *found = towards_inside();
	int reason;

	if (!way || !found)
		return REASON_TUNNEL_DESTINATION;
	if (unlikely(at->flow.related) && !is_for_quoted(skb, &at->flow, v6))
		return NOT_TRANSLATED;
	describe_way(way, &at->flow, found, v6);
	way->class = class_of(skb, v6);
	reason = find_way(skb, network_length(skb, at->flow.protocol, v6),
			  direct_room(way, tells_front(&at->flow), v6));
	if (likely(reason != REASON_TOO_LARGE))
		return reason;
	if (is_whole_only(skb, v6))
		return TOO_LARGE;
	return direct_return == DIRECT_OPTION ? 0 : reason; /* the stack cuts what nothing is around */
}

/* The packet on its way; but for IPIP, it is for the backend by now. Returns a reason to drop it, SENT, or 0: the stack
 * is to send it.
 */
INLINE int send_off(struct __sk_buff *skb, bool tells, const bool v6)
{
	struct direct_way *way = direct_way_of_packet();

	if (!way)
		return REASON_TUNNEL_DESTINATION;
	if (direct_return == DIRECT_OPTION)
		return tells && (v6 ? insert_option6(skb) : insert_option4(skb)) ? REASON_NO_ROOM : 0;
	if (direct_return == DIRECT_IPIP ? wrap_ipip(skb, way, v6) : wrap_direct_geneve(skb, way, v6))
		return REASON_NO_ROOM;
	return bpf_redirect_neigh(way->device, NULL, 0, 0) == TC_ACT_REDIRECT ? SENT : REASON_TUNNEL_DESTINATION;
}

/* Each in a frame of its own, and verified once. */
GLOBAL int find_backend4(struct __sk_buff *skb, const struct passage *at)
{
	return at ? find_backend(skb, at, false) : TC_ACT_SHOT;
}

GLOBAL int find_backend6(struct __sk_buff *skb, const struct passage *at)
{
	return at ? find_backend(skb, at, true) : TC_ACT_SHOT;
}

GLOBAL int send_off4(struct __sk_buff *skb, int tells)
{
	return send_off(skb, tells, false);
}

GLOBAL int send_off6(struct __sk_buff *skb, int tells)
{
	return send_off(skb, tells, true);
}

/* Sends the packet to its backend's host. Returns a reason to drop it, SENT, TOO_LARGE, NOT_TRANSLATED, or 0: the stack
 * is to send it.
 */
INLINE int send_direct(struct __sk_buff *skb, struct passage *at, const bool v6)
{
	bool tells = tells_front(&at->flow);
	int reason = v6 ? find_backend6(skb, at) : find_backend4(skb, at);

	if (reason)
		return reason;
	if (direct_return != DIRECT_IPIP)
		reason = v6 ? rewrite_destination6(skb, &at->flow) : rewrite_destination4(skb, &at->flow);
	else if (unlikely(at->flow.first_fragment))
		remember_fragment(&at->flow, v6);
	if (reason)
		return reason;
	return v6 ? send_off6(skb, tells) : send_off4(skb, tells);
}
