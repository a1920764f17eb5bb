// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What a node device can decide before the kernel makes a packet of it: who gets no answer at all, and flows that only
 * pass this host on their way between a client and a backend elsewhere.
 *
 * Such a flow began at `from_netdev` and `to_netdev`, whose two translations are applied here at once. Everything else
 * is handed over: what begins, ends in an error, is in fragments, is for this host, or goes out by another device.
 */
#include "lib/devices.h"
#include "lib/neighbour.h"
#include "lib/prefilter.h"
#include "lib/service.h"
#include "lib/translation.h"

#define FAMILY_IPV4 2 /* AF_INET */
#define FAMILY_IPV6 10 /* AF_INET6 */

/* What the transport checksum covers of a packet's ends. */
struct ends4 {
	__be32 source;
	__be32 destination;
	struct ports ports;
};

struct ends6 {
	__u8 source[16];
	__u8 destination[16];
	struct ports ports;
};

/* A packet's transport header, as far as it is read and written here. */
struct transport {
	struct ports *ports;
	__sum16 *checksum;
	__u8 tcp_flags;
	__u8 protocol;
};

/* Both translations of a packet that goes through. */
struct through {
	struct translation *in, *out;
	struct translation_key in_key, out_key;
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

INLINE bool serves(__u32 ifindex)
{
	struct device *device = bpf_map_lookup_elem(&devices, &ifindex);

	return device && device->flags & DEVICE_SERVICES;
}

/* A translation that may be applied here: of a flow that lives, to a backend that does. */
INLINE struct translation *find(const struct translation_key *key, __u32 now)
{
	struct translation *found = bpf_map_lookup_elem(&translations, key);

	if (!found || passed(now, found->expires))
		return NULL;
	if (found->backend && !bpf_map_lookup_elem(&backends, &found->backend))
		return NULL;
	return found;
}

/* Whether the flow goes through this host: `in_key` has its ends as the packet has them. */
INLINE bool goes_through(struct xdp_md *context, const struct transport *transport, struct through *through, __u32 now)
{
	if ((transport->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return false;
	through->in = find(&through->in_key, now);
	if (likely(!through->in) || !serves(context->ingress_ifindex))
		return false;
	through->out_key = through->in_key;
	through->out_key.reply = false;
	through->out_key.destination = through->in->address;
	through->out_key.destination_port = through->in->port;
	through->out = find(&through->out_key, now);
	return through->out && (through->in->backend || through->out->backend);
}

/* Whether it leaves by the device it came in by, to a neighbour that is known. */
INLINE bool leaves_here(struct xdp_md *context, struct bpf_fib_lookup *route)
{
	route->ifindex = context->ingress_ifindex;
	return !bpf_fib_lookup(context, route, sizeof(*route), 0) && route->ifindex == context->ingress_ifindex;
}

INLINE void address_frame(struct ethhdr *ethernet, const struct bpf_fib_lookup *route)
{
	__builtin_memcpy(ethernet->h_dest, route->dmac, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, route->smac, ETH_ALEN);
}

INLINE void touch(struct through *through, __u8 tcp_flags, __u32 now)
{
	translation_touch(&through->in_key, through->in, tcp_flags, now);
	translation_touch(&through->out_key, through->out, tcp_flags, now);
}

/* `difference`: between what the checksum covered and what it covers now. */
INLINE void mend_checksum(const struct transport *transport, __s64 difference)
{
	__sum16 sum;

	if (transport->protocol == IPPROTO_UDP && !*transport->checksum) /* it has none, RFC 768 */
		return;
	sum = fold((__u64)(__u32)difference + (__u16) ~*transport->checksum);
	*transport->checksum = !sum && transport->protocol == IPPROTO_UDP ? 0xffff : sum;
}

INLINE int balance4(struct xdp_md *context, struct ethhdr *ethernet, struct iphdr *ip, void *data_end)
{
	struct transport transport = {};
	struct through through = { .in_key = { .reply = true } };
	struct bpf_fib_lookup route = { .family = FAMILY_IPV4 };
	struct ends4 before, after;
	__u32 now = ticks_now();

	if (ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff) || ip->ttl <= 1 ||
	    !read_ends(ip + 1, data_end, ip->protocol, &transport))
		return XDP_PASS;
	through.in_key.source.v4 = before.source = ip->saddr;
	through.in_key.destination.v4 = before.destination = ip->daddr;
	through.in_key.source_port = transport.ports->source;
	through.in_key.destination_port = transport.ports->destination;
	through.in_key.protocol = ip->protocol;
	if (likely(!goes_through(context, &transport, &through, now)))
		return XDP_PASS;
	before.ports = *transport.ports;
	after.source = through.out->address.v4;
	after.destination = through.in->address.v4;
	after.ports.source = through.out->port;
	after.ports.destination = through.in->port;
	route.ipv4_src = after.source;
	route.ipv4_dst = after.destination;
	route.tot_len = bpf_ntohs(ip->tot_len);
	if (!leaves_here(context, &route))
		return XDP_PASS;
	touch(&through, transport.tcp_flags, now);
	mend_checksum(&transport, bpf_csum_diff((__be32 *)&before, sizeof(before), (__be32 *)&after, sizeof(after), 0));
	*transport.ports = after.ports;
	ip->check = fold((__u64)(__u32)bpf_csum_diff((__be32 *)&before, 8, (__be32 *)&after, 8, 0) + (__u16)~ip->check +
			 (__u16)~bpf_htons(0x0100)); /* and a hop less: RFC 1624 */
	ip->ttl--;
	ip->saddr = after.source;
	ip->daddr = after.destination;
	address_frame(ethernet, &route);
	return XDP_TX;
}

INLINE int balance6(struct xdp_md *context, struct ethhdr *ethernet, struct ipv6hdr *ip, void *data_end)
{
	struct transport transport = {};
	struct through through = { .in_key = { .reply = true, .v6 = true } };
	struct bpf_fib_lookup route = { .family = FAMILY_IPV6 };
	struct ends6 before, after;
	__u32 now = ticks_now();

	if (ip->hop_limit <= 1 || !read_ends(ip + 1, data_end, ip->nexthdr, &transport))
		return XDP_PASS;
	__builtin_memcpy(&before, &ip->saddr, 32);
	__builtin_memcpy(through.in_key.source.bytes, &ip->saddr, 16);
	__builtin_memcpy(through.in_key.destination.bytes, &ip->daddr, 16);
	through.in_key.source_port = transport.ports->source;
	through.in_key.destination_port = transport.ports->destination;
	through.in_key.protocol = ip->nexthdr;
	if (likely(!goes_through(context, &transport, &through, now)))
		return XDP_PASS;
	before.ports = *transport.ports;
	__builtin_memcpy(after.source, through.out->address.bytes, 16);
	__builtin_memcpy(after.destination, through.in->address.bytes, 16);
	after.ports.source = through.out->port;
	after.ports.destination = through.in->port;
	__builtin_memcpy(route.ipv6_src, after.source, 16);
	__builtin_memcpy(route.ipv6_dst, after.destination, 16);
	route.tot_len = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (!leaves_here(context, &route))
		return XDP_PASS;
	touch(&through, transport.tcp_flags, now);
	mend_checksum(&transport, bpf_csum_diff((__be32 *)&before, sizeof(before), (__be32 *)&after, sizeof(after), 0));
	*transport.ports = after.ports;
	ip->hop_limit--;
	__builtin_memcpy(&ip->saddr, &after, 32);
	address_frame(ethernet, &route);
	return XDP_TX;
}

INLINE int deny(struct xdp_md *context)
{
	count(REASON_PREFILTERED, context->data_end - context->data);
	return XDP_DROP;
}

SEC("xdp")
int at_device(struct xdp_md *context)
{
	void *data = (void *)(long)context->data, *data_end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = data;

	if ((void *)(ethernet + 1) > data_end)
		return XDP_PASS;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > data_end)
			return XDP_PASS;
		return is_denied4(ip->saddr) ? deny(context) : balance4(context, ethernet, ip, data_end);
	}
	if (ethernet->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > data_end)
			return XDP_PASS;
		return is_denied6(&ip->saddr) ? deny(context) : balance6(context, ethernet, ip, data_end);
	}
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
