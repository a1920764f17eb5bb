/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What becomes of a packet at a node device, where it neither goes on (0) nor is dropped for a reason (above 0). */
#pragma once

enum served {
	NOT_TRANSLATED = -1, /* it is as it was */
	NOT_KNOWN = -2, /* the same, and its flow is to begin */
	UNSERVED = -3, /* the service has no backend, or the flow's is dead, and its client is told */
	SENT = -4, /* it is on its way */
	TOO_LARGE = -5, /* it does not fit the way, and its sender is told */
	BEGINS_AGAIN = -6, /* its flow is known, and ends */
	WAY_KNOWN = -7, /* its flow is forwarded, and its own way is known */
};
