/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Other addresses and ports in a packet, with the checksums that cover them (RFC 1624). */
#pragma once

#include "crc32c.h"
#include "packet.h"

/* One end of a packet that changes: the address, and the port or what an ICMP echo has for one. */
struct change {
	union address address, was_address;
	__be16 port, was_port;
	bool source; /* the source, else the destination */
};

/* The checksum of SCTP covers all of its packet, so where only a part of it is here no port can change. */
INLINE bool keeps_ports(const struct flow *flow, __be16 was, __be16 port)
{
	return unlikely(flow->first_fragment) && flow->protocol == IPPROTO_SCTP && port != was;
}

#define ADDRESS_LENGTH(v6) ((v6) ? 16 : 4)
/* BPF_F_IPV6: a device's own sum over the whole packet stays as it is, as no IP header checksum makes up for the
 * change. Kernels before 6.16 do not know it, and refuse it before they change anything.
 */
#define CHECKSUM_IPV6 (1ULL << 7)
#define ICMP_CHECKSUM 2
#define ICMP_IDENTIFIER 4

INLINE __u32 address_offset(bool source, const bool v6)
{
	if (v6)
		return source ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr);
	return source ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr);
}

/* Where the transport header of the IP packet at `ip` begins, or 0. */
INLINE __u32 transport_offset(struct __sk_buff *skb, __u32 ip, const bool v6)
{
	if (v6) {
		struct extensions at = { .offset = ip + sizeof(struct ipv6hdr) };

		if (bpf_skb_load_bytes(skb, ip + offsetof(struct ipv6hdr, nexthdr), &at.protocol, 1) ||
		    (at.protocol != IPPROTO_TCP && at.protocol != IPPROTO_UDP && at.protocol != IPPROTO_ICMPV6 &&
		     skip_extensions(skb, &at)))
			return 0;
		return at.offset;
	} else {
		__u8 first;

		if (bpf_skb_load_bytes(skb, ip, &first, 1))
			return 0;
		return ip + (first & 0xf) * 4;
	}
}

/* The checksum of a transport header, 0 if the protocol has none that we know. */
INLINE __u32 checksum_offset(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return offsetof(struct tcphdr, check);
	case IPPROTO_UDP:
		return offsetof(struct udphdr, check);
	default:
		return ICMP_CHECKSUM;
	}
}

INLINE __u32 port_offset(__u8 protocol, bool source)
{
	if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6)
		return ICMP_IDENTIFIER;
	return source ? offsetof(struct ports, source) : offsetof(struct ports, destination);
}

/* The address in the IP header at `ip`, with that header's own checksum. */
INLINE int rewrite_address(struct __sk_buff *skb, __u32 ip, const struct change *change, const bool v6)
{
	if (!v6 &&
	    bpf_l3_csum_replace(skb, ip + offsetof(struct iphdr, check), change->was_address.v4, change->address.v4, 4))
		return -1;
	return bpf_skb_store_bytes(skb, ip + address_offset(change->source, v6), change->address.bytes,
				   ADDRESS_LENGTH(v6), 0);
}

/* Into a transport checksum, which covers the addresses too. */
INLINE int checksum_address(struct __sk_buff *skb, __u32 checksum, const struct change *change, __u64 flags,
			    const bool v6)
{
	if (v6) {
		__s64 sum = bpf_csum_diff((__be32 *)change->was_address.bytes, 16, (__be32 *)change->address.bytes, 16,
					  0);

		flags |= BPF_F_PSEUDO_HDR;
		if (!bpf_l4_csum_replace(skb, checksum, 0, sum, flags | CHECKSUM_IPV6))
			return 0;
		return bpf_l4_csum_replace(skb, checksum, 0, sum, flags);
	}
	return bpf_l4_csum_replace(skb, checksum, change->was_address.v4, change->address.v4,
				   flags | BPF_F_PSEUDO_HDR | 4);
}

/* Bytes from the transport header at `transport` to the end of the packet; 0 if its IP header says otherwise. */
INLINE __u32 transport_length(struct __sk_buff *skb, __u32 transport, const bool v6)
{
	const __u32 at = v6 ? offsetof(struct ipv6hdr, payload_len) : offsetof(struct iphdr, tot_len);
	__be16 length;
	__u32 end;

	if (bpf_skb_load_bytes(skb, ETH_HLEN + at, &length, sizeof(length)))
		return 0;
	end = ETH_HLEN + (v6 ? sizeof(struct ipv6hdr) : 0) + bpf_ntohs(length);
	return end > transport ? end - transport : 0;
}

/* One port in the transport header at `transport`, with the checksum that covers it. */
INLINE int rewrite_port(struct __sk_buff *skb, __u32 transport, __u8 protocol, bool source, __be16 was, __be16 port,
			__u64 flags, const bool v6)
{
	if (unlikely(protocol == IPPROTO_SCTP))
		return rewrite_sctp_port(skb, transport, transport_length(skb, transport, v6), source, was, port);
	return bpf_l4_csum_replace(skb, transport + checksum_offset(protocol), was, port, flags | 2) ||
	       bpf_skb_store_bytes(skb, transport + port_offset(protocol, source), &port, 2, 0);
}

/* The same straight in the packet, for the headers that nearly all packets have: TCP or UDP behind nothing but the
 * IP header. Checksums of the transport may be the device's to finish, so these are left to the helpers that know.
 * Returns 0 or not; 1: not such a packet, and it is as it was.
 */
INLINE int rewrite_in_place(struct __sk_buff *skb, const struct change *change, __u8 protocol, __u64 flags,
			    const bool v6)
{
	const __u32 transport = ETH_HLEN + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	__u32 checksum = transport + checksum_offset(protocol);
	struct ipv6hdr *ip6 = data + ETH_HLEN;
	struct iphdr *ip4 = data + ETH_HLEN;
	struct ports *ports;

	if (data + transport + sizeof(*ports) > data_end || (v6 ? ip6->nexthdr != protocol : ip4->ihl != 5))
		return 1;
	if (change->port != change->was_port &&
	    bpf_l4_csum_replace(skb, checksum, change->was_port, change->port, flags | 2))
		return -1;
	if (checksum_address(skb, checksum, change, flags, v6))
		return -1;
	data = (void *)(long)skb->data;
	data_end = (void *)(long)skb->data_end;
	ip6 = data + ETH_HLEN;
	ip4 = data + ETH_HLEN;
	ports = data + transport;
	if ((void *)(ports + 1) > data_end)
		return -1;
	if (change->source)
		ports->source = change->port;
	else
		ports->destination = change->port;
	if (v6) {
		__builtin_memcpy(change->source ? &ip6->saddr : &ip6->daddr, change->address.bytes, 16);
	} else {
		__u32 sum = (__u16)~ip4->check;

		sum += (__u16)~change->was_address.v4 + (__u16) ~(change->was_address.v4 >> 16);
		sum += (__u16)change->address.v4 + (__u16)(change->address.v4 >> 16);
		sum = (sum & 0xffff) + (sum >> 16);
		ip4->check = ~((sum & 0xffff) + (sum >> 16)); /* RFC 1624 */
		if (change->source)
			ip4->saddr = change->address.v4;
		else
			ip4->daddr = change->address.v4;
	}
	return 0;
}

/* One end of a packet. A later fragment has no transport header. Returns 0 or not. */
INLINE int rewrite(struct __sk_buff *skb, const struct change *change, __u8 protocol, bool later_fragment,
		   const bool v6)
{
	__u64 flags = protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	__u32 transport, checksum;

	if (likely(!later_fragment)) {
		if (likely(protocol == IPPROTO_TCP || protocol == IPPROTO_UDP)) {
			int done = rewrite_in_place(skb, change, protocol, flags, v6);

			if (likely(done <= 0))
				return done;
		}
		transport = transport_offset(skb, ETH_HLEN, v6);
		if (!transport)
			return -1;
		checksum = transport + checksum_offset(protocol);
		if (change->port != change->was_port &&
		    rewrite_port(skb, transport, protocol, change->source, change->was_port, change->port, flags, v6))
			return -1;
		/* The checksums of ICMP and SCTP cover no addresses, that of ICMPv6 does. */
		if (protocol != IPPROTO_ICMP && protocol != IPPROTO_SCTP &&
		    checksum_address(skb, checksum, change, flags, v6))
			return -1;
	}
	return rewrite_address(skb, ETH_HLEN, change, v6);
}

/* One end of the packet that an ICMP error quotes. Its transport checksum stays: it is there in part only, and nobody
 * looks at it. IPv4: what changes in the address, the quoted header's checksum makes up for, so the error's own covers
 * the port alone. Returns 0 or not.
 */
INLINE int rewrite_quoted(struct __sk_buff *skb, const struct change *change, __u8 protocol, const bool v6)
{
	__u32 error = transport_offset(skb, ETH_HLEN, v6), inner = error + ICMP_HEADER_LENGTH, transport;

	if (!error)
		return -1;
	transport = transport_offset(skb, inner, v6);
	if (!transport)
		return -1;
	if (change->port != change->was_port &&
	    (bpf_l4_csum_replace(skb, error + ICMP_CHECKSUM, change->was_port, change->port, 2) ||
	     bpf_skb_store_bytes(skb, transport + port_offset(protocol, change->source), &change->port, 2, 0)))
		return -1;
	if (v6) {
		__s64 sum = bpf_csum_diff((__be32 *)change->was_address.bytes, 16, (__be32 *)change->address.bytes, 16,
					  0);

		if (bpf_l4_csum_replace(skb, error + ICMP_CHECKSUM, 0, sum, 0))
			return -1;
	}
	return rewrite_address(skb, inner, change, v6);
}

/* One address of an ICMP error itself. Returns 0 or not. */
INLINE int rewrite_error(struct __sk_buff *skb, const struct change *change, const bool v6)
{
	__u32 error = transport_offset(skb, ETH_HLEN, v6);

	if (!error || (v6 && checksum_address(skb, error + ICMP_CHECKSUM, change, 0, v6)))
		return -1;
	return rewrite_address(skb, ETH_HLEN, change, v6);
}
