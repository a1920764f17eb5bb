/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Translated flows: one entry for each direction, which know each other. */
#pragma once

#include "conntrack.h"
#include "direct_return.h"

/* A packet as it comes to be translated, in its own direction; of IPv4 addresses all but the first word is 0. */
struct translation_key {
	union address source;
	union address destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 reply; /* on its way in: to an address of this host, or to one of a service */
	__u8 v6;
	__u8 pad;
};

/* What is known of a flow. */
enum translation_state {
	SENT_OUT = 1 << 0, /* out of the host something was sent */
	SENT_IN = 1 << 1,
	SENT_BOTH = SENT_OUT | SENT_IN,
	DIRECT = 1 << 2, /* its other direction does not pass here: lib/direct.h */
	ESTABLISHED = 1 << 3, /* both sides have sent, and something else than what opens a connection */
	THROUGH = 1 << 4, /* both ends of its packets change at once: lib/forward.h */
	ANSWERS = 1 << 5, /* of these: what the backend sends */
	ASKED = 1 << 6, /* of the packet at hand: the kernel sends it, and looks after the neighbour */
	KINDS = DIRECT | THROUGH | ANSWERS, /* what a flow stays */
};

struct translation {
	union address
		address; /* what the packet gets: as its source on the way out, as its destination on the way in */
	union address from; /* of one that goes through: what it gets as its source besides */
	__be16 port; /* with `address`; of an ICMP echo the identifier */
	__be16 from_port;
	__u8 closing; /* a bit for each side that sent FIN, as in `state`; both after RST */
	__u8 state; /* enum translation_state */
	__u16 mtu; /* of the way below */
	__u32 expires; /* ticks */
	__u32 backend; /* of a flow to a service; 0: it is masqueraded */
	__u32 service; /* the version that chose it */
	__u32 checked; /* of one that goes through: the tick in which its packets' way was found, 0: it was not */
	__u32 device; /* by which they leave */
	__u8 macs[2 * ETH_ALEN]; /* as their frames begin: the neighbour's, and the device's own */
};

/* Flows that left with an address of this host, and flows that came in for services. Written and read by the programs,
 * collected by the daemon. Full: the least recently used entry goes; the other one of its flow makes it anew. Sized by
 * the loader.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct translation_key);
	__type(value, struct translation);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} translations SEC(".maps");

/* The translation of a packet that comes in, from when it is found to when it is applied; too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct translation);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} towards SEC(".maps");

INLINE struct translation *towards_inside(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&towards, &zero);
}

INLINE bool is_icmp(__u8 protocol)
{
	return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

/* What packets that come back are found by, after `value` was applied to a packet of `key`. */
INLINE void turn_key(const struct translation_key *key, const struct translation *value, struct translation_key *other)
{
	__be16 port = is_icmp(key->protocol) ? ~value->port : key->reply ? key->source_port : key->destination_port;

	other->protocol = key->protocol;
	other->reply = !key->reply;
	other->v6 = key->v6;
	other->pad = 0;
	if (value->state & THROUGH) {
		other->reply = true;
		other->source = value->address;
		other->source_port = value->port;
		other->destination = value->from;
		other->destination_port = value->from_port;
	} else if (key->reply) {
		other->source = value->address;
		other->source_port = value->port;
		other->destination = key->source;
		other->destination_port = port;
	} else {
		other->source = key->destination;
		other->source_port = port;
		other->destination = value->address;
		other->destination_port = value->port;
	}
}

/* What is applied to them. */
INLINE void turn_value(const struct translation_key *key, const struct translation *value, struct translation *back)
{
	*back = *value;
	if (value->state & THROUGH) {
		back->address = key->source;
		back->port = key->source_port;
		back->from = key->destination;
		back->from_port = key->destination_port;
		back->state ^= ANSWERS;
		back->checked = back->device = 0;
		__builtin_memset(back->macs, 0, sizeof(back->macs));
	} else if (key->reply) {
		back->address = key->destination;
		back->port = key->destination_port;
	} else {
		back->address = key->source;
		back->port = key->source_port;
	}
}

/* The entry of the other direction. */
INLINE void turn(const struct translation_key *key, const struct translation *value, struct translation_key *other,
		 struct translation *back)
{
	turn_key(key, value, other);
	turn_value(key, value, back);
}

NOINLINE int write_back(const struct translation_key *key, const struct translation *value)
{
	struct translation_key other;
	struct translation back;

	turn(key, value, &other, &back);
	return bpf_map_update_elem(&translations, &other, &back, BPF_ANY);
}

/* Seconds, in ticks, that a flow may be silent. Of a direct one the client's side is all that passes its first host:
 * its first packet that opens nothing tells of the other one, and its FIN is all that is seen of the end.
 */
INLINE __u32 translation_timeout(const struct translation_key *key, __u8 closing, __u8 state)
{
	if (unlikely(state & DIRECT && key->reply && closing && closing != SENT_BOTH))
		return timeout_other;
	return flow_timeout(key->protocol, closing, state & ESTABLISHED);
}

/* Whether a packet shows that the opener of a connection has heard the answer: nobody holds an entry for hours by what
 * opens connections alone. Where a client's packets are told by an option, the host of its backend sees only the
 * answer.
 */
INLINE bool establishes(__u8 state, __u8 tcp_flags)
{
	return !(tcp_flags & TCP_SYN) || (state & DIRECT && direct_return == DIRECT_OPTION);
}

/* What a packet leaves behind: mostly nothing. Once a tick, and when the flow's state changes, both entries are
 * written, so that neither is forgotten while the other one is in use.
 */
INLINE void translation_note(const struct translation_key *key, struct translation *value, const __u8 side,
			     __u8 tcp_flags, __u32 now)
{
	__u8 closing = value->closing, state = value->state | side;
	__u32 expires;

	if (unlikely(tcp_flags & (TCP_FIN | TCP_RST))) {
		closing |= tcp_flags & TCP_RST ? SENT_BOTH : side;
	} else if (unlikely((closing == SENT_BOTH || (closing && state & DIRECT)) &&
			    (tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)) {
		closing = 0;
		state = side | (state & KINDS);
	}
	if (unlikely(state & DIRECT && tcp_flags & TCP_ACK))
		state |= SENT_BOTH;
	if (unlikely(!(state & ESTABLISHED)) && (state & SENT_BOTH) == SENT_BOTH && establishes(state, tcp_flags))
		state |= ESTABLISHED;
	expires = now + translation_timeout(key, closing, state);
	if (likely(value->expires == expires && value->closing == closing && value->state == state))
		return;
	value->expires = expires;
	value->closing = closing;
	value->state = state;
	if (likely(!(state & DIRECT)))
		write_back(key, value);
}

/* The same of a packet of the entry's own direction. */
INLINE void translation_touch(const struct translation_key *key, struct translation *value, __u8 tcp_flags, __u32 now)
{
	translation_note(key, value, key->reply && !(value->state & ANSWERS) ? SENT_IN : SENT_OUT, tcp_flags, now);
}
