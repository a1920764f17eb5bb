/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A router's word that a packet which our programs wrapped was too large for its way: remembered, so that the sender of
 * the next one that is gets an answer (too_big.h).
 *
 * Believed is what quotes our own wrapping, from this host to another node or to a workload elsewhere.
 */
#pragma once

#include "direct_return.h"
#include "masquerade.h"
#include "path_mtu.h"
#include "too_big.h"
#include "tunnels.h"

/* Whether our programs wrap anything at all. */
INLINE bool wraps_packets(void)
{
	return geneve || direct_return == DIRECT_IPIP || direct_return == DIRECT_GENEVE;
}

INLINE bool says_too_big(const struct flow *flow, const bool v6)
{
	return v6 ? flow->error_type == ICMPV6_PACKET_TOO_BIG :
		    flow->error_type == ICMP_UNREACHABLE && flow->error_code == ICMP_FRAGMENTATION_NEEDED;
}

/* Whether a quoted packet is wrapped as our programs do it. */
INLINE bool is_wrapped_here(const struct flow *flow, const bool v6)
{
	if (flow->protocol == IPPROTO_UDP)
		return (geneve && flow->destination_port == bpf_htons(tunnel_port)) ||
		       (direct_return == DIRECT_GENEVE && flow->destination_port == bpf_htons(direct_port));
	return direct_return == DIRECT_IPIP && flow->protocol == (v6 ? IPPROTO_IPV6 : IPPROTO_IPIP);
}

/* Whether a packet is from this host to one of the cluster that is elsewhere. */
INLINE bool is_between_hosts(const struct flow *flow, __u32 epoch, const bool v6)
{
	struct peer to = find_peer(&flow->destination, v6, epoch);

	return find_peer(&flow->source, v6, epoch).flags & IPCACHE_HOST && is_of_cluster(to.identity) &&
	       !(to.flags & (IPCACHE_HOST | IPCACHE_LOCAL));
}

/* What the router says that it carries; 0: nothing. */
INLINE __u32 said_mtu(struct __sk_buff *skb, const bool v6)
{
	__u32 error = transport_offset(skb, ETH_HLEN, v6);
	__be32 large;
	__be16 small;

	if (!error)
		return 0;
	if (v6)
		return bpf_skb_load_bytes(skb, error + offsetof(struct too_big6, mtu), &large, sizeof(large)) ?
			       0 :
			       bpf_ntohl(large);
	return bpf_skb_load_bytes(skb, error + offsetof(struct too_big4, mtu), &small, sizeof(small)) ?
		       0 :
		       bpf_ntohs(small);
}

INLINE void learn_path(struct __sk_buff *skb, const struct passage *at, const bool v6)
{
	const struct flow *quoted = &at->flow;

	if (is_wrapped_here(quoted, v6) && is_for_quoted(skb, quoted, v6) &&
	    is_between_hosts(quoted, at->version.epoch, v6))
		narrow_path(&quoted->destination, said_mtu(skb, v6), at->now, v6);
}

/* Each in a frame of its own, and verified once. */
GLOBAL int learn_path4(struct __sk_buff *skb, const struct passage *at)
{
	if (at)
		learn_path(skb, at, false);
	return 0;
}

GLOBAL int learn_path6(struct __sk_buff *skb, const struct passage *at)
{
	if (at)
		learn_path(skb, at, true);
	return 0;
}

/* An ICMP error that arrives at a node device, whatever becomes of it. */
INLINE void hear_error(struct __sk_buff *skb, const struct passage *at, const bool v6)
{
	if (wraps_packets() && says_too_big(&at->flow, v6))
		v6 ? learn_path6(skb, at) : learn_path4(skb, at);
}
