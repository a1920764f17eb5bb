/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Flows between a client and a backend elsewhere, forwarded past the host's stack: both ends of a packet change at
 * once, and it leaves as the kernel's routes and neighbours say.
 *
 * Such a flow has one row for each direction. Where the stack has to have a hand in it (no hop is left, it is too large
 * for its way, or no way can be told), it gets the rows of one that is masqueraded too, and is no longer forwarded.
 */
#pragma once

#include "both_ends.h"
#include "delivery.h"
#include "way_through.h"

/* For the fragments behind this one, as they come and, where they are wrapped, as they leave. */
INLINE void remember_fragments(struct flow *flow, const struct translation *found, const bool v6)
{
	remember_fragment(flow, v6);
	flow->source = found->from;
	flow->source_port = found->from_port;
	flow->destination = found->address;
	flow->destination_port = found->port;
	remember_fragment(flow, v6);
}

/* The packet as it leaves. Returns a reason to drop it, or SENT. */
INLINE int readdress(struct __sk_buff *skb, struct flow *flow, const struct translation *found, const bool v6)
{
	struct ethhdr *ethernet;

	if (keeps_ports(flow, flow->source_port, found->from_port) ||
	    keeps_ports(flow, flow->destination_port, found->port))
		return REASON_UNTRANSLATABLE;
	if (rewrite_ends(skb, flow, found, v6) || !take_hop(skb, v6))
		return REASON_MALFORMED;
	if (unlikely(flow->first_fragment))
		remember_fragments(flow, found, v6);
	if (v6) /* the hop is in a device's own sum over the packet; of IPv4 the header's checksum makes up for it */
		bpf_csum_update(skb, (__u16)~bpf_htons(1));
	if (unlikely(!found->checked))
		return SENT;
	ethernet = (void *)(long)skb->data;
	if ((void *)(ethernet + 1) > (void *)(long)skb->data_end)
		return REASON_MALFORMED;
	__builtin_memcpy(ethernet, found->macs, sizeof(found->macs));
	if (likely(!(found->state & ASKED)))
		bpf_redirect(found->device, 0);
	return SENT;
}

INLINE __u8 other_side(__u8 sides)
{
	return (sides & SENT_IN ? SENT_OUT : 0) | (sides & SENT_OUT ? SENT_IN : 0);
}

/* For the row of a flow that begins on the other side. */
INLINE void change_sides(struct translation *found)
{
	found->state = other_side(found->state) | (found->state & ESTABLISHED);
	found->closing = other_side(found->closing);
}

/* Both directions of a flow that the stack has a hand in. Returns 0 or not. */
INLINE int enter_both(const struct translation_key *key, const struct translation *value)
{
	return bpf_map_update_elem(&translations, key, value, BPF_ANY) || write_back(key, value);
}

/* From now on the stack has a hand in a packet's flow, which gets four rows: those of the service, and those of the
 * address that it leaves with. `found` becomes the translation of this packet's destination. Returns 0 or a reason.
 */
INLINE int stop_forwarding(const struct passage *at, struct translation *found, const bool v6)
{
	struct translation_key key = key_of(&at->flow, true, v6), other;
	const union address to = found->address;
	const __be16 to_port = found->port;
	const __u32 backend = found->backend;
	const struct translation *known;

	if (found->state & ANSWERS) {
		turn_key(&key, found, &other);
		turn_value(&key, found, found);
		key = other;
	}
	found->state &= ~THROUGH;
	turn_key(&key, found, &other);
	known = bpf_map_lookup_elem(&translations, &other);
	if (known && !is_over(known, at->now) && !answers_as(known, &key.destination, key.destination_port, v6))
		return REASON_NO_PORT;
	other = key;
	other.destination = found->address;
	other.destination_port = found->port;
	other.reply = false;
	found->address = found->from;
	found->port = found->from_port;
	found->backend = 0;
	change_sides(found);
	if (enter_both(&other, found)) /* first, so that whoever finds the service's rows finds these too */
		return REASON_CONNTRACK_FULL;
	found->address = other.destination;
	found->port = other.destination_port;
	found->backend = backend;
	change_sides(found);
	if (enter_both(&key, found))
		return REASON_CONNTRACK_FULL;
	found->address = to;
	found->port = to_port;
	return 0;
}

/* Whether a packet that leaves was forwarded to a backend. The stack forwards nothing that comes with an address of the
 * host; what netfilter gave one is not for us either.
 */
INLINE bool is_forwarded(struct __sk_buff *skb, const struct passage *at, const struct device *device, const bool v6)
{
	union address address = device_address(device, v6);

	return skb->ingress_ifindex && !at->flow.related && same_address(&at->flow.source, &address, v6);
}

/* The same, where more than that depends on it. */
INLINE bool is_known_forwarded(const struct passage *at, const bool v6)
{
	struct translation_key key = key_of_answers(&at->flow, v6);
	struct translation *known;

	key.reply = true;
	known = bpf_map_lookup_elem(&translations, &key);
	return known && known->state & ANSWERS && !passed(at->now, known->expires);
}

/* Each in a frame of its own, and verified once. */
GLOBAL int readdress4(struct __sk_buff *skb, struct passage *at)
{
	struct translation *found = towards_inside();

	return at && found ? readdress(skb, &at->flow, found, false) : TC_ACT_SHOT;
}

GLOBAL int readdress6(struct __sk_buff *skb, struct passage *at)
{
	struct translation *found = towards_inside();

	return at && found ? readdress(skb, &at->flow, found, true) : TC_ACT_SHOT;
}

GLOBAL int stop_forwarding4(const struct passage *at)
{
	struct translation *found = towards_inside();

	return at && found ? stop_forwarding(at, found, false) : TC_ACT_SHOT;
}

GLOBAL int stop_forwarding6(const struct passage *at)
{
	struct translation *found = towards_inside();

	return at && found ? stop_forwarding(at, found, true) : TC_ACT_SHOT;
}

/* An ICMP error about a flow that is forwarded; the stack carries it on. Returns 0, a reason to drop it, or
 * NOT_TRANSLATED.
 */
INLINE int forward_error(struct __sk_buff *skb, const struct flow *flow, const struct translation *found, const bool v6)
{
	if (!is_for_quoted(skb, flow, v6))
		return NOT_TRANSLATED;
	return rewrite_error_ends(skb, flow, found, v6) ? REASON_MALFORMED : 0;
}

GLOBAL int forward_error4(struct __sk_buff *skb, const struct flow *flow)
{
	struct translation *found = towards_inside();

	return flow && found ? forward_error(skb, flow, found, false) : TC_ACT_SHOT;
}

GLOBAL int forward_error6(struct __sk_buff *skb, const struct flow *flow)
{
	struct translation *found = towards_inside();

	return flow && found ? forward_error(skb, flow, found, true) : TC_ACT_SHOT;
}

/* A packet of a flow that is known, to where its translation says. Returns 0, a reason to drop it, NOT_TRANSLATED or
 * SENT.
 */
INLINE int carry_on(struct __sk_buff *skb, struct passage *at, const bool v6)
{
	struct translation *found = towards_inside();
	int reason;

	if (found && found->state & THROUGH) {
		if (unlikely(at->flow.related))
			return v6 ? forward_error6(skb, &at->flow) : forward_error4(skb, &at->flow);
		if (likely(aim(skb, at, found, v6)))
			return v6 ? readdress6(skb, at) : readdress4(skb, at);
		reason = v6 ? stop_forwarding6(at) : stop_forwarding4(at);
		if (reason)
			return reason;
	}
	return v6 ? rewrite_destination6(skb, &at->flow) : rewrite_destination4(skb, &at->flow);
}

/* A packet that comes in: back to the workload or the client whose flow it belongs to. Returns 0, a reason to drop it,
 * NOT_TRANSLATED or SENT.
 */
INLINE int unmasquerade(struct __sk_buff *skb, struct passage *at, const struct device *device, const bool v6)
{
	int found = v6 ? find_masqueraded6(at, device) : find_masqueraded4(at, device);

	return found ? found : carry_on(skb, at, v6);
}
