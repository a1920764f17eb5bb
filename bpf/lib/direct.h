/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Direct server return: a client's packet goes on to the backend's host as the client sent it, and with it the address
 * and port that the client knows, so that the backend's answer leaves from there in the service's name.
 *
 * Whoever brings it there says both: in an option of the packet, or around it.
 */
#pragma once

#include "devices.h"
#include "direct_return.h"
#include "passage.h"
#include "translation.h"
#include "tunnels.h"

/* Stands for the backend where the flow is known by its other host only. */
#define BACKEND_HERE 0xffffffff

/* What the client knows, as it travels. */
struct front4 {
	__be16 port;
	__be32 address;
} __attribute__((packed));

struct front6 {
	__be16 port;
	__u16 pad;
	__u8 address[16];
} __attribute__((packed));

/* In an IPv4 packet, whose length it keeps a multiple of 4. The number is one for experiments, and is not copied to
 * fragments (RFC 4727, section 2.4).
 */
#define IPV4_OPTION_FRONT 0x1e

struct option4 {
	__u8 type;
	__u8 length;
	struct front4 front;
} __attribute__((packed));

/* In an IPv6 packet: destination options with this one alone (RFC 8200, section 4.6). The number is one for
 * experiments, and who does not know it skips it (RFC 4727, section 3.5).
 */
#define IPV6_OPTION_FRONT 0x1e

struct option6 {
	__u8 next;
	__u8 length; /* in units of 8 bytes, without the first */
	__u8 type;
	__u8 front_length;
	struct front6 front;
} __attribute__((packed));

/* In a Geneve header (RFC 8926, section 3.5): of the class for experiments, and who does not know it drops the packet.
 */
#define GENEVE_CLASS_FRONT 0xff01
#define GENEVE_TYPE_FRONT 0x81 /* critical */
#define GENEVE_HAS_CRITICAL 0x40 /* of the base header's flags */

struct geneve_front4 {
	__be16 class;
	__u8 type;
	__u8 length; /* of what follows, in units of 4 bytes */
	struct front4 front;
	__u16 pad;
} __attribute__((packed));

struct geneve_front6 {
	__be16 class;
	__u8 type;
	__u8 length;
	struct front6 front;
} __attribute__((packed));

/* What is known of the packet that this CPU is at: where it goes, or what its client knows. */
struct direct_way {
	union address front;
	union address backend;
	union address local; /* outer addresses */
	union address remote;
	__be16 front_port;
	__be16 backend_port;
	__u32 device; /* by which it leaves */
	__u32 mtu; /* of the client's packet, on its way */
	__u8 family; /* of the outer addresses: FAMILY_* */
	__u8 class; /* of the packet, and of what it is wrapped in */
	__u8 pad[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct direct_way);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} direct_way SEC(".maps");

INLINE struct direct_way *direct_way_of_packet(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&direct_way, &zero);
}

/* An address as far as its family goes; the rest is zeros. */
INLINE void set_address(union address *to, const union address *from, const bool v6)
{
	if (v6) {
		*to = *from;
		return;
	}
	to->v6[0] = to->v6[1] = 0;
	to->v4 = from->v4;
}
