/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What every other header stands on: kernel types, helpers, and the load-time options. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define INLINE static __always_inline
#define NOINLINE static __attribute__((noinline, unused))
#define GLOBAL __attribute__((noinline)) /* the verifier checks it once, for any arguments */
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* An option that user space sets before loading: the verifier knows its value, so what it turns off costs nothing. */
#define OPTION(type, name, default_value) const volatile type name = default_value

#define FAMILY_IPV4 2 /* AF_INET; <sys/socket.h> is not for programs */
#define FAMILY_IPV6 10 /* AF_INET6 */

/* Address of either family; which one it is, the caller knows. */
union address {
	__be32 v4;
	__u64 v6[2];
	__u8 bytes[16];
};

struct address6 {
	__u8 bytes[16];
};

/* How long a tick of the kernel's timer is (TICK_NSEC, linux/jiffies.h). */
OPTION(__u32, jiffy_ns, 4000000);

/* The kernel counts its ticks so that they pass 2^32 five minutes after boot (INITIAL_JIFFIES, linux/jiffies.h). */
#define JIFFIES_THEN (1ULL << 32)
#define NS_THEN 300000000000ULL

/* Nanoseconds since boot, as of the kernel's last tick: CLOCK_MONOTONIC less what boot took before ticks were counted
 * (reconciler/bpf/clock.py). A load and a product, where a call of any clock takes 15 to 30 ns of each packet.
 */
INLINE __u64 clock_ns(void)
{
	return (bpf_jiffies64() - JIFFIES_THEN) * jiffy_ns + NS_THEN;
}

/* Time in ticks of 2^30 ns (1.07 s): no division on the way of a packet. */
INLINE __u32 ticks_now(void)
{
	return clock_ns() >> 30;
}

INLINE bool passed(__u32 now, __u32 deadline)
{
	return (__s32)(now - deadline) > 0;
}
