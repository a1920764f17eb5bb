/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A port for a translated flow.
 *
 * Ports come from a range that the host leaves alone (net.ipv4.ip_local_reserved_ports). A port that a socket of the
 * host has all the same is not given away, and a flow of the host that turns up on one gets it back.
 */
#pragma once

#include "translation.h"

OPTION(__u16, masquerade_first_port, 49152);
OPTION(__u16, masquerade_last_port, 65535);

/* How many ports are tried for a flow: 24 of 25 may be taken, and one in four flows still finds none. */
#define PORT_ATTEMPTS 32

INLINE bool is_in_range(__be16 port)
{
	return bpf_ntohs(port) >= masquerade_first_port && bpf_ntohs(port) <= masquerade_last_port;
}

/* Whether a socket of this host would get packets of this kind. */
INLINE bool has_socket(struct __sk_buff *skb, const struct translation_key *reply, const bool v6)
{
	struct bpf_sock_tuple tuple;
	__u32 size = v6 ? sizeof(tuple.ipv6) : sizeof(tuple.ipv4);
	struct bpf_sock *socket;

	if (v6) {
		__builtin_memcpy(tuple.ipv6.saddr, reply->source.bytes, 16);
		__builtin_memcpy(tuple.ipv6.daddr, reply->destination.bytes, 16);
		tuple.ipv6.sport = reply->source_port;
		tuple.ipv6.dport = reply->destination_port;
	} else {
		tuple.ipv4.saddr = reply->source.v4;
		tuple.ipv4.daddr = reply->destination.v4;
		tuple.ipv4.sport = reply->source_port;
		tuple.ipv4.dport = reply->destination_port;
	}
	if (reply->protocol == IPPROTO_TCP)
		socket = bpf_skc_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	else if (reply->protocol == IPPROTO_UDP)
		socket = bpf_sk_lookup_udp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	else
		return false;
	if (!socket)
		return false;
	bpf_sk_release(socket);
	return true;
}

/* The entry of what comes back. Returns 0 or an error, if there is one already. */
INLINE int enter_new(const struct translation_key *reply, const struct translation_key *key,
		     const struct translation *fresh)
{
	struct translation back;

	turn_value(key, fresh, &back);
	return bpf_map_update_elem(&translations, reply, &back, BPF_NOEXIST);
}

/* Whether answers that are known are those of this very flow, whose own row was pushed out. */
INLINE bool is_counterpart(const struct translation *known, const struct translation_key *key)
{
	return known->state & ANSWERS && known->port == key->source_port && known->from_port == key->destination_port &&
	       same_address(&known->address, &key->source, true) && same_address(&known->from, &key->destination, true);
}

#define TAKEN -1
#define EEXIST 17 /* <asm-generic/errno-base.h> */

/* Tries to give `fresh->port` to a flow. Returns 0, TAKEN if somebody has it, or a reason. Verified once, not for each
 * time that it is called.
 */
GLOBAL int attempt(struct __sk_buff *skb, const struct translation_key *key, struct translation *fresh, __u32 now)
{
	struct translation_key reply;
	struct translation *known;
	int error;

	if (!key || !fresh)
		return TAKEN;
	turn_key(key, fresh, &reply);
	known = bpf_map_lookup_elem(&translations, &reply);
	if (known && !passed(now, known->expires) && !is_counterpart(known, key))
		return TAKEN;
	if (key->v6 ? has_socket(skb, &reply, true) : has_socket(skb, &reply, false))
		return TAKEN;
	if (known)
		bpf_map_delete_elem(&translations, &reply);
	error = enter_new(&reply, key, fresh);
	if (error)
		return error == -EEXIST ? TAKEN : REASON_CONNTRACK_FULL;
	if (!bpf_map_update_elem(&translations, key, fresh, BPF_ANY))
		return 0;
	bpf_map_delete_elem(&translations, &reply);
	return REASON_CONNTRACK_FULL;
}

/* The port that a flow leaves by. */
INLINE void leave_by(struct translation *fresh, __be16 port)
{
	if (fresh->state & THROUGH)
		fresh->from_port = port;
	else
		fresh->port = port;
}

/* A port for a new flow: its own if it may keep it, else from some place in the range on. Returns 0 or a reason. */
INLINE int allocate(struct __sk_buff *skb, const struct translation_key *key, struct translation *fresh, __u32 start,
		    __u32 now)
{
	const __u32 span = masquerade_last_port - masquerade_first_port + 1;
	int result = TAKEN;

	fresh->expires = now + flow_timeout(key->protocol, 0, false);
	leave_by(fresh, key->source_port);
	if (is_icmp(key->protocol) || is_in_range(key->source_port))
		result = attempt(skb, key, fresh, now);
	for (int i = 0; i < PORT_ATTEMPTS && result == TAKEN; i++) {
		leave_by(fresh, bpf_htons(masquerade_first_port + (start + i) % span));
		result = attempt(skb, key, fresh, now);
	}
	return result == TAKEN ? REASON_NO_PORT : result;
}
