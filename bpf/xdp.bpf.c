// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What a node device can decide before the kernel makes a packet of it: who gets no answer at all, and flows that only
 * pass this host on their way between a client and a backend elsewhere.
 *
 * Such a flow began at `from_netdev` and `to_netdev`, whose two translations are applied here at once; or its backend
 * answers directly, and it is wrapped for it from its first packet on. Everything else is handed over: what begins
 * otherwise, ends in an error, is in fragments, is for this host, or goes out by another device.
 */
#include "lib/balance.h"
#include "lib/devices.h"
#include "lib/direct_return.h"
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
	__u32 length; /* of the whole IP packet */
	__u32 now; /* ticks */
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

/* Whether a packet may be of a flow that goes through: it is for a frontend, or for a port that we gave away. */
INLINE bool may_pass4(const struct ends4 *ends, __u8 protocol)
{
	return is_in_range(ends->ports.destination) || frontend_of4(ends, protocol);
}

INLINE bool may_pass6(const struct ends6 *ends, __u8 protocol)
{
	return is_in_range(ends->ports.destination) || frontend_of6(ends, protocol);
}

INLINE bool begins(const struct transport *transport)
{
	return (transport->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* Whether what was found out about a flow still holds for this packet. What ends is looked at closely. */
INLINE bool is_fresh(const struct next_hop *hop, const struct transport *transport)
{
	return hop->checked == transport->now && transport->length <= hop->mtu &&
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

/* Whether the flow goes through this host, and its answers too: `in_key` has its ends as the packet has them. */
INLINE bool goes_through(struct xdp_md *context, const struct transport *transport, struct through *through)
{
	through->in = find(&through->in_key, transport->now);
	if (likely(!through->in) || through->in->state & DIRECT || !serves(context->ingress_ifindex))
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

/* `difference`: between what the checksum covered and what it covers now. */
INLINE void mend_checksum(const struct transport *transport, __u32 difference)
{
	__sum16 sum;

	if (transport->protocol == IPPROTO_UDP && !*transport->checksum) /* it has none, RFC 768 */
		return;
	sum = fold((__u64)difference + (__u16) ~*transport->checksum);
	*transport->checksum = !sum && transport->protocol == IPPROTO_UDP ? 0xffff : sum;
}

/* Packets to backends that answer directly are wrapped here. Geneve and options are left to tc. */
INLINE bool wraps(void)
{
	return direct_return == DIRECT_IPIP;
}

/* The service behind a frontend that anybody may use, from wherever; NULL: it is not for this program. */
INLINE struct service *open_service(const struct frontend *frontend, __u32 *id)
{
	struct state *state = host_state();
	struct service *service;
	struct fronted fronted;
	union version version;

	if (!frontend || !state)
		return NULL;
	version.word = *(volatile __u64 *)&state->version;
	fronted = frontend_at(frontend, version.epoch);
	if (!fronted.service || fronted.flags)
		return NULL;
	service = bpf_map_lookup_elem(&services, &fronted.service);
	*id = fronted.service;
	return service && service->slots && !service->affinity_s ? service : NULL;
}

/* Remembers the backend of a flow that begins, if it answers directly. Returns it, or NULL. */
INLINE struct backend *enter_direct(const struct translation_key *flow, const struct frontend *frontend, __u32 now,
				    const bool v6)
{
	__u32 id, hash = flow_hash(&flow->source, &flow->destination, flow->source_port, flow->destination_port,
				   flow->protocol, v6);
	struct translation fresh = { .state = SENT_IN | DIRECT };
	struct service *service = open_service(frontend, &id);
	struct choice choice;

	if (!service)
		return NULL;
	choice = backend_by_hash(id, service, hash);
	if (!choice.backend || !(choice.backend->flags & BACKEND_DIRECT))
		return NULL;
	fresh.address = choice.backend->address;
	fresh.port = choice.backend->port;
	fresh.expires = now + flow_timeout(flow->protocol, 0, false);
	fresh.backend = choice.id;
	fresh.service = id;
	return bpf_map_update_elem(&translations, flow, &fresh, BPF_ANY) ? NULL : choice.backend;
}

/* Without its checksum. */
INLINE void fill_outer4(struct iphdr *outer, const struct passing4 *passing, __be16 length)
{
	outer->version = 4;
	outer->ihl = 5;
	outer->tos = 0;
	outer->tot_len = length;
	outer->id = passing->ends.ports.destination;
	outer->frag_off = bpf_htons(0x4000);
	outer->ttl = 64;
	outer->protocol = IPPROTO_IPIP;
	outer->check = 0;
	outer->saddr = passing->ends.source;
	outer->daddr = passing->ends.destination;
}

INLINE void name_flow4(struct translation_key *flow, const struct passing4_key *key)
{
	flow->source.v4 = key->ends.source;
	flow->destination.v4 = key->ends.destination;
	flow->source_port = key->ends.ports.source;
	flow->destination_port = key->ends.ports.destination;
	flow->protocol = key->protocol;
}

/* The outer header of a flow to a backend, as far as all of its packets have the same. False if it is to be handed
 * over.
 */
INLINE bool aim4(struct xdp_md *context, const struct transport *transport, const union address *backend, __be16 port,
		 struct passing4 *passing)
{
	struct bpf_fib_lookup route = {
		.family = FAMILY_IPV4,
		.tot_len = transport->length + sizeof(struct iphdr),
		.ipv4_dst = backend->v4,
	};
	__u32 ifindex = context->ingress_ifindex;
	struct device *device = bpf_map_lookup_elem(&devices, &ifindex);
	struct iphdr outer;

	if (!device || !(device->flags & DEVICE_SERVICES) || !leaves_here(context, &route, &passing->hop))
		return false;
	passing->ends.source = device->address4;
	passing->ends.destination = backend->v4;
	passing->ends.ports.source = 0;
	passing->ends.ports.destination = port;
	fill_outer4(&outer, passing, 0);
	passing->hop.checked = transport->now;
	passing->hop.mtu -= sizeof(outer);
	passing->hop.header_sum = bpf_csum_diff(NULL, 0, (__be32 *)&outer, sizeof(outer), 0);
	passing->hop.transport_sum = 0;
	passing->hop.wraps = 1;
	return true;
}

/* Where a flow to a backend that answers directly goes, from its first packet on. False if the packet is to be handed
 * over: so is what begins again while it is known.
 */
NOINLINE bool look_for_direct4(struct xdp_md *context, const struct transport *transport,
			       const struct passing4_key *key, struct passing4 *passing)
{
	struct translation_key flow = { .reply = true };
	union address address;
	struct translation *known;
	struct backend *backend;
	__be16 port;

	name_flow4(&flow, key);
	known = find(&flow, transport->now);
	if (known) {
		if (begins(transport) || !(known->state & DIRECT))
			return false;
		translation_touch(&flow, known, transport->tcp_flags, transport->now);
		address = known->address;
		port = known->port;
	} else {
		backend = enter_direct(&flow, frontend_of4(&key->ends, key->protocol), transport->now, false);
		if (!backend)
			return false;
		address = backend->address;
		port = backend->port;
	}
	if (!aim4(context, transport, &address, port, passing))
		return false;
	if (!begins(transport))
		bpf_map_update_elem(&passing4, key, passing, BPF_ANY);
	return true;
}

/* The packet as it came, behind an outer header. */
INLINE int wrap4(struct xdp_md *context, const struct passing4 *passing, const struct transport *transport)
{
	const __be16 length = bpf_htons(transport->length + sizeof(struct iphdr));
	__sum16 check = fold((__u64)passing->hop.header_sum + length);
	struct ethhdr *ethernet;
	struct iphdr *outer;

	if (bpf_xdp_adjust_head(context, -(int)sizeof(*outer)))
		return XDP_PASS;
	ethernet = (void *)(long)context->data;
	outer = (void *)(ethernet + 1);
	if ((void *)(outer + 1) > (void *)(long)context->data_end)
		return XDP_DROP;
	__builtin_memcpy(ethernet, passing->hop.macs, sizeof(passing->hop.macs));
	ethernet->h_proto = bpf_htons(ETH_P_IP);
	fill_outer4(outer, passing, length);
	outer->check = check;
	return XDP_TX;
}

/* Where a flow goes by its translations. False if the packet is to be handed over. */
NOINLINE bool look_closely4(struct xdp_md *context, const struct transport *transport, const struct passing4_key *key,
			    struct passing4 *passing)
{
	struct through through = { .in_key = { .reply = true } };
	struct bpf_fib_lookup route = { .family = FAMILY_IPV4, .tot_len = transport->length };

	through.in_key.source.v4 = key->ends.source;
	through.in_key.destination.v4 = key->ends.destination;
	through.in_key.source_port = key->ends.ports.source;
	through.in_key.destination_port = key->ends.ports.destination;
	through.in_key.protocol = key->protocol;
	if (!goes_through(context, transport, &through))
		return false;
	passing->hop.wraps = 0;
	passing->ends.source = route.ipv4_src = through.out->address.v4;
	passing->ends.destination = route.ipv4_dst = through.in->address.v4;
	passing->ends.ports.source = through.out->port;
	passing->ends.ports.destination = through.in->port;
	passing->hop.checked = transport->now;
	if (!leaves_here(context, &route, &passing->hop))
		return false;
	passing->hop.transport_sum = bpf_csum_diff((__be32 *)&key->ends, sizeof(key->ends), (__be32 *)&passing->ends,
						   sizeof(passing->ends), 0);
	passing->hop.header_sum = bpf_csum_diff((__be32 *)&key->ends, 8, (__be32 *)&passing->ends, 8, 0);
	touch(&through, transport->tcp_flags, transport->now);
	bpf_map_update_elem(&passing4, key, passing, BPF_ANY);
	return true;
}

/* A packet that begins a flow. */
NOINLINE int begin4(struct xdp_md *context, const struct transport *transport, const struct passing4_key *key)
{
	union passing *fresh = passing_draft();

	bpf_map_delete_elem(&passing4, key); /* it may get another backend */
	if (!wraps() || !fresh || !look_for_direct4(context, transport, key, &fresh->v4))
		return XDP_PASS;
	return wrap4(context, &fresh->v4, transport);
}

INLINE int balance4(struct xdp_md *context, struct ethhdr *ethernet, struct iphdr *ip, void *data_end)
{
	struct transport transport = { .length = bpf_ntohs(ip->tot_len) };
	struct passing4 *passing;
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
	transport.now = ticks_now();
	if (unlikely(begins(&transport)))
		return begin4(context, &transport, &key);
	passing = bpf_map_lookup_elem(&passing4, &key);
	if (unlikely(!passing || !is_fresh(&passing->hop, &transport))) {
		union passing *fresh = passing_draft();

		if (!fresh || (!look_closely4(context, &transport, &key, &fresh->v4) &&
			       !(wraps() && look_for_direct4(context, &transport, &key, &fresh->v4))))
			return XDP_PASS;
		passing = &fresh->v4;
	}
	if (passing->hop.wraps)
		return wrap4(context, passing, &transport);
	mend_checksum(&transport, passing->hop.transport_sum);
	*transport.ports = passing->ends.ports;
	ip->check = fold((__u64)passing->hop.header_sum + (__u16)~ip->check +
			 (__u16)~bpf_htons(0x0100)); /* and a hop less: RFC 1624 */
	ip->ttl--;
	ip->saddr = passing->ends.source;
	ip->daddr = passing->ends.destination;
	__builtin_memcpy(ethernet, passing->hop.macs, sizeof(passing->hop.macs));
	return XDP_TX;
}

INLINE void fill_outer6(struct ipv6hdr *outer, const struct passing6 *passing, __be16 length)
{
	__u32 port = bpf_ntohs(passing->ends.ports.destination);

	outer->version = 6;
	outer->priority = 0;
	outer->flow_lbl[0] = 0;
	outer->flow_lbl[1] = port >> 8;
	outer->flow_lbl[2] = port;
	outer->payload_len = length;
	outer->nexthdr = IPPROTO_IPV6;
	outer->hop_limit = 64;
	__builtin_memcpy(&outer->saddr, passing->ends.source, 16);
	__builtin_memcpy(&outer->daddr, passing->ends.destination, 16);
}

INLINE void name_flow6(struct translation_key *flow, const struct passing6_key *key)
{
	__builtin_memcpy(flow->source.bytes, key->ends.source, 16);
	__builtin_memcpy(flow->destination.bytes, key->ends.destination, 16);
	flow->source_port = key->ends.ports.source;
	flow->destination_port = key->ends.ports.destination;
	flow->protocol = key->protocol;
}

/* The outer header of a flow to a backend, as far as all of its packets have the same. False if it is to be handed
 * over.
 */
INLINE bool aim6(struct xdp_md *context, const struct transport *transport, const union address *backend, __be16 port,
		 struct passing6 *passing)
{
	struct bpf_fib_lookup route = {
		.family = FAMILY_IPV6,
		.tot_len = transport->length + sizeof(struct ipv6hdr),
	};
	__u32 ifindex = context->ingress_ifindex;
	struct device *device = bpf_map_lookup_elem(&devices, &ifindex);

	__builtin_memcpy(route.ipv6_dst, backend->bytes, 16);
	if (!device || !(device->flags & DEVICE_SERVICES) || !leaves_here(context, &route, &passing->hop))
		return false;
	__builtin_memcpy(passing->ends.source, device->address6, 16);
	__builtin_memcpy(passing->ends.destination, backend->bytes, 16);
	passing->ends.ports.source = 0;
	passing->ends.ports.destination = port;
	passing->hop.checked = transport->now;
	passing->hop.mtu -= sizeof(struct ipv6hdr);
	passing->hop.header_sum = 0;
	passing->hop.transport_sum = 0;
	passing->hop.wraps = 1;
	return true;
}

/* Where a flow to a backend that answers directly goes, from its first packet on. False if the packet is to be handed
 * over: so is what begins again while it is known.
 */
NOINLINE bool look_for_direct6(struct xdp_md *context, const struct transport *transport,
			       const struct passing6_key *key, struct passing6 *passing)
{
	struct translation_key flow = { .reply = true, .v6 = true };
	union address address;
	struct translation *known;
	struct backend *backend;
	__be16 port;

	name_flow6(&flow, key);
	known = find(&flow, transport->now);
	if (known) {
		if (begins(transport) || !(known->state & DIRECT))
			return false;
		translation_touch(&flow, known, transport->tcp_flags, transport->now);
		address = known->address;
		port = known->port;
	} else {
		backend = enter_direct(&flow, frontend_of6(&key->ends, key->protocol), transport->now, true);
		if (!backend)
			return false;
		address = backend->address;
		port = backend->port;
	}
	if (!aim6(context, transport, &address, port, passing))
		return false;
	if (!begins(transport))
		bpf_map_update_elem(&passing6, key, passing, BPF_ANY);
	return true;
}

/* The packet as it came, behind an outer header. */
INLINE int wrap6(struct xdp_md *context, const struct passing6 *passing, const struct transport *transport)
{
	struct ethhdr *ethernet;
	struct ipv6hdr *outer;

	if (bpf_xdp_adjust_head(context, -(int)sizeof(*outer)))
		return XDP_PASS;
	ethernet = (void *)(long)context->data;
	outer = (void *)(ethernet + 1);
	if ((void *)(outer + 1) > (void *)(long)context->data_end)
		return XDP_DROP;
	__builtin_memcpy(ethernet, passing->hop.macs, sizeof(passing->hop.macs));
	ethernet->h_proto = bpf_htons(ETH_P_IPV6);
	fill_outer6(outer, passing, bpf_htons(transport->length));
	return XDP_TX;
}

/* Where a flow goes by its translations. False if the packet is to be handed over. */
NOINLINE bool look_closely6(struct xdp_md *context, const struct transport *transport, const struct passing6_key *key,
			    struct passing6 *passing)
{
	struct through through = { .in_key = { .reply = true, .v6 = true } };
	struct bpf_fib_lookup route = { .family = FAMILY_IPV6, .tot_len = transport->length };

	__builtin_memcpy(through.in_key.source.bytes, key->ends.source, 16);
	__builtin_memcpy(through.in_key.destination.bytes, key->ends.destination, 16);
	through.in_key.source_port = key->ends.ports.source;
	through.in_key.destination_port = key->ends.ports.destination;
	through.in_key.protocol = key->protocol;
	if (!goes_through(context, transport, &through))
		return false;
	passing->hop.wraps = 0;
	__builtin_memcpy(passing->ends.source, through.out->address.bytes, 16);
	__builtin_memcpy(passing->ends.destination, through.in->address.bytes, 16);
	__builtin_memcpy(route.ipv6_src, passing->ends.source, 16);
	__builtin_memcpy(route.ipv6_dst, passing->ends.destination, 16);
	passing->ends.ports.source = through.out->port;
	passing->ends.ports.destination = through.in->port;
	passing->hop.checked = transport->now;
	if (!leaves_here(context, &route, &passing->hop))
		return false;
	passing->hop.transport_sum = bpf_csum_diff((__be32 *)&key->ends, sizeof(key->ends), (__be32 *)&passing->ends,
						   sizeof(passing->ends), 0);
	passing->hop.header_sum = 0;
	touch(&through, transport->tcp_flags, transport->now);
	bpf_map_update_elem(&passing6, key, passing, BPF_ANY);
	return true;
}

/* A packet that begins a flow. */
NOINLINE int begin6(struct xdp_md *context, const struct transport *transport, const struct passing6_key *key)
{
	union passing *fresh = passing_draft();

	bpf_map_delete_elem(&passing6, key); /* it may get another backend */
	if (!wraps() || !fresh || !look_for_direct6(context, transport, key, &fresh->v6))
		return XDP_PASS;
	return wrap6(context, &fresh->v6, transport);
}

INLINE int balance6(struct xdp_md *context, struct ethhdr *ethernet, struct ipv6hdr *ip, void *data_end)
{
	struct transport transport = { .length = sizeof(*ip) + bpf_ntohs(ip->payload_len) };
	struct passing6 *passing;
	struct passing6_key key;

	if (ip->hop_limit <= 1 || !read_ends(ip + 1, data_end, ip->nexthdr, &transport))
		return XDP_PASS;
	__builtin_memcpy(&key.ends, &ip->saddr, 32);
	key.ends.ports = *transport.ports;
	key.protocol = ip->nexthdr;
	if (likely(!may_pass6(&key.ends, ip->nexthdr)))
		return XDP_PASS;
	transport.now = ticks_now();
	if (unlikely(begins(&transport)))
		return begin6(context, &transport, &key);
	passing = bpf_map_lookup_elem(&passing6, &key);
	if (unlikely(!passing || !is_fresh(&passing->hop, &transport))) {
		union passing *fresh = passing_draft();

		if (!fresh || (!look_closely6(context, &transport, &key, &fresh->v6) &&
			       !(wraps() && look_for_direct6(context, &transport, &key, &fresh->v6))))
			return XDP_PASS;
		passing = &fresh->v6;
	}
	if (passing->hop.wraps)
		return wrap6(context, passing, &transport);
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
