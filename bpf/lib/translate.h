/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What workloads send to services, packet by packet: it gets a backend's address, and the answer the service's.
 *
 * A flow keeps its backend for as long as that lives, whatever becomes of the service. The way back is written in the
 * conntrack entry of the translated flow, so other flows are not asked whether they belong to a service.
 */
#pragma once

#include "balance.h"
#include "passage.h"
#include "rewrite.h"
#include "too_big.h"
#include "tunnels.h"

/* The cluster has services. */
OPTION(bool, serving, true);

/* What became of a packet. No action has these numbers. */
enum translated {
	NO_SERVICE = 65, /* it is as it was */
	TRANSLATED, /* it is for the backend, and its flow and key too */
	CHOSEN, /* it is as it was, and the other end is the backend that it is for */
	SELF_ASKED, /* the same, and that backend is the sender */
	SELF_ANSWERED, /* it is what the sender answers itself, by a service whose port is the other end's */
	TOO_LARGE, /* for the way to the backend, which the flow's destination now is; the packet is as it was */
	UNSERVED, /* the service has no backend, or the flow's is dead, and its client is told */
};

/* By a hash of an address: whether packets to it were ever translated. So packets to any other address are not looked
 * for among service flows. Written and read by the programs; never full, as two addresses may share a mark.
 */
struct service_marks {
	__u8 marks[1 << 16];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct service_marks);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} service_marks SEC(".maps");

INLINE __u8 *mark_of(const union address *address, const bool v6)
{
	__u32 zero = 0;
	struct service_marks *found = bpf_map_lookup_elem(&service_marks, &zero);
	__u64 word = v6 ? address->v6[0] ^ address->v6[1] : address->v4;

	return found ? &found->marks[(word * 0x9e3779b97f4a7c15) >> 48] : NULL; /* Knuth's multiplicative hash */
}

/* False: nobody's service was ever reached by it. */
INLINE bool may_be_service(const union address *address, const bool v6)
{
	__u8 *mark = mark_of(address, v6);

	return mark && *mark;
}

union service_flow_key {
	struct service_flow4_key v4;
	struct service_flow6_key v6;
};

/* The other end that a packet of a service has: before it is translated its backend, then its frontend. */
struct other_end {
	union address address;
	__be16 port;
	__u8 pad[6];
	union service_flow_key key; /* of the packet as it came, and what is added for it */
	struct service_flow flow;
};

/* Of the packet that this CPU is at; it would be too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct other_end);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} other_end SEC(".maps");

INLINE struct other_end *other_end_of_packet(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&other_end, &zero);
}

#define LARGE 1200 /* no tunnel carries less */

INLINE void service_flow_key(const union address *client, __be16 client_port, const union address *frontend,
			     __be16 port, __u8 protocol, union service_flow_key *key, const bool v6)
{
	if (v6) {
		__builtin_memset(&key->v6, 0, sizeof(key->v6));
		__builtin_memcpy(key->v6.client, client->v6, 16);
		__builtin_memcpy(key->v6.frontend, frontend->v6, 16);
		key->v6.client_port = client_port;
		key->v6.port = port;
		key->v6.protocol = protocol;
	} else {
		__builtin_memset(&key->v4, 0, sizeof(key->v4));
		key->v4.client = client->v4;
		key->v4.frontend = frontend->v4;
		key->v4.client_port = client_port;
		key->v4.port = port;
		key->v4.protocol = protocol;
	}
}

INLINE struct service_flow *service_flow_find(const union service_flow_key *key, const bool v6)
{
	if (v6)
		return bpf_map_lookup_elem(&service_flows6, &key->v6);
	return bpf_map_lookup_elem(&service_flows4, &key->v4);
}

INLINE int service_flow_add(const union service_flow_key *key, const struct service_flow *flow, const bool v6)
{
	if (v6)
		return bpf_map_update_elem(&service_flows6, &key->v6, flow, BPF_ANY);
	return bpf_map_update_elem(&service_flows4, &key->v4, flow, BPF_ANY);
}

/* What a packet of the client leaves behind. Its FIN is all that it sees of the end, so after that the wait is short.
 */
INLINE void service_flow_touch(struct service_flow *known, const struct flow *flow, __u32 now)
{
	__u32 expires;

	if (unlikely(flow->tcp_flags & (TCP_FIN | TCP_RST)))
		known->closing |= flow->tcp_flags & TCP_RST ? 3 : 1;
	if (unlikely(!known->replied && !opens(flow)))
		known->replied = 1;
	expires = now +
		  (known->closing == 1 ? timeout_other : flow_timeout(flow->protocol, known->closing, known->replied));
	if (known->expires != expires)
		known->expires = expires;
}

/* What answers of a workload to itself are known by; a service flow of backend 0, whose port is the service's. */
INLINE int remember_self(const struct flow *flow, struct other_end *other, const bool v6)
{
	service_flow_key(&flow->source, other->port, &flow->destination, flow->source_port, flow->protocol, &other->key,
			 v6);
	other->flow.backend = 0;
	other->flow.port = flow->destination_port;
	return service_flow_add(&other->key, &other->flow, v6);
}

/* A backend for a flow that has none, or that begins again. Returns CHOSEN, NO_SERVICE, UNSERVED or an action. */
INLINE int begin_flow(struct __sk_buff *skb, struct passage *at, const struct service_flow *known,
		      struct other_end *other, const bool v6)
{
	const struct flow *flow = &at->flow;
	struct affinity_key client = { .v6 = v6 };
	struct endpoint *endpoint;
	struct service *service;
	struct fronted fronted;
	struct choice choice = {};

	fronted = find_frontend(&flow->destination, flow->destination_port, flow->protocol, SCOPE_INSIDE,
				at->version.epoch, v6);
	if (likely(!fronted.service))
		return NO_SERVICE;
	endpoint = find_endpoint(&flow->source, v6);
	if (!endpoint || endpoint->ifindex != skb->ifindex)
		return drop(skb, at, REASON_SPOOFED_SOURCE, v6);
	service = bpf_map_lookup_elem(&services, &fronted.service);
	if (!service)
		return NO_SERVICE;
	if (known && known->service == fronted.service && !is_closed(known->backend))
		choice = backend_of(known->backend);
	if (!choice.backend) {
		client.client = flow->source;
		choice = choose_backend(fronted.service, service, &client,
					flow_hash(&flow->source, &flow->destination, flow->source_port,
						  flow->destination_port, flow->protocol, v6),
					at->now);
	}
	if (!choice.backend) {
		drop(skb, at, REASON_NO_BACKEND, v6);
		return service->flags & SERVICE_DROP ? TC_ACT_SHOT : UNSERVED;
	}
	other->address = choice.backend->address;
	other->port = choice.backend->port;
	other->flow.address = other->address;
	other->flow.port = other->port;
	other->flow.backend = choice.id;
	other->flow.service = fronted.service;
	other->flow.expires = at->now + flow_timeout(flow->protocol, 0, false);
	other->flow.closing = 0;
	other->flow.replied = 0;
	if (service_flow_add(&other->key, &other->flow, v6) ||
	    (unlikely(same_address(&other->address, &flow->source, v6)) && remember_self(flow, other, v6)))
		return drop(skb, at, REASON_CONNTRACK_FULL, v6);
	return CHOSEN;
}

/* The packet's addresses change places, and one port changes: no checksum of an address does. So it comes from the
 * service and is for its own sender. Returns 0 or not.
 */
INLINE int turn_to_self(struct __sk_buff *skb, const struct flow *flow, __be16 port, bool source_port, const bool v6)
{
	const __u32 length = ADDRESS_LENGTH(v6), from = ETH_HLEN + address_offset(true, v6);
	__u64 flags = flow->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	__be16 was = source_port ? flow->source_port : flow->destination_port;
	__u32 transport;

	if (bpf_skb_store_bytes(skb, from, flow->destination.bytes, length, 0) ||
	    bpf_skb_store_bytes(skb, from + length, flow->source.bytes, length, 0))
		return -1;
	if (flow->later_fragment || port == was)
		return 0;
	transport = transport_offset(skb, ETH_HLEN, v6);
	if (!transport)
		return -1;
	return rewrite_port(skb, transport, flow->protocol, source_port, was, port, flags, v6);
}

/* A later fragment goes where the first one went; with the addresses that all of them have. */
INLINE void remember_untranslated(struct __sk_buff *skb, const struct flow *flow, const bool v6)
{
	struct endpoint *endpoint = find_endpoint(&flow->source, v6);

	if (endpoint && endpoint->ifindex == skb->ifindex)
		remember_fragment(flow, v6);
}

/* Whether the way to a backend of another node carries the packet as it is; what may be cut, it carries. */
INLINE bool is_too_large(struct __sk_buff *skb, const struct passage *at, const union address *backend, const bool v6)
{
	struct tunnel *tunnel = find_tunnel(backend, v6);
	__be16 fragmentation;

	if (!tunnel || network_length(skb, at->flow.protocol, v6) <= tunnel_mtu(skb, tunnel, at->now))
		return false;
	return v6 || (!bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, frag_off), &fragmentation, 2) &&
		      fragmentation & bpf_htons(IPV4_DONT_FRAGMENT));
}

/* Gives the packet, its flow and its key the chosen backend in the place of the service. */
INLINE int readdress(struct __sk_buff *skb, struct passage *at, const bool v6)
{
	struct other_end *other = other_end_of_packet();
	struct flow *flow = &at->flow;
	struct change change = {
		.was_address = flow->destination,
		.was_port = flow->destination_port,
	};

	if (!other)
		return TC_ACT_SHOT;
	change.address = other->address;
	change.port = other->port;
	if (overlay && unlikely(skb->len > LARGE) && is_too_large(skb, at, &change.address, v6)) {
		flow->destination = change.address;
		return TOO_LARGE;
	}
	if (rewrite(skb, &change, flow->protocol, flow->later_fragment, v6))
		return drop(skb, at, REASON_MALFORMED, v6);
	other->address = flow->destination;
	other->port = flow->destination_port;
	at->fronted = true;
	flow->destination = change.address;
	flow->destination_port = change.port;
	at->end = conntrack_key(flow, &at->key, v6);
	return TRANSLATED;
}

/* An ICMP error of a client about an answer of the service: it is for the backend, and about its answer. */
INLINE int translate_error(struct __sk_buff *skb, struct passage *at, const bool v6)
{
	struct flow *flow = &at->flow;
	struct change change = { .source = true };
	union address source, destination;
	union service_flow_key key;
	struct service_flow *known;

	service_flow_key(&flow->destination, flow->destination_port, &flow->source, flow->source_port, flow->protocol,
			 &key, v6);
	known = service_flow_find(&key, v6);
	if (!known || !known->backend || !load_addresses(skb, &source, &destination, v6) ||
	    !same_address(&destination, &flow->source, v6))
		return NO_SERVICE;
	change.address = known->address;
	change.port = known->port;
	change.was_address = flow->source;
	change.was_port = flow->source_port;
	if (rewrite_quoted(skb, &change, flow->protocol, v6))
		return drop(skb, at, REASON_MALFORMED, v6);
	change.source = false;
	if (rewrite_error(skb, &change, v6))
		return drop(skb, at, REASON_MALFORMED, v6);
	flow->source = change.address;
	flow->source_port = change.port;
	at->end = conntrack_key(flow, &at->key, v6);
	return TRANSLATED;
}

INLINE bool leaves_service(const struct passage *at, const bool v6)
{
	const struct flow *flow = &at->flow;

	return is_abandoned(&flow->destination, flow->destination_port, flow->protocol, SCOPE_INSIDE, at->version.epoch,
			    v6);
}

/* A packet of a workload whose flow conntrack does not know. Returns an enum translated or an action. */
INLINE int choose(struct __sk_buff *skb, struct passage *at, const bool v6)
{
	struct other_end *other = other_end_of_packet();
	struct flow *flow = &at->flow;
	struct service_flow *known;
	bool begins = opens(flow);
	__u8 *mark = mark_of(&flow->destination, v6);
	int result;

	if (!other || !mark)
		return TC_ACT_SHOT;
	service_flow_key(&flow->source, flow->source_port, &flow->destination, flow->destination_port, flow->protocol,
			 &other->key, v6);
	known = *mark ? service_flow_find(&other->key, v6) : NULL;
	if (known && unlikely(passed(at->now, known->expires) || (known->backend && leaves_service(at, v6))))
		known = NULL;
	if (known && unlikely(!known->backend)) {
		service_flow_touch(known, flow, at->now);
		other->port = known->port;
		if (keeps_ports(flow, flow->source_port, other->port))
			return drop(skb, at, REASON_UNTRANSLATABLE, v6);
		return SELF_ANSWERED;
	}
	if (known && !begins && unlikely(!backend_of(known->backend).backend)) {
		if (flow->protocol == IPPROTO_TCP) {
			drop(skb, at, REASON_NO_BACKEND, v6);
			return is_silent(at, SCOPE_INSIDE, v6) ? TC_ACT_SHOT : UNSERVED;
		}
		known = NULL;
	}
	if (unlikely(!known || begins)) {
		result = begin_flow(skb, at, known, other, v6);
		if (result != CHOSEN)
			return result;
		*mark = 1;
	} else {
		service_flow_touch(known, flow, at->now);
		other->address = known->address;
		other->port = known->port;
	}
	if (keeps_ports(flow, flow->destination_port, other->port))
		return drop(skb, at, REASON_UNTRANSLATABLE, v6);
	if (unlikely(flow->first_fragment))
		remember_untranslated(skb, flow, v6);
	return unlikely(same_address(&other->address, &flow->source, v6)) ? SELF_ASKED : CHOSEN;
}

/* Each in a frame of its own, and verified once. */
GLOBAL int choose4(struct __sk_buff *skb, struct passage *at)
{
	return at ? choose(skb, at, false) : TC_ACT_SHOT;
}

GLOBAL int choose6(struct __sk_buff *skb, struct passage *at)
{
	return at ? choose(skb, at, true) : TC_ACT_SHOT;
}

GLOBAL int readdress4(struct __sk_buff *skb, struct passage *at)
{
	return at ? readdress(skb, at, false) : TC_ACT_SHOT;
}

GLOBAL int readdress6(struct __sk_buff *skb, struct passage *at)
{
	return at ? readdress(skb, at, true) : TC_ACT_SHOT;
}

GLOBAL int translate_error4(struct __sk_buff *skb, struct passage *at)
{
	return at ? translate_error(skb, at, false) : TC_ACT_SHOT;
}

GLOBAL int translate_error6(struct __sk_buff *skb, struct passage *at)
{
	return at ? translate_error(skb, at, true) : TC_ACT_SHOT;
}

/* A packet of a workload whose flow conntrack does not know. Returns an enum translated or an action. */
INLINE int translate(struct __sk_buff *skb, struct passage *at, const bool v6)
{
	__u8 protocol = at->flow.protocol;
	int result;

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != IPPROTO_SCTP)
		return NO_SERVICE;
	if (unlikely(at->flow.related))
		return v6 ? translate_error6(skb, at) : translate_error4(skb, at);
	result = v6 ? choose6(skb, at) : choose4(skb, at);
	if (result != CHOSEN)
		return result;
	return v6 ? readdress6(skb, at) : readdress4(skb, at);
}

/* What the conntrack entry of a flow says of its service, after a packet of the workload at end `at->end`. */
INLINE void remember_frontend(struct conntrack_entry *entry, const struct passage *at)
{
	struct other_end *other;

	if (likely(!at->fronted)) {
		if (entry->fronted == 1 + at->end)
			entry->fronted = 0;
		return;
	}
	other = other_end_of_packet();
	if (!other)
		return;
	entry->frontend = other->address;
	entry->frontend_port = other->port;
	entry->fronted = 1 + at->end;
}

/* Whether the entry says already what `remember_frontend` would write. */
INLINE bool knows_frontend(const struct conntrack_entry *entry, const struct passage *at, const bool v6)
{
	struct other_end *other;

	if (likely(!at->fronted))
		return entry->fronted != 1 + at->end;
	other = other_end_of_packet();
	return other && entry->fronted == 1 + at->end && entry->frontend_port == other->port &&
	       same_address(&entry->frontend, &other->address, v6);
}

/* Whether a packet that end `end` sends is a backend's, for a client that knows only the service. */
INLINE bool is_answer(const struct conntrack_entry *entry, __u32 end)
{
	return unlikely(entry->fronted) && entry->fronted != 1 + end;
}

/* The answer of a backend gets the service's address. Returns 0 or a reason. */
INLINE int restore(struct __sk_buff *skb, const struct flow *flow, const struct conntrack_entry *entry, const bool v6)
{
	struct change change = {
		.address = entry->frontend,
		.port = entry->frontend_port,
		.was_address = flow->source,
		.was_port = flow->source_port,
		.source = true,
	};

	if (keeps_ports(flow, change.was_port, change.port))
		return REASON_UNTRANSLATABLE;
	return rewrite(skb, &change, flow->protocol, flow->later_fragment, v6) ? REASON_MALFORMED : 0;
}

/* An ICMP error about a packet that its client sent to a service: it speaks of the service. `flow`: the quoted one.
 * Returns 0 or a reason.
 */
INLINE int restore_error(struct __sk_buff *skb, const struct flow *flow, const struct conntrack_entry *entry,
			 const bool v6)
{
	struct change change = {
		.address = entry->frontend,
		.port = entry->frontend_port,
		.was_address = flow->destination,
		.was_port = flow->destination_port,
	};
	union address source, destination;

	if (!load_addresses(skb, &source, &destination, v6) || rewrite_quoted(skb, &change, flow->protocol, v6))
		return REASON_MALFORMED;
	if (!same_address(&source, &change.was_address, v6))
		return 0; /* a router's */
	change.source = true;
	return rewrite_error(skb, &change, v6) ? REASON_MALFORMED : 0;
}

/* Returns 0, or drops the packet. */
INLINE int restore_any(struct __sk_buff *skb, const struct passage *at, const struct conntrack_entry *entry,
		       const bool v6)
{
	int reason = at->flow.related ? restore_error(skb, &at->flow, entry, v6) : restore(skb, &at->flow, entry, v6);

	return reason ? drop(skb, at, reason, v6) : 0;
}

GLOBAL int restore4(struct __sk_buff *skb, const struct passage *at, const struct conntrack_entry *entry)
{
	return at && entry ? restore_any(skb, at, entry, false) : TC_ACT_SHOT;
}

GLOBAL int restore6(struct __sk_buff *skb, const struct passage *at, const struct conntrack_entry *entry)
{
	return at && entry ? restore_any(skb, at, entry, true) : TC_ACT_SHOT;
}
