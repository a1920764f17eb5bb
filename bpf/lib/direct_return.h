/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Whether backends of other hosts answer clients outside themselves, and how a client's packet gets there (direct.h).
 */
#pragma once

#include "base.h"

enum direct_return {
	DIRECT_NONE = 0, /* not at all: answers come back the way that the packet took */
	DIRECT_OPTION = 1, /* for the backend; what the client knows is in an IP option of what opens a flow */
	DIRECT_IPIP = 2, /* as it came, wrapped for the backend, whose port is in the outer header */
	DIRECT_GENEVE = 3, /* for the backend, wrapped; what the client knows is in an option of the wrapping */
};

OPTION(__u8, direct_return, DIRECT_NONE);

/* UDP port of what is wrapped in Geneve on its way to a backend. */
OPTION(__u16, direct_port, 6081);
