/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What one changed port does to the checksum of an SCTP packet (RFC 9260, appendix A), without reading the packet.
 *
 * CRC32c is linear: the checksum changes by the checksum of the difference, and that is the difference, a polynomial
 * over GF(2), times x^8 for every byte from there to the end. The lowest bit of a word is the highest power.
 */
#pragma once

#include "base.h"

#define CRC32C_POLYNOMIAL 0x82f63b78
#define CRC32C_X8 0x00800000 /* x^8 */
#define CRC32C_ONE 0x80000000
#define SCTP_CHECKSUM 8 /* its offset in the header */

/* The product of two polynomials. */
GLOBAL __u32 crc32c_multiply(__u32 one, __u32 other)
{
	__u32 product = 0;

	for (int i = 0; i < 32; i++) {
		product ^= other & -(one >> 31);
		one <<= 1;
		other = other >> 1 ^ (CRC32C_POLYNOMIAL & -(other & 1));
	}
	return product;
}

/* `difference` of the first four bytes of `length`, as it shows in the checksum; both as the packet has them. */
GLOBAL __u32 crc32c_difference(__u32 difference, __u32 length)
{
	__u32 power = CRC32C_X8, shift = CRC32C_ONE;

	for (int i = 0; i < 16; i++) {
		if (length >> i & 1)
			shift = crc32c_multiply(shift, power);
		power = crc32c_multiply(power, power);
	}
	return crc32c_multiply(difference, shift);
}

/* One port of the SCTP packet at `transport`, which is `length` bytes long. Returns 0 or not. A checksum of zero stays:
 * the device is to fill it in (net/sctp/output.c, sctp_packet_pack), or the receiver asks for none (RFC 9653).
 */
INLINE int rewrite_sctp_port(struct __sk_buff *skb, __u32 transport, __u32 length, bool source, __be16 was, __be16 port)
{
	const __u32 offset = source ? 0 : sizeof(port);
	__u32 checksum, difference = bpf_ntohl((__u32)bpf_ntohs(was ^ port) << (source ? 16 : 0));

	if (bpf_skb_load_bytes(skb, transport + SCTP_CHECKSUM, &checksum, sizeof(checksum)))
		return -1;
	if (checksum)
		checksum ^= crc32c_difference(difference, length);
	return bpf_skb_store_bytes(skb, transport + SCTP_CHECKSUM, &checksum, sizeof(checksum), 0) ||
	       bpf_skb_store_bytes(skb, transport + offset, &port, sizeof(port), 0);
}
