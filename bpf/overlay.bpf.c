// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Packets between nodes, at the overlay device: what comes out of a tunnel, and what the stack sends into one.
 *
 * A node speaks for the workloads of its own CIDRs and for nobody else. Who it says the sender is travels on in the
 * mark of the packet, to the program of the workload that gets it. What workloads send to other nodes is wrapped by
 * their own programs and only passes here.
 */
#include "lib/delivery.h"
#include "lib/forward.h"
#include "lib/geneve.h"
#include "lib/passage.h"
#include "lib/tunnels.h"

/* Where a packet came out of: the other node, and what it says of the sender. */
struct outer {
	union address remote;
	__u32 identity;
	__u8 family;
};

INLINE bool leave_tunnel(struct __sk_buff *skb, struct outer *outer)
{
	struct bpf_tunnel_key key = {};

	if (likely(!bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0))) {
		outer->family = FAMILY_IPV4;
		outer->remote.v4 = bpf_htonl(key.remote_ipv4);
	} else if (!bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6)) {
		outer->family = FAMILY_IPV6;
		__builtin_memcpy(outer->remote.bytes, key.remote_ipv6, 16);
	} else {
		return false;
	}
	outer->identity = key.tunnel_id;
	return true;
}

INLINE bool is_node_of(const struct tunnel *tunnel, const struct outer *outer)
{
	union address remote;

	if (tunnel->family != outer->family)
		return false;
	__builtin_memcpy(remote.bytes, tunnel->remote, 16);
	return outer->family == FAMILY_IPV6 ? same_address(&remote, &outer->remote, true) :
					      remote.v4 == outer->remote.v4;
}

/* Why nobody gets the packet; with its flow, as far as it can be read. */
NOINLINE int refuse4(struct __sk_buff *skb, struct passage *at, __u8 reason)
{
	struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;

	if (!at || (void *)(ip + 1) > (void *)(long)skb->data_end)
		return TC_ACT_SHOT;
	parse_ipv4(skb, ip, (void *)(long)skb->data_end, &at->flow);
	return drop(skb, at, reason, false);
}

NOINLINE int refuse6(struct __sk_buff *skb, struct passage *at, __u8 reason)
{
	struct ipv6hdr *ip = (void *)(long)skb->data + ETH_HLEN;

	if (!at || (void *)(ip + 1) > (void *)(long)skb->data_end)
		return TC_ACT_SHOT;
	parse_ipv6(skb, ip, (void *)(long)skb->data_end, &at->flow);
	return drop(skb, at, reason, true);
}

INLINE int refuse(struct __sk_buff *skb, __u8 reason, const bool v6)
{
	struct passage at = {};

	if (!enter(&at))
		return TC_ACT_SHOT;
	return v6 ? refuse6(skb, &at, reason) : refuse4(skb, &at, reason);
}

/* The packet's own addresses. */
INLINE bool read_addresses(struct __sk_buff *skb, union address *source, union address *destination, const bool v6)
{
	void *network = (void *)(long)skb->data + ETH_HLEN, *data_end = (void *)(long)skb->data_end;

	if (v6) {
		struct ipv6hdr *ip = network;

		if ((void *)(ip + 1) > data_end)
			return false;
		__builtin_memcpy(source->bytes, &ip->saddr, 16);
		__builtin_memcpy(destination->bytes, &ip->daddr, 16);
	} else {
		struct iphdr *ip = network;

		if ((void *)(ip + 1) > data_end)
			return false;
		source->v4 = ip->saddr;
		destination->v4 = ip->daddr;
	}
	return true;
}

/* To the host end of a local workload's veth pair, where `to_workload` judges it. */
INLINE int hand_in(struct __sk_buff *skb, const struct endpoint *endpoint, __u32 identity, const bool v6)
{
	skb->mark = identity;
	if (!take_hop_to(skb, endpoint->mac, v6))
		return PASS;
	return bpf_redirect(endpoint->ifindex, 0);
}

/* The packet is for this host itself. No action has this number. */
#define HERE 64

/* Services of this host have clients outside whose packets go to other nodes: then the overlay device has a row. */
INLINE const struct device *serving_device(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;

	return bpf_map_lookup_elem(&devices, &ifindex);
}

/* An answer of a backend to this host: it is for the client. Returns a reason to drop it, 0 or less. */
NOINLINE int answer4(struct __sk_buff *skb, const struct device *device)
{
	struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;
	struct passage at = {};

	if (!device || (void *)(ip + 1) > (void *)(long)skb->data_end || !enter(&at) ||
	    parse_ipv4(skb, ip, (void *)(long)skb->data_end, &at.flow))
		return NOT_TRANSLATED;
	return unmasquerade(skb, &at, device, false);
}

NOINLINE int answer6(struct __sk_buff *skb, const struct device *device)
{
	struct ipv6hdr *ip = (void *)(long)skb->data + ETH_HLEN;
	struct passage at = {};

	if (!device || (void *)(ip + 1) > (void *)(long)skb->data_end || !enter(&at) ||
	    parse_ipv6(skb, ip, (void *)(long)skb->data_end, &at.flow))
		return NOT_TRANSLATED;
	return unmasquerade(skb, &at, device, true);
}

/* A packet of a client outside to a backend of another node: from here on it is this host's. Returns a reason to drop
 * it, 0, or NOT_TRANSLATED.
 */
NOINLINE int ask4(struct __sk_buff *skb, const struct device *device)
{
	struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;
	struct passage at = {};

	if (!device || (void *)(ip + 1) > (void *)(long)skb->data_end || !enter(&at) ||
	    parse_ipv4(skb, ip, (void *)(long)skb->data_end, &at.flow))
		return NOT_TRANSLATED;
	return is_forwarded(skb, &at, device, false) && is_known_forwarded(&at, false) ?
		       0 :
		       masquerade(skb, &at, device, false);
}

NOINLINE int ask6(struct __sk_buff *skb, const struct device *device)
{
	struct ipv6hdr *ip = (void *)(long)skb->data + ETH_HLEN;
	struct passage at = {};

	if (!device || (void *)(ip + 1) > (void *)(long)skb->data_end || !enter(&at) ||
	    parse_ipv6(skb, ip, (void *)(long)skb->data_end, &at.flow))
		return NOT_TRANSLATED;
	return is_forwarded(skb, &at, device, true) && is_known_forwarded(&at, true) ?
		       0 :
		       masquerade(skb, &at, device, true);
}

INLINE int unwrap(struct __sk_buff *skb, const bool v6)
{
	union address source = {}, destination = {};
	struct outer outer = {};
	struct endpoint *endpoint;
	struct tunnel *tunnel;

	if (!read_addresses(skb, &source, &destination, v6))
		return discard(skb, REASON_MALFORMED);
	tunnel = find_tunnel(&source, v6);
	if (geneve) /* looked at by the program that unwrapped it, which marked it */
		outer.identity = skb->mark;
	if (!tunnel || (!geneve && (!leave_tunnel(skb, &outer) || !is_node_of(tunnel, &outer))))
		return refuse(skb, REASON_TUNNEL_NODE, v6);
	if (!may_vouch(tunnel, outer.identity))
		return refuse(skb, REASON_TUNNEL_IDENTITY, v6);
	endpoint = find_endpoint(&destination, v6);
	if (likely(endpoint))
		return hand_in(skb, endpoint, outer.identity, v6);
	tunnel = tunnel_row(&destination, v6);
	if (!tunnel || !tunnel->here)
		return refuse(skb, REASON_TUNNEL_DESTINATION, v6);
	bpf_skb_change_type(skb, 0); /* PACKET_HOST, whatever address the frame has */
	return HERE;
}

/* What the stack sends: this host's own packets, and those of workloads that it had to cut. */
INLINE int wrap(struct __sk_buff *skb, bool forwarded, const bool v6)
{
	union address source = {}, destination = {};
	__u32 identity = IDENTITY_REMOTE_NODE;
	struct endpoint *endpoint;
	struct tunnel *tunnel;

	if (!read_addresses(skb, &source, &destination, v6))
		return discard(skb, REASON_MALFORMED);
	if (is_multicast(&destination, v6))
		return discard(skb, REASON_UNSUPPORTED_PROTOCOL);
	if (forwarded) {
		endpoint = find_endpoint(&source, v6);
		if (!endpoint || endpoint->ifindex != skb->ingress_ifindex)
			return refuse(skb, REASON_SPOOFED_SOURCE, v6);
		identity = endpoint->identity;
	} else {
		tunnel = tunnel_row(&source, v6);
		if (!tunnel || !tunnel->here)
			return refuse(skb, REASON_SPOOFED_SOURCE, v6);
	}
	tunnel = find_tunnel(&destination, v6);
	if (!tunnel)
		return refuse(skb, REASON_TUNNEL_DESTINATION, v6);
	if (geneve) {
		tunnel_mtu(skb, tunnel, ticks_now());
		return wrap_geneve(skb, tunnel, identity);
	}
	return enter_tunnel(skb, tunnel, identity, false) ? discard(skb, REASON_NO_ROOM) : PASS;
}

/* Each in a frame of its own: with translation, one would be too large. */
NOINLINE int refuse_translated(struct __sk_buff *skb, __u8 reason, bool v6)
{
	return v6 ? refuse(skb, reason, true) : refuse(skb, reason, false);
}

NOINLINE int unwrap4(struct __sk_buff *skb)
{
	return unwrap(skb, false);
}

NOINLINE int unwrap6(struct __sk_buff *skb)
{
	return unwrap(skb, true);
}

NOINLINE int wrap4(struct __sk_buff *skb, bool forwarded)
{
	return wrap(skb, forwarded, false);
}

NOINLINE int wrap6(struct __sk_buff *skb, bool forwarded)
{
	return wrap(skb, forwarded, true);
}

INLINE int come_out(struct __sk_buff *skb, const bool v6)
{
	int action = v6 ? unwrap6(skb) : unwrap4(skb), reason;
	const struct device *device;

	if (likely(action != HERE))
		return action;
	device = serving_device(skb);
	if (!device)
		return PASS;
	reason = v6 ? answer6(skb, device) : answer4(skb, device);
	if (reason == SENT)
		return TC_ACT_REDIRECT;
	return reason > 0 ? refuse_translated(skb, reason, v6) : PASS;
}

INLINE int go_in(struct __sk_buff *skb, const bool v6)
{
	const struct device *device = serving_device(skb);
	bool forwarded = skb->ingress_ifindex;
	int reason;

	if (forwarded && device) {
		reason = v6 ? ask6(skb, device) : ask4(skb, device);
		if (reason > 0)
			return refuse_translated(skb, reason, v6);
		forwarded = reason;
	}
	return v6 ? wrap6(skb, forwarded) : wrap4(skb, forwarded);
}

INLINE bool is_wrapped(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key;

	return !geneve && skb->ingress_ifindex &&
	       (!bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0) ||
		!bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6));
}

SEC("tc")
int from_overlay(struct __sk_buff *skb)
{
	if (!geneve)
		skb->mark = 0;
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		make_readable(skb, HEADERS4);
		return come_out(skb, false);
	case bpf_htons(ETH_P_IPV6):
		make_readable(skb, HEADERS6);
		return come_out(skb, true);
	default:
		return discard(skb, REASON_UNSUPPORTED_PROTOCOL);
	}
}

SEC("tc")
int to_overlay(struct __sk_buff *skb)
{
	if (likely(is_wrapped(skb)))
		return PASS;
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		make_readable(skb, HEADERS4);
		return go_in(skb, false);
	case bpf_htons(ETH_P_IPV6):
		make_readable(skb, HEADERS6);
		return go_in(skb, true);
	default:
		return discard(skb, REASON_UNSUPPORTED_PROTOCOL);
	}
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
