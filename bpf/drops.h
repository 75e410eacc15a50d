/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR Apache-2.0 */
/* Why packets are dropped: the one list, from which the agent's names are generated. */
#pragma once

/* X(name, what it means); append only, the position is the index in the map `drops`. */
#define DROP_REASONS(X)                                                                            \
	X(NOT_CONFIGURED, "the interface is no instance's (fail closed)")                          \
	X(NOT_IPV4, "an instance sent neither IPv4 nor ARP")                                       \
	X(SPOOFED_SOURCE, "an instance sent from an address that is not its own")                  \
	X(NO_ENDPOINT, "no tunnel leads to the destination")                                       \
	X(NO_TUNNEL, "the tunnel of the endpoint is gone")                                         \
	X(UNRESOLVED, "the other end's address is not known yet")                                  \
	X(TOO_BIG, "the packet does not fit into the underlay's MTU")                              \
	X(ENCAP_FAILED, "the kernel could not make room for the tunnel's headers")                 \
	X(FRAGMENT, "a tunnel packet arrived in fragments")                                        \
	X(TRUNCATED, "a tunnel packet is shorter than it says")                                    \
	X(BAD_VERSION, "not GUE version 0")                                                        \
	X(BAD_HEADER, "header length, type or flags are none that EPIC sends")                     \
	X(UNKNOWN_TUNNEL, "no tunnel has this id")                                                 \
	X(WRONG_SERVICE, "the service is not the tunnel's")                                        \
	X(BAD_TAG, "the tag of a data packet is wrong")                                            \
	X(BAD_INNER, "the inner packet is malformed")                                              \
	X(FOREIGN_ENDPOINT, "the inner addresses are not of this tunnel")                          \
	X(DECAP_FAILED, "the kernel could not take the tunnel's headers away")                     \
	X(CONTROL_BAD_TAG, "the tag of a control packet is wrong")                                 \
	X(CONTROL_REPLAYED, "the counter of a control packet did not rise")                        \
	X(CONTROL_UNEXPECTED, "a control packet of a type that this end does not take")

#define DROP_ENUM(name, text) DROP_##name,
enum drop_reason {
	DROP_REASONS(DROP_ENUM) DROP_REASON_COUNT
};
#undef DROP_ENUM
