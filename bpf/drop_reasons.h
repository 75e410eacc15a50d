/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Why a packet was dropped: the only list. The Python names are generated from it, so keep one
 * reason per line. The number is the index of the counter: append, never insert, so that a running
 * agent and a newer program mean the same.
 */
#ifndef EPIC_DROP_REASONS_H
#define EPIC_DROP_REASONS_H

#define EPIC_DROP_REASONS(X)                                                                       \
	X(INSTANCE_UNKNOWN, "the interface or the inside address is no instance's")                \
	X(INSTANCE_PROTOCOL, "an instance sent something other than IP and ARP")                   \
	X(INSTANCE_SOURCE, "an instance sent from an address that is not its own")                 \
	X(INNER_HEADER, "the inner IP header is malformed")                                        \
	X(INNER_LENGTH, "the inner and the outer length disagree")                                 \
	X(INNER_SPOOFED, "the inner address is not the inside address of the tunnel")              \
	X(ENDPOINT_UNKNOWN, "the inner address is no endpoint that this tunnel serves")            \
	X(SOURCE_NOT_ENDPOINT, "a sender to an inside address is not its endpoint")                \
	X(TUNNEL_UNKNOWN, "there is no tunnel of this number")                                     \
	X(TUNNEL_UNRESOLVED, "the tunnel's far end was not heard of yet")                          \
	X(TUNNEL_ADDRESS, "the packet came to an address that is not the tunnel's local one")      \
	X(SERVICE_WRONG, "the service number is not the tunnel's")                                 \
	X(TAG_WRONG, "the tag fits no valid key")                                                  \
	X(KEY_MISSING, "the tunnel has no key to sign with")                                       \
	X(OUTER_FRAGMENT, "the encapsulated packet was fragmented")                                \
	X(OUTER_OPTIONS, "the outer IPv4 header has options")                                      \
	X(OUTER_LENGTH, "the outer IPv4, UDP and frame lengths disagree")                          \
	X(TRUNCATED, "the packet is too short for its headers")                                    \
	X(GUE_VERSION, "the GUE version is not 0")                                                 \
	X(GUE_HEADER_LENGTH, "the GUE header length is not the one of this kind of packet")        \
	X(GUE_FLAGS, "the GUE header has flags")                                                   \
	X(GUE_PROTOCOL, "the GUE payload is neither IPv4 nor IPv6")                                \
	X(CONTROL_TYPE, "the control packet is of a type that this end does not take")             \
	X(CONTROL_LENGTH, "the control packet has not the length of its type")                     \
	X(CONTROL_REPLAYED, "the control packet's counter is not higher than the last one")        \
	X(TOO_BIG, "the packet does not fit the underlay with its outer header")                   \
	X(CONGESTION, "congestion was marked on a packet whose sender cannot understand it")       \
	X(NO_ROOM, "the kernel could not add or remove the outer header")                          \
	X(CONTROL_FIELD, "the control packet has a lane or flag that does not exist")              \
	X(NO_SEGMENTER, "a GSO packet must be cut up and nothing is there for it")                 \
	X(OUTER_SOURCE, "the packet did not come from where the tunnel's far end is known to be")  \
	X(INSIDE_SOURCE, "a packet from an inside address was about to leave in the clear")        \
	X(INSIDE_VLAN, "a packet to an inside address was about to leave in a VLAN")               \
	X(ERROR_LIMIT, "more ICMP errors than one tunnel takes in another's name")                 \
	X(CHANCE_GATEWAY, "a packet was passed on to a node that knows no siblings of it")         \
	X(CHANCE_FIELD, "a packet was passed on under a header that no sibling writes")            \
	X(CHANCE_FLOW, "what was passed on is neither whole TCP nor an error about it")            \
	X(CHANCE_SIBLING, "a packet was passed on by somebody who is no sibling")                  \
	X(CHANCE_TAG, "the tag of a packet passed on fits no valid key")                           \
	X(CHANCE_BUDGET, "more packets of unknown flows than siblings are asked about")            \
	X(HELLO_LIMIT, "more hellos than one tunnel's workload node may say")                      \
	X(CHANCE_ROUTE, "there is no route to the sibling that a packet was to be passed on to")

enum drop_reason {
#define EPIC_DROP_REASON_NUMBER(name, text) DROP_##name,
	EPIC_DROP_REASONS(EPIC_DROP_REASON_NUMBER)
#undef EPIC_DROP_REASON_NUMBER
	DROP_REASONS,
};

#endif
