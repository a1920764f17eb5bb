/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How large a packet that our programs wrap may be on its way to another address, as routers on that way have said
 * (RFC 1191, RFC 8201). The kernel remembers no such thing for us: it has no tunnel there.
 */
#pragma once

#include "base.h"

/* What every way carries as far as we believe: of IPv6 that is so (RFC 8200, section 5), of IPv4 it is where nodes are.
 * Less is not heard at all, as anybody may have said it: it would make each connection between two nodes slow.
 */
#define LEAST_MTU 1280

/* Ten minutes, in ticks (base.h): as the kernel has it (net.ipv4.route.mtu_expires). */
#define PATH_MTU_TICKS 559

struct path_mtu {
	__u32 mtu;
	__u32 expires; /* ticks */
};

/* By the outer packet's destination; of IPv4 it is the mapped address, ::ffff:0:0/96 (RFC 4291). Written and read by
 * the programs. Full: the least recently used goes, until a router tells it again.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, union address);
	__type(value, struct path_mtu);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} path_mtus SEC(".maps");

INLINE union address path_mtu_key(const void *remote, bool v6)
{
	union address key = {};

	if (v6) {
		__builtin_memcpy(key.bytes, remote, 16);
	} else {
		key.bytes[10] = key.bytes[11] = 0xff;
		__builtin_memcpy(key.bytes + 12, remote, 4);
	}
	return key;
}

/* What a packet may be in any case with `room` around it: a sender of IPv6 takes no size below 1280 to heart, one of
 * IPv4 does.
 */
INLINE __u32 least_wrapped(__u32 room, bool v6)
{
	return v6 ? LEAST_MTU + room : LEAST_MTU;
}

/* What is known of the way to an address, `mtu` where it is nothing smaller than that. */
INLINE __u32 said_of_path(const void *remote, __u32 mtu, __u32 now, bool v6)
{
	const union address key = path_mtu_key(remote, v6);
	const struct path_mtu *known = bpf_map_lookup_elem(&path_mtus, &key);

	return unlikely(known && !passed(now, known->expires) && known->mtu < mtu) ? known->mtu : mtu;
}

/* What a packet may be with what is wrapped around it: what the host's own route carries, or less where a router has
 * said so. `remote`: an address; `least`: what it may be in any case, so that no forged word stops the smallest ones.
 */
INLINE __u32 path_mtu(const void *remote, __u32 route_mtu, __u32 least, __u32 now, bool v6)
{
	__u32 said = said_of_path(remote, route_mtu, now, v6);

	return likely(said == route_mtu || said >= least) ? said : least < route_mtu ? least : route_mtu;
}

/* Remembers what a router says; it never makes a way wider, so that only time does (RFC 8201, section 4). */
INLINE void narrow_path(const void *remote, __u32 mtu, __u32 now, bool v6)
{
	const struct path_mtu fresh = { .mtu = mtu, .expires = now + PATH_MTU_TICKS };
	const union address key = path_mtu_key(remote, v6);

	if (mtu >= LEAST_MTU && said_of_path(remote, mtu, now, v6) == mtu)
		bpf_map_update_elem(&path_mtus, &key, &fresh, BPF_ANY);
}
