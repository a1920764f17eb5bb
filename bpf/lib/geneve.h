/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Geneve by our own hands, so that it needs no device of the kernel's: headers put before a packet, and taken off.
 *
 * No options, the inner packet is an Ethernet frame, as the kernel's device has it too (RFC 8926). What was taken off
 * is gone, so it is looked at here; who the sender is goes on in the mark.
 */
#pragma once

#include "congestion.h"
#include "ipcache.h"
#include "judge.h"
#include "tunnels.h"

#define ETH_P_TEB 0x6558
#define GENEVE_VNI_SHIFT 8

/* Values of newer kernels' <linux/bpf.h>. */
#define DECAP_L3_IPV4 (1ULL << 7)
#define DECAP_L3_IPV6 (1ULL << 8)

struct genevehdr {
	__u8 options; /* version and their length */
	__u8 flags;
	__be16 protocol;
	__be32 vni; /* and a byte that is reserved */
};

/* Behind the outer IP header. */
struct geneve_frame {
	struct udphdr udp;
	struct genevehdr geneve;
	struct ethhdr ethernet;
} __attribute__((packed));

struct geneve4 {
	struct iphdr ip;
	struct geneve_frame frame;
} __attribute__((packed));

struct geneve6 {
	struct ipv6hdr ip;
	struct geneve_frame frame;
} __attribute__((packed));

#define ENCAP_COMMON                                                                                                   \
	(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) |                  \
	 BPF_F_ADJ_ROOM_ENCAP_L2_ETH)

/* The frame as the workload sent it becomes the inner one. `length`: of the UDP datagram. */
INLINE int fill_frame(struct __sk_buff *skb, struct geneve_frame *frame, __u32 identity, __u32 length)
{
	/* The flow decides the port, so that paths between the nodes share the load (RFC 8926, section 3.3). */
	frame->udp.source = bpf_htons(0xc000 | (bpf_get_hash_recalc(skb) & 0x3fff));
	frame->udp.dest = bpf_htons(tunnel_port);
	frame->udp.len = bpf_htons(length);
	frame->udp.check = 0; /* RFC 6935: a tunnel may go without */
	frame->geneve.options = 0;
	frame->geneve.flags = 0;
	frame->geneve.protocol = bpf_htons(ETH_P_TEB);
	frame->geneve.vni = bpf_htonl(identity << GENEVE_VNI_SHIFT);
	return bpf_skb_load_bytes(skb, 0, &frame->ethernet, ETH_HLEN);
}

/* The epoch that the host is at, for what is known of addresses. */
INLINE __u32 host_epoch(void)
{
	struct state *state = host_state();
	union version version = { .word = state ? state->version : 0 };

	return version.epoch;
}

GLOBAL int wrap_geneve4(struct __sk_buff *skb, struct tunnel *tunnel, __u32 identity)
{
	const __be16 kind = bpf_htons(ETH_P_IP);
	const __u32 length = skb->len + sizeof(struct geneve4) - ETH_HLEN;
	struct geneve4 outer;
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tos = ecn_of(skb),
		.tot_len = bpf_htons(length),
		.frag_off = bpf_htons(0x4000),
		.ttl = 64,
		.protocol = IPPROTO_UDP,
	};
	__u64 sum;

	if (!tunnel || !tunnel->device)
		return discard(skb, REASON_TUNNEL_DESTINATION);
	__builtin_memcpy(&ip.saddr, tunnel->local, 4);
	__builtin_memcpy(&ip.daddr, tunnel->remote, 4);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&ip, sizeof(ip), 0);
	sum = (sum & 0xffff) + (sum >> 16);
	ip.check = ~((sum & 0xffff) + (sum >> 16));
	outer.ip = ip;
	if (fill_frame(skb, &outer.frame, identity, length - sizeof(outer.ip)) ||
	    bpf_skb_adjust_room(skb, sizeof(outer), BPF_ADJ_ROOM_MAC, ENCAP_COMMON | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &outer, sizeof(outer), BPF_F_INVALIDATE_HASH) ||
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &kind, sizeof(kind), 0))
		return discard(skb, REASON_NO_ROOM);
	return bpf_redirect_neigh(tunnel->device, NULL, 0, 0);
}

GLOBAL int wrap_geneve6(struct __sk_buff *skb, struct tunnel *tunnel, __u32 identity)
{
	const __be16 kind = bpf_htons(ETH_P_IPV6);
	struct geneve6 outer = {
		.ip = {
			.version = 6,
			.flow_lbl = { ecn_of(skb) << 4 }, /* where the class ends */
			.nexthdr = IPPROTO_UDP,
			.hop_limit = 64,
		},
	};
	__u32 length = skb->len + sizeof(outer.frame) - ETH_HLEN;

	if (!tunnel || !tunnel->device)
		return discard(skb, REASON_TUNNEL_DESTINATION);
	outer.ip.payload_len = bpf_htons(length);
	__builtin_memcpy(&outer.ip.saddr, tunnel->local, 16);
	__builtin_memcpy(&outer.ip.daddr, tunnel->remote, 16);
	if (fill_frame(skb, &outer.frame, identity, length) ||
	    bpf_skb_adjust_room(skb, sizeof(outer), BPF_ADJ_ROOM_MAC, ENCAP_COMMON | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &outer, sizeof(outer), BPF_F_INVALIDATE_HASH) ||
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &kind, sizeof(kind), 0))
		return discard(skb, REASON_NO_ROOM);
	return bpf_redirect_neigh(tunnel->device, NULL, 0, 0);
}

/* Wraps a packet and sends it to the other node; its MTU was measured, and so the device is known. */
INLINE int wrap_geneve(struct __sk_buff *skb, struct tunnel *tunnel, __u32 identity)
{
	return tunnel->family == FAMILY_IPV6 ? wrap_geneve6(skb, tunnel, identity) :
					       wrap_geneve4(skb, tunnel, identity);
}

/* The inner packet's source, at `offset`. */
INLINE int load_source(struct __sk_buff *skb, __u32 offset, union address *source, const bool v6)
{
	return v6 ? bpf_skb_load_bytes(skb, offset + offsetof(struct ipv6hdr, saddr), source->bytes, 16) :
		    bpf_skb_load_bytes(skb, offset + offsetof(struct iphdr, saddr), &source->v4, 4);
}

/* Why the packet behind an outer IP header at ETH_HLEN is not believed; 0 if it is. `ends`: its outer addresses. */
INLINE int doubt_inner(struct __sk_buff *skb, const union address *from, const union address *to, __u32 offset,
		       __u32 identity, __u8 family, const bool v6)
{
	union address source = {}, remote, local;
	struct tunnel *tunnel;

	if (load_source(skb, offset, &source, v6))
		return REASON_MALFORMED;
	tunnel = find_tunnel(&source, v6);
	if (!tunnel || tunnel->family != family)
		return REASON_TUNNEL_NODE;
	__builtin_memcpy(remote.bytes, tunnel->remote, 16);
	__builtin_memcpy(local.bytes, tunnel->local, 16);
	if (family == FAMILY_IPV6 ? remote.v6[0] != from->v6[0] || remote.v6[1] != from->v6[1] ||
					    local.v6[0] != to->v6[0] || local.v6[1] != to->v6[1] :
				    remote.v4 != from->v4 || local.v4 != to->v4)
		return REASON_TUNNEL_NODE;
	if (!may_vouch(tunnel, identity))
		return REASON_TUNNEL_IDENTITY;
	skb->mark = identity;
	return -(int)tunnel->ifindex;
}

NOINLINE __attribute__((unused)) int discard_wrapped(struct __sk_buff *skb, __u8 reason)
{
	return discard(skb, reason);
}

/* The ends and the class of a packet that may be Geneve: UDP, whole, with nothing between its headers. */
INLINE bool read_outer(struct __sk_buff *skb, union address *from, union address *to, __u8 *class, const bool v6)
{
	if (v6) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.nexthdr != IPPROTO_UDP)
			return false;
		__builtin_memcpy(from->bytes, &ip.saddr, 16);
		__builtin_memcpy(to->bytes, &ip.daddr, 16);
		*class = class6(&ip);
	} else {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.protocol != IPPROTO_UDP || ip.ihl != 5 ||
		    ip.frag_off & bpf_htons(0x3fff))
			return false;
		from->v4 = ip.saddr;
		to->v4 = ip.daddr;
		*class = class4(&ip);
	}
	return true;
}

/* Takes the outer headers off a packet for this host. The overlay device it is handed in by, or minus a reason; 0: it
 * is none of ours.
 */
INLINE int unwrap_geneve(struct __sk_buff *skb, const bool over6)
{
	const __u32 behind = ETH_HLEN + (over6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	const __u32 inner = behind + sizeof(struct geneve_frame);
	union address from = {}, to = {};
	struct geneve_frame frame;
	__u64 flags = 0;
	__u32 identity;
	__u8 class;
	int found;
	bool v6;

	if (!read_outer(skb, &from, &to, &class, over6))
		return 0;
	if (bpf_skb_load_bytes(skb, behind, &frame, sizeof(frame)) || frame.udp.dest != bpf_htons(tunnel_port))
		return 0;
	if (!(find_peer(&to, over6, host_epoch()).flags & IPCACHE_HOST))
		return 0; /* on its way to another host */
	v6 = frame.ethernet.h_proto == bpf_htons(ETH_P_IPV6);
	if (frame.geneve.options || frame.geneve.flags || frame.geneve.protocol != bpf_htons(ETH_P_TEB) ||
	    (!v6 && frame.ethernet.h_proto != bpf_htons(ETH_P_IP)))
		return -REASON_MALFORMED;
	identity = bpf_ntohl(frame.geneve.vni) >> GENEVE_VNI_SHIFT;
	found = v6 ? doubt_inner(skb, &from, &to, inner, identity, over6 ? FAMILY_IPV6 : FAMILY_IPV4, true) :
		     doubt_inner(skb, &from, &to, inner, identity, over6 ? FAMILY_IPV6 : FAMILY_IPV4, false);
	if (found > 0)
		return -found;
	if (v6 != over6)
		flags = v6 ? DECAP_L3_IPV6 : DECAP_L3_IPV4;
	if (bpf_skb_adjust_room(skb, -(__s32)(inner - ETH_HLEN), BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO | flags) ||
	    bpf_skb_store_bytes(skb, 0, &frame.ethernet, ETH_HLEN, 0) || hear_congestion(skb, class))
		return -REASON_MALFORMED;
	return -found;
}

GLOBAL int unwrap_geneve_over4(struct __sk_buff *skb)
{
	return unwrap_geneve(skb, false);
}

GLOBAL int unwrap_geneve_over6(struct __sk_buff *skb)
{
	return unwrap_geneve(skb, true);
}

/* What arrives at a node device: an action, or TC_ACT_UNSPEC if it was not wrapped for this host. */
INLINE int take_wrapped(struct __sk_buff *skb)
{
	int found = 0;

	if (!geneve)
		return TC_ACT_UNSPEC;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		found = unwrap_geneve_over4(skb);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		found = unwrap_geneve_over6(skb);
	if (!found)
		return TC_ACT_UNSPEC;
	if (found > 0)
		return bpf_redirect(found, BPF_F_INGRESS);
	return discard_wrapped(skb, -found);
}
