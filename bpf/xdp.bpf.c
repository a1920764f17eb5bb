// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What a node device can decide before the kernel makes a packet of it: who gets no answer at all, and flows that only
 * pass this host on their way between a client and a backend elsewhere.
 *
 * Such a flow began at `from_netdev` and `to_netdev`, whose two translations are applied here at once. Everything else
 * is handed over: what begins, ends in an error, is in fragments, is for this host, or goes out by another device.
 */
#include "lib/devices.h"
#include "lib/neighbour.h"
#include "lib/passing.h"
#include "lib/ports.h"
#include "lib/prefilter.h"
#include "lib/service.h"
#include "lib/translation.h"

#define FAMILY_IPV4 2 /* AF_INET */
#define FAMILY_IPV6 10 /* AF_INET6 */

/* A packet's transport header, as far as it is read and written here. */
struct transport {
	struct ports *ports;
	__sum16 *checksum;
	__u32 now; /* ticks */
	__u16 length; /* of the packet, without its IP header */
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

/* Whether a packet may be of a flow that goes through: it is for a frontend, or for a port that we gave away. */
INLINE bool may_pass4(const struct ends4 *ends, __u8 protocol)
{
	struct frontend4_key key = {
		.address = ends->destination,
		.port = ends->ports.destination,
		.protocol = protocol,
		.scope = SCOPE_OUTSIDE,
	};

	return is_in_range(ends->ports.destination) || bpf_map_lookup_elem(&frontends4, &key);
}

INLINE bool may_pass6(const struct ends6 *ends, __u8 protocol)
{
	struct frontend6_key key = {
		.port = ends->ports.destination,
		.protocol = protocol,
		.scope = SCOPE_OUTSIDE,
	};

	__builtin_memcpy(key.address, ends->destination, 16);
	return is_in_range(ends->ports.destination) || bpf_map_lookup_elem(&frontends6, &key);
}

INLINE bool begins(const struct transport *transport)
{
	return (transport->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* Whether what was found out about a flow still holds for this packet. What ends is looked at closely. */
INLINE bool is_fresh(const struct next_hop *hop, const struct transport *transport, __u32 header_length)
{
	return hop->checked == transport->now && transport->length + header_length <= hop->mtu &&
	       !(transport->tcp_flags & (TCP_FIN | TCP_RST));
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
INLINE bool goes_through(struct xdp_md *context, const struct transport *transport, struct through *through)
{
	through->in = find(&through->in_key, transport->now);
	if (likely(!through->in) || !serves(context->ingress_ifindex))
		return false;
	through->out_key = through->in_key;
	through->out_key.reply = false;
	through->out_key.destination = through->in->address;
	through->out_key.destination_port = through->in->port;
	through->out = find(&through->out_key, transport->now);
	return through->out && (through->in->backend || through->out->backend);
}

/* Whether it leaves by the device it came in by, to a neighbour that is known. */
INLINE bool leaves_here(struct xdp_md *context, struct bpf_fib_lookup *route, struct next_hop *hop)
{
	route->ifindex = context->ingress_ifindex;
	if (bpf_fib_lookup(context, route, sizeof(*route), 0) || route->ifindex != context->ingress_ifindex)
		return false;
	hop->mtu = route->mtu_result;
	__builtin_memcpy(hop->macs, route->dmac, ETH_ALEN);
	__builtin_memcpy(hop->macs + ETH_ALEN, route->smac, ETH_ALEN);
	return true;
}

INLINE void touch(struct through *through, __u8 tcp_flags, __u32 now)
{
	translation_touch(&through->in_key, through->in, tcp_flags, now);
	translation_touch(&through->out_key, through->out, tcp_flags, now);
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

/* `difference`: between what the checksum covered and what it covers now. */
INLINE void mend_checksum(const struct transport *transport, __u16 difference)
{
	__sum16 sum;

	if (transport->protocol == IPPROTO_UDP && !*transport->checksum) /* it has none, RFC 768 */
		return;
	sum = ~plus(difference, *transport->checksum ^ 0xffff);
	*transport->checksum = !sum && transport->protocol == IPPROTO_UDP ? 0xffff : sum;
}

/* Where a flow goes by its translations. False if the packet is to be handed over. */
NOINLINE bool look_closely4(struct xdp_md *context, const struct transport *transport, const struct passing4_key *key,
			    struct passing4 *passing)
{
	struct through through = { .in_key = { .reply = true } };
	struct bpf_fib_lookup route = { .family = FAMILY_IPV4, .tot_len = transport->length + sizeof(struct iphdr) };

	through.in_key.source.v4 = key->ends.source;
	through.in_key.destination.v4 = key->ends.destination;
	through.in_key.source_port = key->ends.ports.source;
	through.in_key.destination_port = key->ends.ports.destination;
	through.in_key.protocol = key->protocol;
	if (!goes_through(context, transport, &through))
		return false;
	passing->ends.source = route.ipv4_src = through.out->address.v4;
	passing->ends.destination = route.ipv4_dst = through.in->address.v4;
	passing->ends.ports.source = through.out->port;
	passing->ends.ports.destination = through.in->port;
	passing->hop.checked = transport->now;
	if (!leaves_here(context, &route, &passing->hop))
		return false;
	passing->hop.transport_sum = ~fold(bpf_csum_diff((__be32 *)&key->ends, sizeof(key->ends),
							 (__be32 *)&passing->ends, sizeof(passing->ends), 0));
	passing->hop.header_sum =
		~fold(bpf_csum_diff((__be32 *)&key->ends, 8, (__be32 *)&passing->ends, 8, (__u16)~bpf_htons(0x0100)));
	passing->hop.pseudo_sum = ~fold(bpf_csum_diff(NULL, 0, (__be32 *)&key->ends, 8, bpf_htons(key->protocol)));
	touch(&through, transport->tcp_flags, transport->now);
	bpf_map_update_elem(&passing4, key, passing, BPF_ANY);
	return true;
}

INLINE int balance4(struct xdp_md *context, struct ethhdr *ethernet, struct iphdr *ip, void *data_end)
{
	struct transport transport = { .length = bpf_ntohs(ip->tot_len) - sizeof(*ip) };
	struct passing4 *passing, fresh;
	struct passing4_key key;

	if (ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff) || ip->ttl <= 1 ||
	    !read_ends(ip + 1, data_end, ip->protocol, &transport))
		return XDP_PASS;
	key.ends.source = ip->saddr;
	key.ends.destination = ip->daddr;
	key.ends.ports = *transport.ports;
	key.protocol = ip->protocol;
	if (likely(!may_pass4(&key.ends, ip->protocol)))
		return XDP_PASS;
	if (unlikely(begins(&transport))) {
		bpf_map_delete_elem(&passing4, &key); /* it may get another backend */
		return XDP_PASS;
	}
	transport.now = ticks_now();
	passing = bpf_map_lookup_elem(&passing4, &key);
	if (unlikely(!passing || !is_fresh(&passing->hop, &transport, sizeof(*ip)))) {
		if (!look_closely4(context, &transport, &key, &fresh))
			return XDP_PASS;
		passing = &fresh;
	}
	if (unlikely(is_unfinished(&transport, &passing->hop)))
		return XDP_PASS;
	mend_checksum(&transport, passing->hop.transport_sum);
	*transport.ports = passing->ends.ports;
	ip->check = ~plus(passing->hop.header_sum, ip->check ^ 0xffff); /* RFC 1624 */
	ip->ttl--;
	ip->saddr = passing->ends.source;
	ip->daddr = passing->ends.destination;
	__builtin_memcpy(ethernet, passing->hop.macs, sizeof(passing->hop.macs));
	return XDP_TX;
}

/* Where a flow goes by its translations. False if the packet is to be handed over. */
NOINLINE bool look_closely6(struct xdp_md *context, const struct transport *transport, const struct passing6_key *key,
			    struct passing6 *passing)
{
	struct through through = { .in_key = { .reply = true, .v6 = true } };
	struct bpf_fib_lookup route = { .family = FAMILY_IPV6, .tot_len = transport->length + sizeof(struct ipv6hdr) };

	__builtin_memcpy(through.in_key.source.bytes, key->ends.source, 16);
	__builtin_memcpy(through.in_key.destination.bytes, key->ends.destination, 16);
	through.in_key.source_port = key->ends.ports.source;
	through.in_key.destination_port = key->ends.ports.destination;
	through.in_key.protocol = key->protocol;
	if (!goes_through(context, transport, &through))
		return false;
	__builtin_memcpy(passing->ends.source, through.out->address.bytes, 16);
	__builtin_memcpy(passing->ends.destination, through.in->address.bytes, 16);
	__builtin_memcpy(route.ipv6_src, passing->ends.source, 16);
	__builtin_memcpy(route.ipv6_dst, passing->ends.destination, 16);
	passing->ends.ports.source = through.out->port;
	passing->ends.ports.destination = through.in->port;
	passing->hop.checked = transport->now;
	if (!leaves_here(context, &route, &passing->hop))
		return false;
	passing->hop.transport_sum = ~fold(bpf_csum_diff((__be32 *)&key->ends, sizeof(key->ends),
							 (__be32 *)&passing->ends, sizeof(passing->ends), 0));
	passing->hop.header_sum = 0;
	passing->hop.pseudo_sum = ~fold(bpf_csum_diff(NULL, 0, (__be32 *)&key->ends, 32, bpf_htons(key->protocol)));
	touch(&through, transport->tcp_flags, transport->now);
	bpf_map_update_elem(&passing6, key, passing, BPF_ANY);
	return true;
}

INLINE int balance6(struct xdp_md *context, struct ethhdr *ethernet, struct ipv6hdr *ip, void *data_end)
{
	struct transport transport = { .length = bpf_ntohs(ip->payload_len) };
	struct passing6 *passing, fresh;
	struct passing6_key key;

	if (ip->hop_limit <= 1 || !read_ends(ip + 1, data_end, ip->nexthdr, &transport))
		return XDP_PASS;
	__builtin_memcpy(&key.ends, &ip->saddr, 32);
	key.ends.ports = *transport.ports;
	key.protocol = ip->nexthdr;
	if (likely(!may_pass6(&key.ends, ip->nexthdr)))
		return XDP_PASS;
	if (unlikely(begins(&transport))) {
		bpf_map_delete_elem(&passing6, &key); /* it may get another backend */
		return XDP_PASS;
	}
	transport.now = ticks_now();
	passing = bpf_map_lookup_elem(&passing6, &key);
	if (unlikely(!passing || !is_fresh(&passing->hop, &transport, sizeof(*ip)))) {
		if (!look_closely6(context, &transport, &key, &fresh))
			return XDP_PASS;
		passing = &fresh;
	}
	if (unlikely(is_unfinished(&transport, &passing->hop)))
		return XDP_PASS;
	mend_checksum(&transport, passing->hop.transport_sum);
	*transport.ports = passing->ends.ports;
	ip->hop_limit--;
	__builtin_memcpy(&ip->saddr, &passing->ends, 32);
	__builtin_memcpy(ethernet, passing->hop.macs, sizeof(passing->hop.macs));
	return XDP_TX;
}

INLINE int deny(struct xdp_md *context)
{
	count(REASON_PREFILTERED, context->data_end - context->data);
	return XDP_DROP;
}

INLINE int decide(struct xdp_md *context)
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

SEC("xdp")
int at_device(struct xdp_md *context)
{
	return decide(context);
}

/* The same for drivers, which may give it packets in several buffers: it is loaded with BPF_F_XDP_HAS_FRAGS where the
 * kernel has that (5.18). Behind a driver such a program would cost tc the Ethernet header of every packet: the copy
 * that is made for it knows no mac_len (kernel net/core/skbuff.c, skb_pp_cow_data; seen on 6.18).
 */
SEC("xdp")
int in_driver(struct xdp_md *context)
{
	return decide(context);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
