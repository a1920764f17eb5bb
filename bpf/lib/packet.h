/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* From a packet to the flow that it belongs to: IPv4, IPv6 with its extension headers, fragments, ICMP errors. */
#pragma once

#include "base.h"
#include "events.h"

/* As many as we walk; more is malformed. RFC 8504, section 5.3, lets a node choose. */
#define IPV6_EXTENSION_HEADERS 6

/* What a flow is known by. Ports are in network order. ICMP has none, so these stand in: of an echo the identifier
 * where the request comes from and its complement where it goes to, as the reply then has it the other way round; of
 * any other message 0 and the type, so that each type is a flow of its own.
 */
struct flow {
	union address source;
	union address destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 error_type; /* of the ICMP error itself, where `related` */
	__u8 error_code;
	__be16 identifier; /* of an ICMP echo */
	__be32 fragment_id;
	__u8 fragment_protocol; /* as every fragment of the packet has it */
	bool first_fragment; /* others follow that have no ports */
	bool later_fragment; /* the ports are those of the first one */
	bool icmp; /* ICMP or ICMPv6 */
	bool related; /* an ICMP error: the flow is the one that it reports on */
};

/* <linux/icmp.h> and <linux/icmpv6.h> pull in the C library's socket headers; RFC 792 and RFC 4443 have the numbers. */
#define ICMP_HEADER_LENGTH 8
#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_ECHO_REQUEST 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#define ICMPV6_UNREACHABLE 1
#define ICMPV6_PARAMETER_PROBLEM 4
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY 129
#define ND_FIRST 133 /* router solicitation */
#define ND_LAST 137 /* redirect */

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* Whether a packet asks for a new connection. */
INLINE bool opens(const struct flow *flow)
{
	return flow->protocol == IPPROTO_TCP && (flow->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

struct ports {
	__be16 source;
	__be16 destination;
};

/* What the later fragments of a packet lack. */
struct fragment {
	struct ports ports;
	__u8 protocol; /* behind all headers */
	__u8 icmp_type;
	__u8 pad[2];
};

struct fragment4_key {
	__be32 source;
	__be32 destination;
	__be16 id;
	__u8 protocol;
	__u8 pad;
};

struct fragment6_key {
	__u64 source[2];
	__u64 destination[2];
	__be32 id;
	__u32 protocol; /* as the fragment header names it, which every fragment has */
};

/* Ports of a packet whose first fragment was let pass, for the fragments behind it. Written and read by the programs;
 * full: the least recently used packet's fragments are dropped.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct fragment4_key);
	__type(value, struct fragment);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} fragments4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct fragment6_key);
	__type(value, struct fragment);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} fragments6 SEC(".maps");

INLINE bool is_icmp_error(__u8 type, const bool v6)
{
	if (v6)
		return type >= ICMPV6_UNREACHABLE && type <= ICMPV6_PARAMETER_PROBLEM;
	return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER_PROBLEM;
}

INLINE bool is_icmp_echo(__u8 type, const bool v6)
{
	if (v6)
		return type == ICMPV6_ECHO_REQUEST || type == ICMPV6_ECHO_REPLY;
	return type == ICMP_ECHO_REQUEST || type == ICMP_ECHO_REPLY;
}

INLINE bool is_echo_request(__u8 type, const bool v6)
{
	return type == (v6 ? ICMPV6_ECHO_REQUEST : ICMP_ECHO_REQUEST);
}

/* The stand-ins for ports; `header` has the first six bytes of the message. */
INLINE void name_icmp(struct flow *flow, const __u8 *header, const bool v6)
{
	if (is_icmp_echo(header[0], v6)) {
		bool request = is_echo_request(header[0], v6);

		__builtin_memcpy(&flow->identifier, header + 4, 2);
		flow->source_port = request ? flow->identifier : ~flow->identifier;
		flow->destination_port = request ? ~flow->identifier : flow->identifier;
	} else {
		flow->source_port = 0;
		flow->destination_port = bpf_htons(header[0]);
	}
}

/* Ports, or what stands in for them, at `offset`; what has none keeps zeros. Returns 0 or a reason. */
INLINE int load_ports(struct __sk_buff *skb, __u32 offset, struct flow *flow, const bool v6)
{
	struct ports ports;

	switch (flow->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		if (bpf_skb_load_bytes(skb, offset, &ports, sizeof(ports)))
			return REASON_MALFORMED;
		flow->source_port = ports.source;
		flow->destination_port = ports.destination;
		return 0;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6: {
		__u8 header[6];

		if (bpf_skb_load_bytes(skb, offset, header, sizeof(header)))
			return REASON_MALFORMED;
		flow->icmp_type = header[0];
		flow->icmp_code = header[1];
		name_icmp(flow, header, v6);
		return 0;
	}
	default:
		return 0;
	}
}

struct extensions {
	__u32 offset; /* of what follows them */
	__u8 protocol;
	__u8 fragment_protocol; /* what the fragment header names */
	bool fragment;
	bool first; /* fragment offset 0 */
	__be32 id;
};

/* Walks IPv6 extension headers from `offset`. Returns 0 or a reason. */
NOINLINE int skip_extensions(struct __sk_buff *skb, struct extensions *at)
{
	if (!skb || !at)
		return REASON_MALFORMED;
	for (int i = 0; i < IPV6_EXTENSION_HEADERS; i++) {
		__u8 header[8];

		switch (at->protocol) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
			if (bpf_skb_load_bytes(skb, at->offset, header, 2))
				return REASON_MALFORMED;
			at->protocol = header[0];
			at->offset += (header[1] + 1) * 8;
			break;
		case IPPROTO_AH:
			if (bpf_skb_load_bytes(skb, at->offset, header, 2))
				return REASON_MALFORMED;
			at->protocol = header[0];
			at->offset += (header[1] + 2) * 4;
			break;
		case IPPROTO_FRAGMENT: {
			__be16 where;

			if (bpf_skb_load_bytes(skb, at->offset, header, 8))
				return REASON_MALFORMED;
			__builtin_memcpy(&where, header + 2, 2);
			__builtin_memcpy(&at->id, header + 4, 4);
			at->protocol = header[0];
			at->fragment_protocol = header[0];
			at->offset += 8;
			at->fragment = true;
			at->first = !(bpf_ntohs(where) & 0xfff8);
			if (!at->first)
				return 0;
			break;
		}
		default:
			return 0;
		}
	}
	return REASON_MALFORMED;
}

/* The flow that an ICMP error at `offset` reports on, out of the packet it quotes. Returns 0 or a reason. */
INLINE int load_quoted(struct __sk_buff *skb, __u32 offset, struct flow *flow, const bool v6)
{
	__u32 inner = offset + ICMP_HEADER_LENGTH;

	flow->related = true;
	flow->error_type = flow->icmp_type;
	flow->error_code = flow->icmp_code;
	flow->icmp_type = 0;
	flow->icmp_code = 0;
	if (v6) {
		struct ipv6hdr ip;
		struct extensions at = {};

		if (bpf_skb_load_bytes(skb, inner, &ip, sizeof(ip)))
			return REASON_MALFORMED;
		__builtin_memcpy(flow->source.bytes, &ip.saddr, 16);
		__builtin_memcpy(flow->destination.bytes, &ip.daddr, 16);
		at.protocol = ip.nexthdr;
		at.offset = inner + sizeof(ip);
		if (skip_extensions(skb, &at))
			return REASON_MALFORMED;
		flow->protocol = at.protocol;
		flow->icmp = flow->protocol == IPPROTO_ICMPV6;
		return load_ports(skb, at.offset, flow, v6);
	} else {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, inner, &ip, sizeof(ip)))
			return REASON_MALFORMED;
		flow->source.v4 = ip.saddr;
		flow->destination.v4 = ip.daddr;
		flow->protocol = ip.protocol;
		flow->icmp = flow->protocol == IPPROTO_ICMP;
		return load_ports(skb, inner + ip.ihl * 4, flow, v6);
	}
}

/* Ports and what else the protocol has for us at `offset`, byte by byte safe. Returns 0 or a reason. */
INLINE int load_transport(struct __sk_buff *skb, __u32 offset, struct flow *flow, const bool v6)
{
	if (load_ports(skb, offset, flow, v6))
		return REASON_MALFORMED;
	if (flow->protocol == IPPROTO_TCP)
		return bpf_skb_load_bytes(skb, offset + 13, &flow->tcp_flags, 1) ? REASON_MALFORMED : 0;
	if (flow->protocol == (v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP)) {
		flow->icmp = true;
		if (is_icmp_error(flow->icmp_type, v6))
			return load_quoted(skb, offset, flow, v6);
	}
	return 0;
}

/* Apart from the rest of a program, whose frame is scarce; few packets come here. */
NOINLINE int load_transport4(struct __sk_buff *skb, __u32 offset, struct flow *flow)
{
	return skb && flow ? load_transport(skb, offset, flow, false) : REASON_MALFORMED;
}

NOINLINE int load_transport6(struct __sk_buff *skb, __u32 offset, struct flow *flow)
{
	return skb && flow ? load_transport(skb, offset, flow, true) : REASON_MALFORMED;
}

/* The same, straight from the packet, for the two protocols that nearly all packets have. False: use the safe way. */
INLINE bool read_transport(const void *transport, const void *data_end, struct flow *flow)
{
	if (flow->protocol == IPPROTO_TCP) {
		const struct tcphdr *tcp = transport;

		if ((const void *)(tcp + 1) > data_end)
			return false;
		flow->source_port = tcp->source;
		flow->destination_port = tcp->dest;
		flow->tcp_flags = ((const __u8 *)tcp)[13];
		return true;
	}
	if (flow->protocol == IPPROTO_UDP) {
		const struct udphdr *udp = transport;

		if ((const void *)(udp + 1) > data_end)
			return false;
		flow->source_port = udp->source;
		flow->destination_port = udp->dest;
		return true;
	}
	return false;
}

/* A later fragment belongs where the first one did. Returns 0 or a reason. */
INLINE int follow(const struct fragment *first, struct flow *flow, const bool v6)
{
	if (!first)
		return REASON_FRAGMENT_UNKNOWN;
	flow->source_port = first->ports.source;
	flow->destination_port = first->ports.destination;
	flow->protocol = first->protocol;
	flow->icmp_type = first->icmp_type;
	flow->icmp = first->protocol == (v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
	flow->later_fragment = true;
	return 0;
}

INLINE struct fragment4_key fragment4_key(const struct flow *flow)
{
	struct fragment4_key key = {
		.source = flow->source.v4,
		.destination = flow->destination.v4,
		.id = flow->fragment_id,
		.protocol = flow->fragment_protocol,
	};

	return key;
}

INLINE struct fragment6_key fragment6_key(const struct flow *flow)
{
	struct fragment6_key key = { .id = flow->fragment_id, .protocol = flow->fragment_protocol };

	__builtin_memcpy(key.source, flow->source.v6, 16);
	__builtin_memcpy(key.destination, flow->destination.v6, 16);
	return key;
}

/* For the fragments behind it; called once the first one is let pass, so that nobody can lead another's astray. */
INLINE void remember_fragment(const struct flow *flow, const bool v6)
{
	struct fragment first = { .protocol = flow->protocol, .icmp_type = flow->icmp_type };

	first.ports.source = flow->source_port;
	first.ports.destination = flow->destination_port;
	if (v6) {
		struct fragment6_key key = fragment6_key(flow);

		bpf_map_update_elem(&fragments6, &key, &first, BPF_ANY);
	} else {
		struct fragment4_key key = fragment4_key(flow);

		bpf_map_update_elem(&fragments4, &key, &first, BPF_ANY);
	}
}

INLINE int load_fragment4(struct __sk_buff *skb, const struct iphdr *ip, __u32 offset, struct flow *flow)
{
	flow->fragment_id = ip->id;
	flow->fragment_protocol = ip->protocol;
	if (ip->frag_off & bpf_htons(0x1fff)) {
		struct fragment4_key key = fragment4_key(flow);

		return follow(bpf_map_lookup_elem(&fragments4, &key), flow, false);
	}
	flow->first_fragment = true;
	return load_transport4(skb, offset, flow);
}

INLINE int load_fragment6(struct __sk_buff *skb, const struct extensions *at, struct flow *flow)
{
	flow->fragment_id = at->id;
	flow->fragment_protocol = at->fragment_protocol;
	if (!at->first) {
		struct fragment6_key key = fragment6_key(flow);

		return follow(bpf_map_lookup_elem(&fragments6, &key), flow, true);
	}
	flow->first_fragment = true;
	return load_transport6(skb, at->offset, flow);
}

/* Returns 0 or a reason. `ip` lies within the packet, which is what the caller made sure of. */
INLINE int parse_ipv4(struct __sk_buff *skb, const struct iphdr *ip, const void *data_end, struct flow *flow)
{
	if (unlikely(ip->version != 4 || ip->ihl < 5))
		return REASON_MALFORMED;
	flow->source.v4 = ip->saddr;
	flow->destination.v4 = ip->daddr;
	flow->protocol = ip->protocol;
	if (unlikely(ip->frag_off & bpf_htons(0x3fff)))
		return load_fragment4(skb, ip, ETH_HLEN + ip->ihl * 4, flow);
	if (likely(ip->ihl == 5) && read_transport(ip + 1, data_end, flow))
		return 0;
	return load_transport4(skb, ETH_HLEN + ip->ihl * 4, flow);
}

INLINE int parse_ipv6(struct __sk_buff *skb, const struct ipv6hdr *ip, const void *data_end, struct flow *flow)
{
	struct extensions at = {};

	if (unlikely(ip->version != 6))
		return REASON_MALFORMED;
	__builtin_memcpy(flow->source.bytes, &ip->saddr, 16);
	__builtin_memcpy(flow->destination.bytes, &ip->daddr, 16);
	flow->protocol = ip->nexthdr;
	if (likely(read_transport(ip + 1, data_end, flow)))
		return 0;
	at.protocol = ip->nexthdr;
	at.offset = ETH_HLEN + sizeof(*ip);
	if (skip_extensions(skb, &at))
		return REASON_MALFORMED;
	flow->protocol = at.protocol;
	if (at.fragment)
		return load_fragment6(skb, &at, flow);
	return load_transport6(skb, at.offset, flow);
}

INLINE bool is_neighbour_discovery(struct __sk_buff *skb, const struct ipv6hdr *ip, __u8 *type)
{
	if (ip->nexthdr != IPPROTO_ICMPV6)
		return false;
	if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(*ip), type, 1))
		return false;
	return *type >= ND_FIRST && *type <= ND_LAST;
}
