/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the parts of the program at a device's XDP hook see of a packet, and ask the maps that they share. */
#pragma once

#include "congestion.h"
#include "devices.h"
#include "neighbour.h"
#include "passing.h"
#include "service.h"
#include "translation.h"

/* What a closer look at a packet finds. */
enum looked {
	HANDED_OVER, /* it is not for this program */
	AIMED, /* where it goes, and what comes after it */
	AIMED_ONCE, /* where it goes */
};

/* A packet's transport header, as far as it is read and written here. */
struct transport {
	struct ports *ports;
	__sum16 *checksum;
	__u32 now; /* ticks */
	__u16 length; /* of the packet, without its IP header */
	__u8 tcp_flags;
	__u8 protocol;
	__u8 class; /* of the IP header */
};

/* False for what is no TCP or UDP, or cut short. */
INLINE bool read_ends(void *header, void *data_end, __u8 protocol, struct transport *transport)
{
	transport->protocol = protocol;
	transport->ports = header;
	if (protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = header;

		if ((void *)(tcp + 1) > data_end)
			return false;
		transport->checksum = &tcp->check;
		transport->tcp_flags = ((__u8 *)tcp)[13];
		return true;
	}
	if (protocol == IPPROTO_UDP) {
		struct udphdr *udp = header;

		if ((void *)(udp + 1) > data_end)
			return false;
		transport->checksum = &udp->check;
		return true;
	}
	return false;
}

INLINE struct frontend *frontend_of4(const struct ends4 *ends, __u8 protocol)
{
	struct frontend4_key key = {
		.address = ends->destination,
		.port = ends->ports.destination,
		.protocol = protocol,
		.scope = SCOPE_OUTSIDE,
	};

	return bpf_map_lookup_elem(&frontends4, &key);
}

INLINE struct frontend *frontend_of6(const struct ends6 *ends, __u8 protocol)
{
	struct frontend6_key key = {
		.port = ends->ports.destination,
		.protocol = protocol,
		.scope = SCOPE_OUTSIDE,
	};

	__builtin_memcpy(key.address, ends->destination, 16);
	return bpf_map_lookup_elem(&frontends6, &key);
}

INLINE bool begins(const struct transport *transport)
{
	return (transport->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* Whether what was found out about a flow still holds for this packet. What begins or ends is looked at closely. */
INLINE bool is_fresh(const struct next_hop *hop, const struct transport *transport, __u32 header_length)
{
	return hop->checked == transport->now && transport->length + header_length <= hop->mtu &&
	       !(transport->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST));
}

/* The ones' complement sum, RFC 1071. */
INLINE __u16 plus(__u64 left, __u64 right)
{
	__u64 sum = left + right;

	return sum + (sum >> 16);
}

/* Whether the sender left the checksum to its device, as on veth: the field has the sum of the pseudo-header, and what
 * would be made of that here is wrong. One finished checksum in 65,535 looks the same, and is handed over as well.
 */
INLINE bool is_unfinished(const struct transport *transport, const struct next_hop *hop)
{
	return *transport->checksum == plus(hop->pseudo_sum, bpf_htons(transport->length));
}

/* A translation that may be applied here: of a flow that lives, to a backend that does, and answers it as it did. */
INLINE struct translation *find(const struct translation_key *key, __u32 now)
{
	struct translation *found = bpf_map_lookup_elem(&translations, key);
	struct backend *backend;

	if (!found || passed(now, found->expires))
		return NULL;
	if (!found->backend)
		return found;
	backend = bpf_map_lookup_elem(&backends, &found->backend);
	return backend && (!(found->state & DIRECT) || backend->flags & BACKEND_DIRECT) ? found : NULL;
}

/* Of the pseudo-header of a packet with these ends, but for its length. */
INLINE __u16 pseudo_sum4(const struct ends4 *ends, __u8 protocol)
{
	return ~fold((__u64)ends->source + ends->destination + bpf_htons(protocol));
}

INLINE __u16 pseudo_sum6(const struct ends6 *ends, __u8 protocol)
{
	return ~fold(bpf_csum_diff(NULL, 0, (__be32 *)ends, 32, bpf_htons(protocol)));
}

/* Whether a packet leaves by the device it came in by, to a neighbour that is known. */
INLINE bool leaves_here(struct xdp_md *context, struct bpf_fib_lookup *route)
{
	route->ifindex = context->ingress_ifindex;
	return !bpf_fib_lookup(context, route, sizeof(*route), 0) && route->ifindex == context->ingress_ifindex;
}
