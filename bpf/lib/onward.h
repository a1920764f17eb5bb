/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where a workload's packet goes that may go on: to a workload of this host, wrapped to another node, or to the stack.
 */
#pragma once

#include "delivery.h"
#include "geneve.h"
#include "passage.h"
#include "too_big.h"
#include "tunnels.h"

/* Deliver past the other pair's host end, into its namespace (kernel 5.10). */
OPTION(bool, redirect_peer, true);

/* To a workload of this host, or back to the one that sent it. */
INLINE int hand_over(__u32 ifindex)
{
	return redirect_peer ? bpf_redirect_peer(ifindex, 0) : bpf_redirect(ifindex, 0);
}

/* Hands the packet to a workload of this host. */
INLINE int deliver(struct __sk_buff *skb, const struct endpoint *endpoint, const bool v6)
{
	if (!take_hop_to(skb, endpoint->mac, v6))
		return PASS;
	return hand_over(endpoint->ifindex);
}

/* Larger than the way to the other node. What may be cut, the stack cuts; else the sender is told. */
INLINE int refuse_size(struct __sk_buff *skb, __u32 mtu, const bool v6)
{
	struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;

	if (v6)
		return write_too_big6(skb, mtu, false) ? PASS : hand_over(skb->ifindex);
	if ((void *)(ip + 1) > (void *)(long)skb->data_end || !(ip->frag_off & bpf_htons(IPV4_DONT_FRAGMENT)))
		return PASS;
	return write_too_big4(skb, mtu, false) ? PASS : hand_over(skb->ifindex);
}

/* Sends the packet to another node, wrapped; `identity` is what the whole cluster knows the sender by. */
INLINE int send_wrapped(struct __sk_buff *skb, struct tunnel *tunnel, __u32 identity, __u32 now, __u8 protocol,
			const bool v6)
{
	__u32 mtu = tunnel_mtu(skb, tunnel, now);

	if (unlikely(network_length(skb, protocol, v6) > mtu))
		return refuse_size(skb, mtu, v6);
	if (!take_hop(skb, v6))
		return PASS;
	if (geneve)
		return wrap_geneve(skb, tunnel, identity);
	if (enter_tunnel(skb, tunnel, identity, true))
		return discard(skb, REASON_NO_ROOM);
	return bpf_redirect(tunnel->ifindex, 0);
}

/* Each in a frame of its own, and verified once. */
GLOBAL int send_wrapped4(struct __sk_buff *skb, struct tunnel *tunnel, __u32 identity, __u32 now, __u32 protocol)
{
	return tunnel ? send_wrapped(skb, tunnel, identity, now, protocol, false) : TC_ACT_SHOT;
}

GLOBAL int send_wrapped6(struct __sk_buff *skb, struct tunnel *tunnel, __u32 identity, __u32 now, __u32 protocol)
{
	return tunnel ? send_wrapped(skb, tunnel, identity, now, protocol, true) : TC_ACT_SHOT;
}

INLINE int send_to_node(struct __sk_buff *skb, const struct passage *at, const union address *destination,
			__u32 identity, const bool v6)
{
	struct tunnel *tunnel = find_tunnel(destination, v6);

	if (!tunnel)
		return PASS;
	return v6 ? send_wrapped6(skb, tunnel, identity, at->now, at->flow.protocol) :
		    send_wrapped4(skb, tunnel, identity, at->now, at->flow.protocol);
}

/* What the whole cluster knows the workload of this device by. */
INLINE __u32 shared_identity(const union address *source, const bool v6)
{
	struct endpoint *endpoint = find_endpoint(source, v6);

	return endpoint ? endpoint->identity : IDENTITY_UNKNOWN;
}

/* A packet that may go on: to a workload of this host, wrapped to one of another node, or to the stack. */
INLINE int send_on(struct __sk_buff *skb, const struct passage *at, const union address *source,
		   const union address *destination, const bool v6)
{
	struct endpoint *endpoint = find_endpoint(destination, v6);

	if (endpoint)
		return deliver(skb, endpoint, v6);
	if (overlay && at->beyond)
		return send_to_node(skb, at, destination, shared_identity(source, v6), v6);
	return PASS;
}

/* An ICMP error goes where it is addressed itself. */
INLINE int send_error(struct __sk_buff *skb, const struct passage *at, const bool v6)
{
	union address source, destination;

	if (!load_addresses(skb, &source, &destination, v6))
		return drop(skb, at, REASON_MALFORMED, v6);
	return send_on(skb, at, &source, &destination, v6);
}

GLOBAL int send_error4(struct __sk_buff *skb, struct passage *at)
{
	return at ? send_error(skb, at, false) : TC_ACT_SHOT;
}

GLOBAL int send_error6(struct __sk_buff *skb, struct passage *at)
{
	return at ? send_error(skb, at, true) : TC_ACT_SHOT;
}
