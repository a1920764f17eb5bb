// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What a workload's packets pass: one program for what it sends, one for what it gets.
 *
 * Both sit on the host end of its veth pair. A packet between two workloads of this host is judged for both of them
 * where it enters, and goes straight to the other one's device. Nothing passes that has no verdict of this epoch.
 */
#include "lib/judge.h"
#include "lib/neighbour.h"
#include "lib/passage.h"

/* Deliver past the other pair's host end, into its namespace (kernel 5.10). */
OPTION(bool, redirect_peer, true);

/* Hands the packet to a workload of this host, if it is for one; the stack has the rest. As a router does, it takes one
 * off the hop count; what has none left goes to the stack, which answers it.
 */
INLINE int deliver(struct __sk_buff *skb, const union address *destination, const bool v6)
{
	struct endpoint *endpoint = find_endpoint(destination, v6);
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	struct ethhdr *ethernet = data;

	if (!endpoint)
		return PASS;
	if (v6) {
		struct ipv6hdr *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > data_end)
			return TC_ACT_SHOT;
		if (ip->hop_limit <= 1)
			return PASS;
		ip->hop_limit--;
	} else {
		struct iphdr *ip = (void *)(ethernet + 1);
		__u32 sum;

		if ((void *)(ip + 1) > data_end)
			return TC_ACT_SHOT;
		if (ip->ttl <= 1)
			return PASS;
		ip->ttl--;
		sum = ip->check + bpf_htons(0x0100); /* RFC 1624 */
		ip->check = sum + (sum >= 0xffff);
	}
	__builtin_memcpy(ethernet->h_dest, endpoint->mac, ETH_ALEN);
	for (int i = 0; i < ETH_ALEN; i++)
		ethernet->h_source[i] = gateway_mac[i];
	return redirect_peer ? bpf_redirect_peer(endpoint->ifindex, 0) : bpf_redirect(endpoint->ifindex, 0);
}

/* Whether the packet's own address, source or destination, belongs to the device that it passes. */
INLINE bool owns_address(struct __sk_buff *skb, const union address *address, const bool v6)
{
	struct endpoint *endpoint = find_endpoint(address, v6);

	return endpoint && endpoint->ifindex == skb->ifindex;
}

/* A denied packet, in the words of whoever denied it. `origin`: the end that sent the flow's first packet. */
INLINE int refuse(struct __sk_buff *skb, const struct passage *at, const __u32 identity[2], __u32 cookie, __u8 reason,
		  __u8 side, __u32 origin, const bool v6)
{
	report(skb, at, EVENT_DROP, reason, side, cookie, at->end ? identity[1] : identity[0],
	       at->end ? identity[0] : identity[1], at->end != origin, v6);
	return TC_ACT_SHOT;
}

INLINE int deny(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry, const struct outcome *outcome,
		__u32 origin, const bool v6)
{
	struct denial denial = {
		.epoch = at->version.epoch,
		.expires = at->now + DENIAL_TICKS,
		.cookie = outcome->cookie,
		.origin = origin,
		.reason = outcome->reason,
		.side = outcome->side,
	};

	denial.identity[0] = origin ? outcome->identity[1] : outcome->identity[0];
	denial.identity[1] = origin ? outcome->identity[0] : outcome->identity[1];
	if (entry)
		settle(entry, outcome, at->version.epoch);
	else if (!at->flow.related)
		denial_add(&at->key, &denial, v6);
	return refuse(skb, at, denial.identity, outcome->cookie, outcome->reason, outcome->side, origin, v6);
}

/* Remembers an allowed flow. Returns 0 or a reason. */
INLINE int remember(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry,
		    const struct outcome *outcome, bool from_host, const bool outbound, const bool v6)
{
	struct conntrack_entry fresh = {
		.origin = at->end,
		.icmp_type = at->flow.icmp_type,
		.from_host = from_host,
	};
	const union address *peer = outbound ? &at->flow.destination : &at->flow.source;
	struct endpoint *other = find_endpoint(peer, v6);
	__u32 theirs = other ? other->ifindex : 0;
	bool second = outbound ? at->end : !at->end; /* our end of the flow is end 1 */

	if (entry) {
		settle(entry, outcome, at->version.epoch);
		entry->ifindex[0] = second ? theirs : skb->ifindex;
		entry->ifindex[1] = second ? skb->ifindex : theirs;
		conntrack_touch(entry, &at->flow, at->end, at->now, skb->len);
		return 0;
	}
	settle(&fresh, outcome, at->version.epoch);
	fresh.ifindex[0] = second ? theirs : skb->ifindex;
	fresh.ifindex[1] = second ? skb->ifindex : theirs;
	fresh.packets[0] = !at->end;
	fresh.packets[1] = at->end;
	fresh.bytes[0] = at->end ? 0 : skb->len;
	fresh.bytes[1] = at->end ? skb->len : 0;
	fresh.expires = at->now + conntrack_timeout(&fresh, at->flow.protocol);
	count(COUNTER_NEW_FLOWS, skb->len);
	return conntrack_add(&at->key, &fresh, v6) ? REASON_CONNTRACK_FULL : 0;
}

/* Whether a known flow's other end may send this packet: a workload of this host through its own device only, this host
 * itself not through any. (IPv4 has the kernel's martian check for the host's addresses, IPv6 has none.)
 */
INLINE bool may_send(struct __sk_buff *skb, __u32 ifindex, __u32 identity)
{
	if (ifindex)
		return ifindex == skb->ingress_ifindex;
	return !(skb->ingress_ifindex && identity == IDENTITY_HOST);
}

/* The same for a packet on its way to a workload whose flow is not known, or not any more. */
INLINE bool is_forged(struct __sk_buff *skb, const struct conntrack_entry *entry, __u32 theirs,
		      const union address *source, const bool v6)
{
	struct endpoint *endpoint = find_endpoint(source, v6);

	if (endpoint)
		return endpoint->ifindex != skb->ingress_ifindex;
	return entry && !may_send(skb, 0, entry->identity[theirs & 1]);
}

/* Whether an ICMP error from `source` may speak of the flow whose end `end` it would be: a workload of this host only
 * of its own flows; routers on the way of any.
 */
INLINE bool may_report(struct __sk_buff *skb, const struct conntrack_entry *entry, __u32 end,
		       const union address *source, const bool outbound, const bool v6)
{
	if (outbound)
		return entry->ifindex[end & 1] == skb->ifindex;
	return !find_endpoint(source, v6) || entry->ifindex[end & 1] == skb->ingress_ifindex;
}

/* A packet whose flow has no verdict of this epoch, or that needs a closer look. Returns an action. */
INLINE int examine(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry, const bool outbound,
		   const bool v6)
{
	bool from_host, forward, quoted = false;
	union address source, destination;
	union judgement judgement = {};
	struct outcome outcome = {};
	struct denial *denial;
	__u32 origin;
	int reason;

	if (entry && (passed(at->now, entry->expires) || reopens(entry, &at->flow)))
		entry = NULL;
	if (!entry && !at->flow.related) {
		denial = denial_find(&at->key, v6);
		if (denial && denial->epoch == at->version.epoch && denial->origin == at->end &&
		    !passed(at->now, denial->expires))
			return refuse(skb, at, denial->identity, denial->cookie, denial->reason, denial->side,
				      denial->origin, v6);
	}
	source = at->flow.source;
	destination = at->flow.destination;
	if (unlikely(at->flow.related)) {
		if (!load_addresses(skb, &source, &destination, v6))
			return drop(skb, at, REASON_MALFORMED, v6);
		quoted = entry && same_address(&destination, &at->flow.source, v6) &&
			 may_report(skb, entry, at->end ^ 1, &source, outbound, v6);
		if (quoted) {
			at->end ^= 1; /* the quoted packet went the other way */
		} else {
			entry = NULL;
			stand_for_itself(at, &source, &destination, v6);
		}
	}
	if (!owns_address(skb, outbound ? &source : &destination, v6))
		return drop(skb, at, outbound ? REASON_SPOOFED_SOURCE : REASON_UNKNOWN_DESTINATION, v6);
	if (!outbound && is_forged(skb, entry, at->end, &source, v6))
		return drop(skb, at, REASON_SPOOFED_SOURCE, v6);

	if (unlikely(!entry && at->flow.later_fragment)) /* its first one opens the flow, or nothing does */
		return drop(skb, at, REASON_FRAGMENT_UNKNOWN, v6);

	origin = entry ? entry->origin : at->end;
	forward = origin == at->end;
	from_host = entry ? entry->from_host : !outbound && !skb->ingress_ifindex;
	if (entry)
		judgement = judgement_of(entry);
	if (entry && judgement.epoch == at->version.epoch) {
		outcome.identity[0] = origin ? entry->identity[1] : entry->identity[0];
		outcome.identity[1] = origin ? entry->identity[0] : entry->identity[1];
		outcome.cookie = entry->cookie;
		outcome.reason = judgement.reason;
		outcome.side = judgement.side;
	} else {
		bool as_sent = quoted ? !forward : forward; /* the flow's fields are those of its first packet */
		__be16 dport = as_sent ? at->flow.destination_port : at->flow.source_port;

		if (at->flow.protocol == IPPROTO_ICMP || at->flow.protocol == IPPROTO_ICMPV6)
			dport = bpf_htons(entry ? entry->icmp_type : at->flow.icmp_type);
		judge(as_sent ? &at->flow.source : &at->flow.destination,
		      as_sent ? &at->flow.destination : &at->flow.source, at->flow.protocol, dport, from_host,
		      outbound == forward, at->version, &outcome, v6);
		if (!outcome.reason)
			report(skb, at, EVENT_VERDICT, outcome.audited ? REASON_AUDITED : REASON_ALLOWED, outcome.side,
			       outcome.cookie, forward ? outcome.identity[0] : outcome.identity[1],
			       forward ? outcome.identity[1] : outcome.identity[0], !forward, v6);
	}
	if (outcome.reason)
		return deny(skb, at, entry, &outcome, origin, v6);
	if (likely(!at->flow.related)) {
		reason = remember(skb, at, entry, &outcome, from_host, outbound, v6);
		if (reason)
			return drop(skb, at, reason, v6);
		if (unlikely(at->flow.first_fragment))
			remember_fragment(&at->flow, v6);
	}
	return outbound ? deliver(skb, &destination, v6) : PASS;
}

/* The common part of both programs, from the parsed flow on. */
INLINE int handle(struct __sk_buff *skb, struct passage *at, const bool outbound, const bool v6)
{
	struct conntrack_entry *entry;
	union judgement judgement;
	__u32 ours, theirs;

	at->end = conntrack_key(&at->flow, &at->key, v6);
	entry = conntrack_find(&at->key, v6);
	if (unlikely(!entry || at->flow.related))
		return examine(skb, at, entry, outbound, v6);
	ours = (outbound ? at->end : at->end ^ 1) & 1;
	theirs = ours ^ 1;
	judgement = judgement_of(entry);
	if (likely(judgement.epoch == at->version.epoch && !judgement.reason && entry->ifindex[ours] == skb->ifindex &&
		   (outbound || may_send(skb, entry->ifindex[theirs], entry->identity[theirs])) &&
		   !passed(at->now, entry->expires) && !reopens(entry, &at->flow))) {
		conntrack_touch(entry, &at->flow, at->end, at->now, skb->len);
		if (unlikely(at->flow.first_fragment))
			remember_fragment(&at->flow, v6);
		if (outbound && entry->ifindex[theirs])
			return deliver(skb, &at->flow.destination, v6);
		return PASS;
	}
	return examine(skb, at, entry, outbound, v6);
}

INLINE int handle_ipv4(struct __sk_buff *skb, const bool outbound)
{
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	struct passage at = {};
	int reason;

	if ((void *)(ip + 1) > data_end || !enter(&at))
		return TC_ACT_SHOT;
	reason = parse_ipv4(skb, ip, data_end, &at.flow);
	if (unlikely(reason))
		return drop(skb, &at, reason, false);
	if (unlikely(is_multicast(&at.flow.destination, false))) {
		count(REASON_UNSUPPORTED_PROTOCOL, skb->len);
		return TC_ACT_SHOT;
	}
	return handle(skb, &at, outbound, false);
}

INLINE int handle_ipv6(struct __sk_buff *skb, const bool outbound)
{
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + ETH_HLEN;
	struct passage at = {};
	__u8 type;
	int reason;

	if ((void *)(ip + 1) > data_end)
		return TC_ACT_SHOT;
	if (unlikely(is_neighbour_discovery(skb, ip, &type))) {
		if (ip->hop_limit != ND_HOP_LIMIT)
			return TC_ACT_SHOT;
		if (!outbound)
			return PASS;
		return type == ND_NEIGHBOUR_SOLICITATION ? answer_neighbour(skb) : TC_ACT_SHOT;
	}
	if (!enter(&at))
		return TC_ACT_SHOT;
	reason = parse_ipv6(skb, ip, data_end, &at.flow);
	if (unlikely(reason))
		return drop(skb, &at, reason, true);
	if (unlikely(is_multicast(&at.flow.destination, true))) {
		count(REASON_UNSUPPORTED_PROTOCOL, skb->len);
		return TC_ACT_SHOT;
	}
	return handle(skb, &at, outbound, true);
}

INLINE int handle_packet(struct __sk_buff *skb, const bool outbound)
{
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		make_readable(skb, HEADERS4);
		return handle_ipv4(skb, outbound);
	case bpf_htons(ETH_P_IPV6):
		make_readable(skb, HEADERS6);
		return handle_ipv6(skb, outbound);
	case bpf_htons(ETH_P_ARP):
		make_readable(skb, ETH_HLEN + sizeof(struct arp_ipv4));
		return outbound ? answer_arp(skb) : PASS;
	default:
		count(REASON_UNSUPPORTED_PROTOCOL, skb->len);
		return TC_ACT_SHOT;
	}
}

SEC("tc")
int from_workload(struct __sk_buff *skb)
{
	return handle_packet(skb, true);
}

SEC("tc")
int to_workload(struct __sk_buff *skb)
{
	return handle_packet(skb, false);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
