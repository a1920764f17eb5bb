// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What passes a node device: one program for what comes in, one for what leaves.
 *
 * Workloads leave with the address of the device, and what comes back finds them; the host itself is guarded by rules
 * if any select it. Both are up to the device's row. What neither concerns passes as it is.
 */
#include "lib/direct_error.h"
#include "lib/direct_take.h"
#include "lib/forward.h"
#include "lib/geneve.h"
#include "lib/guard.h"
#include "lib/nodeport.h"
#include "lib/outer_error.h"
#include "lib/prefilter.h"
#include "lib/reset.h"
#include "lib/unreachable.h"

/* Whether addresses and ports change at a device. */
INLINE bool translates(const struct device *device, const bool v6)
{
	return device->flags & DEVICE_SERVICES || masquerades(device, v6);
}

/* What a client is to be told, and how. No action has these numbers. */
#define TELL_UNSERVED 64 /* that nobody serves it */
#define TELL_RESET 65 /* the same, of a connection */
#define TELL_SIZE 66 /* what the way to its backend carries */

INLINE int refuse(const struct flow *flow)
{
	switch (refusal_of(flow)) {
	case REFUSAL_UNREACHABLE:
		return TELL_UNSERVED;
	case REFUSAL_RESET:
		return TELL_RESET;
	default:
		return TC_ACT_SHOT;
	}
}

/* `reason`: what is wrong with the packet, or 0. */
INLINE int arrive(struct __sk_buff *skb, struct passage *at, const struct device *device, int reason, const bool v6)
{
	int found = NOT_TRANSLATED;

	if (direct_return == DIRECT_OPTION && unlikely(at->flow.tcp_flags & (TCP_FIN | TCP_RST)))
		v6 ? note_end6(at) : note_end4(at);
	if (unlikely(at->flow.related) && !reason)
		hear_error(skb, at, v6);
	if (!reason && translates(device, v6))
		found = unmasquerade(skb, at, device, v6);
	if (!found)
		return PASS;
	if (found == NOT_TRANSLATED && !reason && device->flags & DEVICE_SERVICES) {
		found = serve(skb, at, v6);
		if (direct_return && unlikely(at->flow.related) && found == NOT_TRANSLATED)
			found = serve_error(skb, at, v6);
	}
	if (found > 0)
		return drop(skb, at, found, v6);
	if (unlikely(found == UNSERVED)) {
		drop(skb, at, REASON_NO_BACKEND, v6);
		return refuse(&at->flow);
	}
	if (found == SENT)
		return TC_ACT_REDIRECT;
	if (unlikely(found == TOO_LARGE)) {
		drop(skb, at, REASON_TOO_LARGE, v6);
		return at->flow.related ? TC_ACT_SHOT : TELL_SIZE; /* no error is about another: RFC 1122, 3.2.2 */
	}
	if (!(device->flags & DEVICE_HOST_POLICY))
		return PASS;
	return guard_arriving(skb, at, reason, v6);
}

/* What a device of this host brought in is forwarded, anything else is the host's own: so may a backend be. */
INLINE int leave(struct __sk_buff *skb, struct passage *at, const struct device *device, int reason, const bool v6)
{
	bool forwarded = skb->ingress_ifindex;
	int found = NOT_TRANSLATED;

	if (is_forwarded(skb, at, device, v6))
		return PASS;
	if (translates(device, v6) && (forwarded || at->flow.related || device->flags & DEVICE_SERVICES)) {
		if (likely(!reason))
			found = masquerade(skb, at, device, v6);
		else if (is_to_leave(at, device, v6))
			found = reason;
		if (found > 0)
			return drop(skb, at, found, v6);
	}
	if (forwarded || (!found && at->flow.related))
		return PASS;
	if (found && translates(device, v6) && !reason)
		give_back(&at->flow, v6);
	if (!(device->flags & DEVICE_HOST_POLICY))
		return PASS;
	return guard_leaving(skb, at, reason, v6);
}

INLINE int pass_through(struct __sk_buff *skb, struct passage *at, int reason, const bool outbound, const bool v6)
{
	__u32 ifindex = skb->ifindex;
	const struct device *device = bpf_map_lookup_elem(&devices, &ifindex);

	if (!device || !enter(at))
		return PASS;
	return outbound ? leave(skb, at, device, reason, v6) : arrive(skb, at, device, reason, v6);
}

INLINE int handle_ipv4(struct __sk_buff *skb, const bool outbound)
{
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	struct passage at = {};

	if ((void *)(ip + 1) > data_end)
		return discard(skb, REASON_MALFORMED);
	return pass_through(skb, &at, parse_ipv4(skb, ip, data_end, &at.flow), outbound, false);
}

INLINE int handle_ipv6(struct __sk_buff *skb, const bool outbound)
{
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + ETH_HLEN;
	struct passage at = {};
	__u8 type;

	if ((void *)(ip + 1) > data_end)
		return discard(skb, REASON_MALFORMED);
	if (unlikely(is_neighbour_discovery(skb, ip, &type)))
		return PASS;
	return pass_through(skb, &at, parse_ipv6(skb, ip, data_end, &at.flow), outbound, true);
}

/* A frame of its own for each family: together they would be too large. */
NOINLINE int arrive4(struct __sk_buff *skb)
{
	return handle_ipv4(skb, false);
}

NOINLINE int arrive6(struct __sk_buff *skb)
{
	return handle_ipv6(skb, false);
}

NOINLINE int leave4(struct __sk_buff *skb)
{
	return handle_ipv4(skb, true);
}

NOINLINE int leave6(struct __sk_buff *skb)
{
	return handle_ipv6(skb, true);
}

INLINE int write_unserved(struct __sk_buff *skb, const bool v6)
{
	__u8 protocol;

	if (bpf_skb_load_bytes(skb,
			       ETH_HLEN + (v6 ? offsetof(struct ipv6hdr, nexthdr) : offsetof(struct iphdr, protocol)),
			       &protocol, 1))
		return -1;
	return v6 ? answer_unreachable6(skb, protocol) : answer_unreachable4(skb, protocol);
}

INLINE int write_size(struct __sk_buff *skb, const bool v6)
{
	struct direct_way *way = direct_way_of_packet();

	if (!way)
		return -1;
	return v6 ? write_too_big6(skb, way->mtu, true) : write_too_big4(skb, way->mtu, true);
}

/* The packet becomes its answer, and goes back where it came from. */
INLINE int tell_client(struct __sk_buff *skb, int what)
{
	const bool v6 = skb->protocol == bpf_htons(ETH_P_IPV6);

	return (what == TELL_SIZE ? write_size(skb, v6) : write_unserved(skb, v6)) ? TC_ACT_SHOT :
										     bpf_redirect(skb->ifindex, 0);
}

INLINE int reset_client(struct __sk_buff *skb)
{
	bool v6 = skb->protocol == bpf_htons(ETH_P_IPV6);

	return (v6 ? answer_reset6(skb) : answer_reset4(skb)) ? TC_ACT_SHOT : bpf_redirect(skb->ifindex, 0);
}

INLINE int handle_packet(struct __sk_buff *skb, const bool outbound)
{
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		make_readable(skb, HEADERS4);
		return outbound ? leave4(skb) : arrive4(skb);
	case bpf_htons(ETH_P_IPV6):
		make_readable(skb, HEADERS6);
		return outbound ? leave6(skb) : arrive6(skb);
	default:
		return PASS;
	}
}

SEC("tc")
int from_netdev(struct __sk_buff *skb)
{
	int action;

	if (prefilter && unlikely(is_denied(skb))) { /* also where XDP looked: its link may have been lost just now */
		count(REASON_PREFILTERED, skb->len);
		return TC_ACT_SHOT;
	}
	action = take_direct(skb);
	if (action != TC_ACT_UNSPEC)
		return action;
	action = take_wrapped(skb);
	if (action != TC_ACT_UNSPEC)
		return action;
	action = handle_packet(skb, false);
	switch (action) {
	case TELL_UNSERVED:
	case TELL_SIZE:
		return tell_client(skb, action);
	case TELL_RESET:
		return reset_client(skb);
	default:
		return action;
	}
}

SEC("tc")
int to_netdev(struct __sk_buff *skb)
{
	return handle_packet(skb, true);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
