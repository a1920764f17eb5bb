/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which addresses clients outside may have. */
#pragma once

#include "ipcache.h"

/* Whether somebody elsewhere may have an address. What comes in from any other is forged, and its answers would go to
 * this host itself or to whole groups; of IPv4 the stack refuses most of that (martians), of IPv6 little.
 */
INLINE bool is_elsewhere(const union address *address, __u32 epoch, const bool v6)
{
	if (v6) {
		/* ::/64 with :: and ::1, what is of one link, and multicast (RFC 4291) */
		if (!address->v6[0] || address->bytes[0] == 0xff ||
		    (address->bytes[0] == 0xfe && address->bytes[1] >= 0x80 && address->bytes[1] < 0xc0))
			return false;
	} else if (!address->bytes[0] || address->bytes[0] == 127 || address->bytes[0] >= 224) { /* RFC 6890 */
		return false;
	}
	return !(find_peer(address, v6, epoch).flags & IPCACHE_HOST);
}
