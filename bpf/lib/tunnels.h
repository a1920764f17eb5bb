/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where workloads of other nodes are: by CIDR, the node to wrap packets for, and what passes on the way to it. */
#pragma once

#include "ipcache.h"
#include "path_mtu.h"

/* Packets to workloads of other nodes are wrapped. */
OPTION(bool, overlay, false);

/* By our own programs, in Geneve (RFC 8926); else by the kernel's device. */
OPTION(bool, geneve, false);

/* UDP port of wrapped packets; 0: there are none. */
OPTION(__u16, tunnel_port, 0);

/* Outer headers and the inner Ethernet header: VXLAN and Geneve without options alike. */
#define WRAPPING4 (sizeof(struct iphdr) + sizeof(struct udphdr) + 8 + ETH_HLEN)
#define WRAPPING6 (sizeof(struct ipv6hdr) + sizeof(struct udphdr) + 8 + ETH_HLEN)

struct tunnel {
	__u8 remote[16]; /* outer address of the node that has the CIDR; IPv4 in the first four bytes */
	__u8 local[16]; /* outer address of this host */
	__u32 ifindex; /* overlay device */
	__u8 family; /* of the outer addresses: FAMILY_* */
	__u8 here; /* not another node's CIDR, but the address that this host itself has among workloads */
	__u8 cluster; /* id of the other node's cluster: bits 16 to 23 of its workloads' identities */
	__u8 pad;
	__u32 mtu; /* of packets before they are wrapped, as measured at tick `checked`; written by the programs */
	__u32 checked;
	__u32 device; /* of this host, by which the other one is reached: measured too */
};

struct tunnel4_key {
	__u32 prefixlen;
	__be32 address;
};

struct tunnel6_key {
	__u32 prefixlen;
	__u8 address[16];
};

/* CIDR of another node, and the way there; written by the daemon, but for the measured MTU. Full: the commit is
 * refused.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__type(key, struct tunnel4_key);
	__type(value, struct tunnel);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} tunnels4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__type(key, struct tunnel6_key);
	__type(value, struct tunnel);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} tunnels6 SEC(".maps");

INLINE struct tunnel *tunnel_row(const union address *address, const bool v6)
{
	if (v6) {
		struct tunnel6_key key = { .prefixlen = 128 };

		__builtin_memcpy(key.address, address->bytes, 16);
		return bpf_map_lookup_elem(&tunnels6, &key);
	} else {
		struct tunnel4_key key = { .prefixlen = 32, .address = address->v4 };

		return bpf_map_lookup_elem(&tunnels4, &key);
	}
}

/* The way to a workload of another node, or to that node's own address among them. */
INLINE struct tunnel *find_tunnel(const union address *address, const bool v6)
{
	struct tunnel *tunnel = tunnel_row(address, v6);

	return tunnel && !tunnel->here ? tunnel : NULL;
}

/* Whether a node may say this of a sender: one of its cluster's workloads, its health endpoint, or the node itself. */
INLINE bool may_vouch(const struct tunnel *tunnel, __u32 identity)
{
	return identity == IDENTITY_REMOTE_NODE || identity == IDENTITY_HEALTH ||
	       (identity >> 16 == tunnel->cluster && (identity & 0xffff) >= IDENTITY_FIRST_CLUSTER);
}

/* The device by which packets from and to a workload of another node go, 0 for any other address. */
INLINE __u32 device_beyond(const union address *address, const bool v6)
{
	struct tunnel *tunnel = find_tunnel(address, v6);

	return tunnel ? tunnel->ifindex : 0;
}

/* What the network between the nodes carries now, learned path MTUs included. */
GLOBAL int measure_tunnel(struct __sk_buff *skb, struct tunnel *tunnel, __u32 now)
{
	struct bpf_fib_lookup route = {
		.l4_protocol = IPPROTO_UDP,
		.tot_len = 0xffff, /* as large as can be, so that the answer is the MTU */
		.ifindex = 1, /* the loopback: as this host itself sends */
	};
	__u32 mtu = 0xffff, wrapping;

	if (!tunnel)
		return 0;
	wrapping = tunnel->family == FAMILY_IPV6 ? WRAPPING6 : WRAPPING4;
	route.family = tunnel->family;
	if (tunnel->family == FAMILY_IPV6) {
		__builtin_memcpy(route.ipv6_src, tunnel->local, 16);
		__builtin_memcpy(route.ipv6_dst, tunnel->remote, 16);
	} else {
		__builtin_memcpy(&route.ipv4_src, tunnel->local, 4);
		__builtin_memcpy(&route.ipv4_dst, tunnel->remote, 4);
	}
	if (bpf_fib_lookup(skb, &route, sizeof(route), 0) == BPF_FIB_LKUP_RET_FRAG_NEEDED) {
		mtu = route.mtu_result;
		tunnel->checked = now; /* else it is tried again with the next packet */
	}
	if (geneve) {
		const __u32 least = least_wrapped(wrapping, skb->protocol == bpf_htons(ETH_P_IPV6));
		int found;

		mtu = path_mtu(tunnel->remote, mtu, least, now, tunnel->family == FAMILY_IPV6);
		route.tot_len = 0;
		found = bpf_fib_lookup(skb, &route, sizeof(route), 0);
		tunnel->device = !found || found == BPF_FIB_LKUP_RET_NO_NEIGH ? route.ifindex : 0;
	}
	tunnel->mtu = mtu - wrapping;
	return 0;
}

/* MTU of packets before they are wrapped; measured once a tick. */
INLINE __u32 tunnel_mtu(struct __sk_buff *skb, struct tunnel *tunnel, __u32 now)
{
	if (unlikely(tunnel->checked != now))
		measure_tunnel(skb, tunnel, now);
	return tunnel->mtu;
}

/* Makes the packet leave through the tunnel. `whole`: nobody may cut it on the way. Returns 0 or not. */
INLINE int enter_tunnel(struct __sk_buff *skb, const struct tunnel *tunnel, __u32 identity, bool whole)
{
	struct bpf_tunnel_key key = { .tunnel_id = identity, .tunnel_ttl = 64 };
	__u64 flags = whole ? BPF_F_DONT_FRAGMENT : 0;

	if (unlikely(tunnel->family == FAMILY_IPV6)) {
		flags |= BPF_F_TUNINFO_IPV6;
		__builtin_memcpy(key.remote_ipv6, tunnel->remote, 16);
		__builtin_memcpy(key.local_ipv6, tunnel->local, 16);
	} else {
		__be32 remote, local;

		flags |= BPF_F_ZERO_CSUM_TX;
		__builtin_memcpy(&remote, tunnel->remote, 4);
		__builtin_memcpy(&local, tunnel->local, 4);
		key.remote_ipv4 = bpf_ntohl(remote);
		key.local_ipv4 = bpf_ntohl(local);
	}
	return bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags);
}
