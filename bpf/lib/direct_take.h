/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A client's packet that another node brings to a backend here: taken out of what it was brought in, and what its
 * client knows remembered, so that the answer leaves with it.
 *
 * Only nodes of the cluster are believed, and only what some frontend may be. An option in the packet itself could be
 * anybody's; the network between the nodes has to be trusted with it.
 */
#pragma once

#include "backend_port.h"
#include "congestion.h"
#include "delivery.h"
#include "direct.h"
#include "geneve.h"
#include "nodeport.h"

/* It was not brought by another node. */
#define NOT_BROUGHT 0

/* It was, and nothing is around it any more. */
#define BROUGHT 1

/* Whether an address and port may be what a client knows of this cluster. */
INLINE bool may_be_front(const struct passage *at, const struct direct_way *way, const bool v6)
{
	if (find_frontend(&way->front, way->front_port, at->flow.protocol, SCOPE_OUTSIDE, at->version.epoch, v6)
		    .service)
		return true;
	return find_peer(&way->front, v6, at->version.epoch).identity == IDENTITY_REMOTE_NODE; /* its node port */
}

/* Remembers what the client of a flow, which has its backend as the destination, knows. It may be known already, from
 * an earlier packet or because the flow came to this host itself before. Returns 0 or a reason.
 */
INLINE int remember_front(const struct passage *at, const bool v6)
{
	struct direct_way *way = direct_way_of_packet();
	const struct flow *flow = &at->flow;
	struct translation_key key = key_of_answers(flow, v6);
	struct translation *known, fresh = {};

	if (!way)
		return REASON_TUNNEL_DESTINATION;
	known = bpf_map_lookup_elem(&translations, &key);
	if (likely(known && answers_as(known, &way->front, way->front_port, v6))) {
		translation_note(&key, known, SENT_IN, flow->tcp_flags, at->now);
		return 0;
	}
	if (known && !is_over(known, at->now))
		return REASON_NO_PORT;
	if (!may_be_front(at, way, v6))
		return REASON_NO_FRONTEND;
	fresh.address = way->front;
	fresh.port = way->front_port;
	fresh.state = SENT_IN | DIRECT;
	fresh.backend = BACKEND_HERE;
	fresh.expires = at->now + flow_timeout(flow->protocol, 0, false);
	return bpf_map_update_elem(&translations, &key, &fresh, BPF_ANY) ? REASON_CONNTRACK_FULL : 0;
}

GLOBAL int remember_front4(const struct passage *at)
{
	return at ? remember_front(at, false) : TC_ACT_SHOT;
}

GLOBAL int remember_front6(const struct passage *at)
{
	return at ? remember_front(at, true) : TC_ACT_SHOT;
}

/* The end of a connection whose packets, after the one with the option, come as if nobody had brought them: the
 * translation of its answers lasts as long as it does, and no longer.
 */
INLINE void note_end(const struct passage *at, const bool v6)
{
	struct translation_key key = key_of_answers(&at->flow, v6);
	struct translation *known = bpf_map_lookup_elem(&translations, &key);

	if (known && known->state & DIRECT)
		translation_note(&key, known, SENT_IN, at->flow.tcp_flags, at->now);
}

GLOBAL int note_end4(const struct passage *at)
{
	if (at)
		note_end(at, false);
	return 0;
}

GLOBAL int note_end6(const struct passage *at)
{
	if (at)
		note_end(at, true);
	return 0;
}

/* Whether outer addresses are those of another node's packet for this host, or for a workload of it. */
INLINE bool is_for_us(const union address *to, __u32 epoch, const bool v6)
{
	return find_endpoint(to, v6) || find_peer(to, v6, epoch).flags & IPCACHE_HOST;
}

INLINE bool is_from_node(const union address *from, __u32 epoch, const bool v6)
{
	return find_peer(from, v6, epoch).identity == IDENTITY_REMOTE_NODE;
}

/* Looks into an IPIP packet and takes its outer header off. Returns BROUGHT, NOT_BROUGHT, or minus a reason. */
INLINE int take_ipip(struct __sk_buff *skb, struct direct_way *way, const bool v6)
{
	const __u32 outer = v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	union address from = {}, to = {};
	const __u32 epoch = host_epoch();
	__u8 class;

	if (v6) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.nexthdr != IPPROTO_IPV6)
			return NOT_BROUGHT;
		__builtin_memcpy(from.bytes, &ip.saddr, 16);
		__builtin_memcpy(to.bytes, &ip.daddr, 16);
		way->backend_port = bpf_htons(ip.flow_lbl[1] << 8 | ip.flow_lbl[2]);
		class = class6(&ip);
	} else {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.protocol != IPPROTO_IPIP || ip.ihl != 5 ||
		    ip.frag_off & bpf_htons(0x3fff))
			return NOT_BROUGHT;
		from.v4 = ip.saddr;
		to.v4 = ip.daddr;
		way->backend_port = ip.id;
		class = class4(&ip);
	}
	if (!find_endpoint(&to, v6))
		return NOT_BROUGHT;
	if (!is_from_node(&from, epoch, v6))
		return -REASON_TUNNEL_NODE;
	way->backend = to;
	if (bpf_skb_adjust_room(skb, -(__s32)outer, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO) ||
	    hear_congestion(skb, class))
		return -REASON_MALFORMED;
	return BROUGHT;
}

/* What a Geneve header carries besides the packet. */
struct direct_headers {
	struct udphdr udp;
	struct genevehdr geneve;
	union {
		struct geneve_front4 v4;
		struct geneve_front6 v6;
	} front;
};

/* Whether a Geneve option tells what the client of an inner packet of this family knows; then it is noted. */
INLINE bool read_front(struct direct_way *way, const struct direct_headers *headers, const bool v6)
{
	const __u32 length = v6 ? sizeof(headers->front.v6) : sizeof(headers->front.v4);

	if (headers->geneve.options != length / 4 || headers->front.v4.class != bpf_htons(GENEVE_CLASS_FRONT) ||
	    headers->front.v4.type != GENEVE_TYPE_FRONT || headers->front.v4.length != length / 4 - 1)
		return false;
	way->front_port = v6 ? headers->front.v6.front.port : headers->front.v4.front.port;
	if (v6) {
		__builtin_memcpy(way->front.bytes, headers->front.v6.front.address, 16);
	} else {
		way->front.v6[0] = way->front.v6[1] = 0;
		way->front.v4 = headers->front.v4.front.address;
	}
	return true;
}

/* The same of a Geneve packet with our option. The packet gets the family of what was in it. */
INLINE int take_direct_geneve(struct __sk_buff *skb, struct direct_way *way, const bool over6)
{
	const __u32 outer = over6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	union address from = {}, to = {};
	struct direct_headers headers;
	const __u32 epoch = host_epoch();
	__u32 room;
	__u64 flags = 0;
	__be16 kind;
	__u8 class;
	bool v6;

	if (!read_outer(skb, &from, &to, &class, over6))
		return NOT_BROUGHT;
	/* Whatever follows a packet of IPv4 is at least as long as its shortest header. */
	if (bpf_skb_load_bytes(skb, ETH_HLEN + outer, &headers, sizeof(headers)) ||
	    headers.udp.dest != bpf_htons(direct_port))
		return NOT_BROUGHT;
	kind = headers.geneve.protocol;
	v6 = kind == bpf_htons(ETH_P_IPV6);
	if ((!v6 && kind != bpf_htons(ETH_P_IP)) || !read_front(way, &headers, v6) || !is_for_us(&to, epoch, over6))
		return NOT_BROUGHT;
	if (!is_from_node(&from, epoch, over6))
		return -REASON_TUNNEL_NODE;
	room = outer + sizeof(headers.udp) + sizeof(headers.geneve) +
	       (v6 ? sizeof(headers.front.v6) : sizeof(headers.front.v4));
	if (v6 != over6)
		flags = v6 ? DECAP_L3_IPV6 : DECAP_L3_IPV4;
	if (bpf_skb_adjust_room(skb, -(__s32)room, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO | flags) ||
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &kind, sizeof(kind), 0) ||
	    hear_congestion(skb, class))
		return -REASON_MALFORMED;
	way->backend_port = 0;
	return BROUGHT;
}

/* The same of a packet with our option, which is for the backend already. */
INLINE int take_option4(struct __sk_buff *skb, struct direct_way *way)
{
	struct option4 option;
	struct iphdr ip;
	__be32 first;
	__s64 sum;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.ihl < 5 + sizeof(option) / 4 ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(ip), &option, sizeof(option)) ||
	    option.type != IPV4_OPTION_FRONT || option.length != sizeof(option))
		return NOT_BROUGHT;
	way->front.v6[0] = way->front.v6[1] = 0;
	way->front.v4 = option.front.address;
	way->front_port = option.front.port;
	way->backend.v6[0] = way->backend.v6[1] = 0;
	way->backend.v4 = ip.daddr;
	if (!find_endpoint(&way->backend, false))
		return NOT_BROUGHT;
	first = *(__be32 *)&ip;
	ip.ihl -= sizeof(option) / 4;
	ip.tot_len = bpf_htons(bpf_ntohs(ip.tot_len) - sizeof(option));
	sum = bpf_csum_diff(&first, sizeof(first), (__be32 *)&ip, sizeof(first), (__u16)~ip.check);
	ip.check = fold(bpf_csum_diff((__be32 *)&option, sizeof(option), NULL, 0, sum)); /* RFC 1624 */
	if (bpf_skb_adjust_room(skb, -(__s32)sizeof(option), BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM))
		return -REASON_MALFORMED;
	way->backend_port = 0;
	return BROUGHT;
}

INLINE int take_option6(struct __sk_buff *skb, struct direct_way *way)
{
	struct option6 option;
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.nexthdr != IPPROTO_DSTOPTS ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(ip), &option, sizeof(option)) ||
	    option.length != sizeof(option) / 8 - 1 || option.type != IPV6_OPTION_FRONT ||
	    option.front_length != sizeof(option.front))
		return NOT_BROUGHT;
	__builtin_memcpy(way->front.bytes, option.front.address, 16);
	way->front_port = option.front.port;
	__builtin_memcpy(way->backend.bytes, &ip.daddr, 16);
	if (!find_endpoint(&way->backend, true))
		return NOT_BROUGHT;
	ip.nexthdr = option.next;
	ip.payload_len = bpf_htons(bpf_ntohs(ip.payload_len) - sizeof(option));
	if (bpf_skb_adjust_room(skb, -(__s32)sizeof(option), BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM))
		return -REASON_MALFORMED;
	way->backend_port = 0;
	return BROUGHT;
}

/* Each verified once. */
GLOBAL int take_off4(struct __sk_buff *skb)
{
	struct direct_way *way = direct_way_of_packet();

	if (!way)
		return NOT_BROUGHT;
	switch (direct_return) {
	case DIRECT_IPIP:
		return take_ipip(skb, way, false);
	case DIRECT_GENEVE:
		return take_direct_geneve(skb, way, false);
	default:
		return take_option4(skb, way);
	}
}

GLOBAL int take_off6(struct __sk_buff *skb)
{
	struct direct_way *way = direct_way_of_packet();

	if (!way)
		return NOT_BROUGHT;
	switch (direct_return) {
	case DIRECT_IPIP:
		return take_ipip(skb, way, true);
	case DIRECT_GENEVE:
		return take_direct_geneve(skb, way, true);
	default:
		return take_option6(skb, way);
	}
}

/* The packet as its client sent it gets the backend's address. Returns 0 or a reason. */
INLINE int readdress_brought(struct __sk_buff *skb, struct flow *flow, struct direct_way *way, const bool v6)
{
	struct translation *found = towards_inside();
	int reason;

	if (!found)
		return REASON_TUNNEL_DESTINATION;
	set_address(&way->front, flow->related ? &flow->source : &flow->destination, v6);
	way->front_port = flow->related ? flow->source_port : flow->destination_port;
	found->address = way->backend;
	found->port = way->backend_port;
	reason = v6 ? rewrite_destination6(skb, flow) : rewrite_destination4(skb, flow);
	return reason == NOT_TRANSLATED ? REASON_MALFORMED : reason; /* an error for another than it quotes */
}

/* The packet out of what it was brought in: its backend gets it. `reason`: what is wrong with it, or 0. Returns an
 * action.
 */
INLINE int hand_to_backend(struct __sk_buff *skb, struct passage *at, int reason, const bool v6)
{
	struct direct_way *way = direct_way_of_packet();
	union address source = {}, destination = {};
	struct endpoint *endpoint;

	if (!way)
		return TC_ACT_SHOT;
	if (!v6 && direct_return == DIRECT_IPIP && !reason && at->flow.protocol == IPPROTO_TCP && !at->flow.related)
		settle_port(at);
	if (!reason && way->backend_port)
		reason = readdress_brought(skb, &at->flow, way, v6);
	if (!reason && !at->flow.related && !at->flow.later_fragment)
		reason = v6 ? remember_front6(at) : remember_front4(at);
	if (!reason && !load_addresses(skb, &source, &destination, v6))
		reason = REASON_MALFORMED;
	if (reason)
		return drop(skb, at, reason, v6);
	endpoint = find_endpoint(&destination, v6);
	if (!endpoint)
		return drop(skb, at, REASON_TUNNEL_DESTINATION, v6);
	if (!take_hop_to(skb, endpoint->mac, v6))
		return PASS;
	if (v6) /* the hop is in a device's own sum over the packet; of IPv4 the header's checksum makes up for it */
		bpf_csum_update(skb, (__u16)~bpf_htons(1));
	return bpf_redirect(endpoint->ifindex, 0);
}

NOINLINE int hand_to_backend4(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	struct passage at = {};

	if ((void *)(ip + 1) > data_end || !enter(&at))
		return TC_ACT_SHOT;
	return hand_to_backend(skb, &at, parse_ipv4(skb, ip, data_end, &at.flow), false);
}

NOINLINE int hand_to_backend6(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + ETH_HLEN;
	struct passage at = {};

	if ((void *)(ip + 1) > data_end || !enter(&at))
		return TC_ACT_SHOT;
	return hand_to_backend(skb, &at, parse_ipv6(skb, ip, data_end, &at.flow), true);
}

/* What arrives at a node device: an action, or TC_ACT_UNSPEC if no other node brought it to a backend here. */
INLINE int take_direct(struct __sk_buff *skb)
{
	int taken = NOT_BROUGHT;

	if (!direct_return)
		return TC_ACT_UNSPEC;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		taken = take_off4(skb);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		taken = take_off6(skb);
	if (likely(taken == NOT_BROUGHT))
		return TC_ACT_UNSPEC;
	if (taken < 0)
		return discard_wrapped(skb, -taken);
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		make_readable(skb, HEADERS6);
		return hand_to_backend6(skb);
	}
	make_readable(skb, HEADERS4);
	return hand_to_backend4(skb);
}
