/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What second chance did with a gateway's packets: the only list. The Python names are generated
 * from it, so keep one counter per line. The number is the counter's place: append, never insert.
 */
#ifndef EPIC_CHANCE_COUNTERS_H
#define EPIC_CHANCE_COUNTERS_H

#define EPIC_CHANCE_COUNTERS(X)                                                                    \
	X(PASSED_ON, "packets of flows without a known owner passed on to a sibling")              \
	X(TO_OWNER, "packets passed straight on to the sibling that is known to have the flow")    \
	X(FORWARDED, "packets of other siblings passed on to the next one")                        \
	X(TAKEN, "packets passed on by a sibling whose socket is here")                            \
	X(LEARNED, "flows whose owner was learned")                                                \
	X(RETURNED, "packets that no sibling had a socket for, sent back to where they came in")   \
	X(FALLBACKS, "packets that fit no socket, given to the sibling that answers them best")    \
	X(CHAIN_ENDS, "packets that no sibling had a socket for, left to the instance here")       \
	X(OVER_BUDGET, "packets of unknown flows dropped because there were too many")             \
	X(ALONE, "packets without a socket here, left to it because no other sibling lives")       \
	X(STALE, "sockets found of which the packet shows that they are another connection's")     \
	X(FRAGMENTS, "fragments of TCP, which say no ports, left to the instance here")            \
	X(UNREADABLE, "packets with headers in front of TCP, left to the instance here")           \
	X(NO_ROUTE, "packets dropped because no route leads to the sibling that was to get them")

enum chance_counter {
#define EPIC_CHANCE_COUNTER_NUMBER(name, text) CHANCE_##name,
	EPIC_CHANCE_COUNTERS(EPIC_CHANCE_COUNTER_NUMBER)
#undef EPIC_CHANCE_COUNTER_NUMBER
	CHANCE_COUNTERS,
};

#endif
