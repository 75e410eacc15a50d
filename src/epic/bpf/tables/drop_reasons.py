# SPDX-License-Identifier: Apache-2.0
"""Why a packet was dropped: generated from bpf/drop_reasons.h by bpf/generate_names."""

from __future__ import annotations

from typing import Final

DROP_REASONS: Final[tuple[tuple[str, str], ...]] = (
    ("instance_unknown", "the interface or the inside address is no instance's"),
    ("instance_protocol", "an instance sent something other than IP and ARP"),
    ("instance_source", "an instance sent from an address that is not its own"),
    ("inner_header", "the inner IP header is malformed"),
    ("inner_length", "the inner and the outer length disagree"),
    ("inner_spoofed", "the inner address is not the inside address of the tunnel"),
    ("endpoint_unknown", "the inner address is no endpoint that this tunnel serves"),
    ("source_not_endpoint", "a sender to an inside address is not its endpoint"),
    ("tunnel_unknown", "there is no tunnel of this number"),
    ("tunnel_unresolved", "the tunnel's far end was not heard of yet"),
    ("tunnel_address", "the packet came to an address that is not the tunnel's local one"),
    ("service_wrong", "the service number is not the tunnel's"),
    ("tag_wrong", "the tag fits no valid key"),
    ("key_missing", "the tunnel has no key to sign with"),
    ("outer_fragment", "the encapsulated packet was fragmented"),
    ("outer_options", "the outer IPv4 header has options"),
    ("outer_length", "the outer IPv4, UDP and frame lengths disagree"),
    ("truncated", "the packet is too short for its headers"),
    ("gue_version", "the GUE version is not 0"),
    ("gue_header_length", "the GUE header length is not the one of this kind of packet"),
    ("gue_flags", "the GUE header has flags"),
    ("gue_protocol", "the GUE payload is neither IPv4 nor IPv6"),
    ("control_type", "the control packet is of a type that this end does not take"),
    ("control_length", "the control packet has not the length of its type"),
    ("control_replayed", "the control packet's counter is not higher than the last one"),
    ("too_big", "the packet does not fit the underlay with its outer header"),
    ("congestion", "congestion was marked on a packet whose sender cannot understand it"),
    ("no_room", "the kernel could not add or remove the outer header"),
    ("control_field", "the control packet has a lane or flag that does not exist"),
    ("no_segmenter", "a GSO packet must be cut up and nothing is there for it"),
    ("outer_source", "the packet did not come from where the tunnel's far end is known to be"),
    ("inside_source", "a packet from an inside address was about to leave in the clear"),
    ("inside_vlan", "a packet to an inside address was about to leave in a VLAN"),
    ("error_limit", "more ICMP errors than one tunnel takes in another's name"),
    ("chance_gateway", "a packet was passed on to a node that knows no siblings of it"),
    ("chance_field", "a packet was passed on under a header that no sibling writes"),
    ("chance_flow", "what was passed on is neither whole TCP nor an error about it"),
    ("chance_sibling", "a packet was passed on by somebody who is no sibling"),
    ("chance_tag", "the tag of a packet passed on fits no valid key"),
    ("chance_budget", "more packets of unknown flows than siblings are asked about"),
    ("hello_limit", "more hellos than one tunnel's workload node may say"),
    ("chance_route", "there is no route to the sibling that a packet was to be passed on to"),
)
"""Name and meaning of each; the position is the counter's index."""
