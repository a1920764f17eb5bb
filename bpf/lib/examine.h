/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A closer look at a packet of a workload: its flow has no verdict of this epoch, or it is no plain packet of its flow.
 */
#pragma once

#include "judge.h"
#include "passage.h"
#include "translate.h"
#include "tunnels.h"

/* What a closer look at a packet of a workload finds where nothing speaks against it. No action has this number. */
#define GOES_ON 64

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
	const union address *peer = outbound ? &at->flow.destination : &at->flow.source;
	struct endpoint *other = find_endpoint(peer, v6);
	__u32 theirs = other ? other->ifindex : at->beyond;
	bool second = outbound ? at->end : !at->end; /* our end of the flow is end 1 */
	struct conntrack_entry *known = entry;

	if (!entry) {
		entry = conntrack_draft();
		if (!entry)
			return REASON_CONNTRACK_FULL;
		entry->origin = at->end;
		entry->icmp_type = at->flow.icmp_type;
		entry->from_host = from_host;
	}
	settle(entry, outcome, at->version.epoch);
	entry->ifindex[0] = second ? theirs : skb->ifindex;
	entry->ifindex[1] = second ? skb->ifindex : theirs;
	entry->wrapped = !other && at->beyond;
	entry->vouched = at->vouched || (at->beyond && entry->vouched);
	if (serving && outbound)
		remember_frontend(entry, at);
	if (known) {
		conntrack_touch(entry, &at->flow, at->end, at->now, skb->len);
		return 0;
	}
	entry->packets[0] = !at->end;
	entry->packets[1] = at->end;
	entry->bytes[0] = at->end ? 0 : skb->len;
	entry->bytes[1] = at->end ? skb->len : 0;
	entry->expires = at->now + conntrack_timeout(entry, at->flow.protocol);
	count(COUNTER_NEW_FLOWS, skb->len);
	return conntrack_add(&at->key, entry, v6) ? REASON_CONNTRACK_FULL : 0;
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
INLINE bool is_forged(struct __sk_buff *skb, const struct conntrack_entry *entry, __u32 theirs, __u32 beyond,
		      const union address *source, const bool v6)
{
	struct endpoint *endpoint = find_endpoint(source, v6);

	if (endpoint)
		return endpoint->ifindex != skb->ingress_ifindex;
	if (overlay && beyond) /* from_overlay has marked it */
		return beyond != skb->ingress_ifindex || !skb->mark;
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

/* A flow that was denied in this epoch is denied again. Returns an action, or GOES_ON. */
INLINE int refuse_again(struct __sk_buff *skb, struct passage *at, const bool v6)
{
	struct denial *denial = denial_find(&at->key, v6);

	if (!denial || denial->epoch != at->version.epoch || denial->origin != at->end ||
	    passed(at->now, denial->expires))
		return GOES_ON;
	return refuse(skb, at, denial->identity, denial->cookie, denial->reason, denial->side, denial->origin, v6);
}

/* A packet whose flow has no verdict of this epoch, or that needs a closer look; `refuse_again` let it go on. Returns
 * an action, or GOES_ON.
 */
INLINE int examine(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry, const bool outbound,
		   const bool v6)
{
	bool from_host, forward, quoted = false;
	union address source, destination;
	union judgement judgement = {};
	struct outcome outcome = {};
	__u32 origin;
	int reason;

	if (entry && (passed(at->now, entry->expires) || reopens(entry, &at->flow)))
		entry = NULL;
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
	if (!outbound && is_forged(skb, entry, at->end, at->beyond, &source, v6))
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
		if (overlay && !outbound && !quoted && at->beyond)
			at->vouched = skb->mark;
		else if (overlay && entry && entry->vouched)
			at->remembered = entry->identity[(at->end ^ 1) & 1];
		judge(as_sent ? &at->flow.source : &at->flow.destination,
		      as_sent ? &at->flow.destination : &at->flow.source, at->flow.protocol, dport, from_host,
		      outbound == forward, at, &outcome, v6);
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
	return outbound ? GOES_ON : PASS;
}

/* Each in a frame of its own, as together they would be too large; and each verified once. */
GLOBAL int examine_sent4(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry)
{
	return at ? examine(skb, at, entry, true, false) : TC_ACT_SHOT;
}

GLOBAL int examine_sent6(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry)
{
	return at ? examine(skb, at, entry, true, true) : TC_ACT_SHOT;
}

GLOBAL int examine_received4(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry)
{
	return at ? examine(skb, at, entry, false, false) : TC_ACT_SHOT;
}

GLOBAL int examine_received6(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry)
{
	return at ? examine(skb, at, entry, false, true) : TC_ACT_SHOT;
}

/* Whether the other end of the packet is on another node; of an ICMP error, its own other end. */
INLINE int look_beyond(struct __sk_buff *skb, struct passage *at, bool outbound, const bool v6)
{
	union address source = at->flow.source, destination = at->flow.destination;

	if (!at->flow.related || load_addresses(skb, &source, &destination, v6))
		at->beyond = device_beyond(outbound ? &destination : &source, v6);
	return 0;
}

GLOBAL int look_beyond4(struct __sk_buff *skb, struct passage *at, __u32 outbound)
{
	return at ? look_beyond(skb, at, outbound, false) : 0;
}

GLOBAL int look_beyond6(struct __sk_buff *skb, struct passage *at, __u32 outbound)
{
	return at ? look_beyond(skb, at, outbound, true) : 0;
}
