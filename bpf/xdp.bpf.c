// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What a node device can decide before the kernel makes a packet of it: who gets no answer at all, and flows that only
 * pass this host on their way between a client and a backend elsewhere.
 *
 * Such a flow began at `from_netdev` and `to_netdev`, whose two translations are applied here at once; or its backend
 * answers directly, and it is wrapped for it from its first packet on. Everything else is handed over: what begins
 * otherwise, ends in an error, is in fragments, is for this host, or goes out by another device.
 */
#include "lib/direct_early4.h"
#include "lib/direct_early6.h"
#include "lib/ports.h"
#include "lib/prefilter.h"
#include "lib/through.h"

/* A packet that begins a flow. */
NOINLINE int begin4(struct xdp_md *context, const struct transport *transport, const struct passing4_key *key,
		    const struct frontend *frontend)
{
	union passing *fresh = passing_draft();

	if (!wraps() || !fresh || !begin_direct4(context, transport, key, frontend, &fresh->v4) ||
	    is_unfinished(transport, &fresh->v4.hop)) {
		bpf_map_delete_elem(&passing4, key); /* it may get another backend */
		return XDP_PASS;
	}
	return wrap4(context, &fresh->v4, transport);
}

/* Where a flow goes that may be one of those that go through. NULL: it is handed over. */
INLINE struct passing4 *look_closely4(struct xdp_md *context, const struct transport *transport,
				      const struct passing4_key *key, const struct frontend *frontend,
				      struct passing4 *stale, __u8 *mark)
{
	union passing *fresh = passing_draft();
	enum looked looked = AIMED;

	if (!fresh)
		return NULL;
	if (!look_for_through4(context, transport, key, &fresh->v4))
		looked = wraps() ? look_for_direct4(context, transport, key, frontend, &fresh->v4) : HANDED_OVER;
	if (looked == HANDED_OVER)
		return NULL;
	if (looked == AIMED) {
		keep4(key, stale, &fresh->v4);
		*mark = 1;
	}
	return &fresh->v4;
}

INLINE int balance4(struct xdp_md *context, struct ethhdr *ethernet, struct iphdr *ip, void *data_end)
{
	struct transport transport = { .length = bpf_ntohs(ip->tot_len) - sizeof(*ip), .class = class4(ip) };
	struct passing4 *passing = NULL;
	struct passing4_key key;
	__u8 *mark;

	if (ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff) || ip->ttl <= 1 ||
	    !read_ends(ip + 1, data_end, ip->protocol, &transport))
		return XDP_PASS;
	key.ends.source = ip->saddr;
	key.ends.destination = ip->daddr;
	key.ends.ports = *transport.ports;
	key.protocol = ip->protocol;
	mark = passing_mark(ip->daddr, key.ends.ports.destination);
	if (!mark)
		return XDP_PASS;
	if (*mark && !begins(&transport)) {
		transport.now = ticks_now();
		passing = bpf_map_lookup_elem(&passing4, &key);
	}
	if (!passing || unlikely(!is_fresh(&passing->hop, &transport, sizeof(*ip)))) {
		const struct frontend *frontend = frontend_of4(&key.ends, key.protocol);

		/* For neither a frontend nor a port that we gave away. */
		if (likely(!frontend && !is_in_range(key.ends.ports.destination)))
			return XDP_PASS;
		transport.now = ticks_now();
		if (begins(&transport))
			return begin4(context, &transport, &key, frontend);
		passing = look_closely4(context, &transport, &key, frontend, passing, mark);
		if (!passing)
			return XDP_PASS;
	}
	if (unlikely(is_unfinished(&transport, &passing->hop)))
		return XDP_PASS;
	if (passing->hop.wraps)
		return wrap4(context, passing, &transport);
	mend_checksum(&transport, passing->hop.transport_sum);
	*transport.ports = passing->ends.ports;
	ip->check = ~plus(passing->hop.header_sum, ip->check ^ 0xffff); /* RFC 1624 */
	ip->ttl--;
	ip->saddr = passing->ends.source;
	ip->daddr = passing->ends.destination;
	__builtin_memcpy(ethernet, passing->hop.macs, sizeof(passing->hop.macs));
	return XDP_TX;
}

/* A packet that begins a flow. */
NOINLINE int begin6(struct xdp_md *context, const struct transport *transport, const struct passing6_key *key,
		    const struct frontend *frontend)
{
	union passing *fresh = passing_draft();

	if (!wraps() || !fresh || !begin_direct6(context, transport, key, frontend, &fresh->v6) ||
	    is_unfinished(transport, &fresh->v6.hop)) {
		bpf_map_delete_elem(&passing6, key); /* it may get another backend */
		return XDP_PASS;
	}
	return wrap6(context, &fresh->v6, transport);
}

/* Where a flow goes that may be one of those that go through. NULL: it is handed over. */
INLINE struct passing6 *look_closely6(struct xdp_md *context, const struct transport *transport,
				      const struct passing6_key *key, const struct frontend *frontend,
				      struct passing6 *stale, __u8 *mark)
{
	union passing *fresh = passing_draft();
	enum looked looked = AIMED;

	if (!fresh)
		return NULL;
	if (!look_for_through6(context, transport, key, &fresh->v6))
		looked = wraps() ? look_for_direct6(context, transport, key, frontend, &fresh->v6) : HANDED_OVER;
	if (looked == HANDED_OVER)
		return NULL;
	if (looked == AIMED) {
		keep6(key, stale, &fresh->v6);
		*mark = 1;
	}
	return &fresh->v6;
}

INLINE int balance6(struct xdp_md *context, struct ethhdr *ethernet, struct ipv6hdr *ip, void *data_end)
{
	struct transport transport = { .length = bpf_ntohs(ip->payload_len), .class = class6(ip) };
	struct passing6 *passing = NULL;
	struct passing6_key key;
	union address *address;
	__u8 *mark;

	if (ip->hop_limit <= 1 || !read_ends(ip + 1, data_end, ip->nexthdr, &transport))
		return XDP_PASS;
	__builtin_memcpy(&key.ends, &ip->saddr, 32);
	key.ends.ports = *transport.ports;
	key.protocol = ip->nexthdr;
	address = (union address *)&ip->daddr;
	mark = passing_mark(address->v6[0] ^ address->v6[1], key.ends.ports.destination);
	if (!mark)
		return XDP_PASS;
	if (*mark && !begins(&transport)) {
		transport.now = ticks_now();
		passing = bpf_map_lookup_elem(&passing6, &key);
	}
	if (!passing || unlikely(!is_fresh(&passing->hop, &transport, sizeof(*ip)))) {
		const struct frontend *frontend = frontend_of6(&key.ends, key.protocol);

		/* For neither a frontend nor a port that we gave away. */
		if (likely(!frontend && !is_in_range(key.ends.ports.destination)))
			return XDP_PASS;
		transport.now = ticks_now();
		if (begins(&transport))
			return begin6(context, &transport, &key, frontend);
		passing = look_closely6(context, &transport, &key, frontend, passing, mark);
		if (!passing)
			return XDP_PASS;
	}
	if (unlikely(is_unfinished(&transport, &passing->hop)))
		return XDP_PASS;
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
