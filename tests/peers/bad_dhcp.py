"""Sends bad DHCP and ARP frames from an interface, built by scapy, and good ones in between.

    bad_dhcp.py INTERFACE GATEWAY RELAY OUTSIDE

Prints one JSON object: how many frames each of the daemon's counters has to have counted, and the address that a client got after
them. Ends with an error if anything bad was answered, or a good client was not.
"""

import collections
import json
import socket
import sys
import time

from scapy.all import ARP, BOOTP, DHCP, IP, UDP, Ether, Raw, get_if_hwaddr

interface, gateway, relay, outside = sys.argv[1:]
mac = get_if_hwaddr(interface)
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind((interface, 0))
expected = collections.Counter()
number = 0x1000


def client(n=1):
    return bytes([2, 0, 0, 0, 1, n])


def ether(to="ff:ff:ff:ff:ff:ff"):
    return Ether(src=mac, dst=to)


def message(options=(("message-type", "discover"),), ip=None, udp=None, cookie=b"c\x82Sc", padding=b"", **bootp):
    """A whole frame; every argument spoils something."""
    global number
    number += 1
    fields = dict(op=1, xid=number, chaddr=client())
    fields.update(bootp)
    options = options if isinstance(options, bytes) else bytes(DHCP(options=[*options, "end"]))
    packet = IP(**{"src": "0.0.0.0", "dst": "255.255.255.255", **(ip or {})})
    packet = packet / UDP(**{"sport": 68, "dport": 67, **(udp or {})})
    # What scapy calls options is the cookie.
    return bytes(ether() / packet / BOOTP(options=cookie, **fields) / Raw(options + padding))


def answers(seconds, xid=None):
    """What the server says within some time, or until it answers `xid`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        wire.settimeout(max(0.001, end - time.monotonic()))
        try:
            frame = wire.recv(4096)
        except TimeoutError:
            return
        packet = Ether(frame)
        if BOOTP in packet and packet[BOOTP].op == 2 and packet[IP].src == gateway:
            if xid in (None, packet[BOOTP].xid):
                yield packet
                if xid is not None:
                    return


def kind(packet):
    return next(option[1] for option in packet[DHCP].options if option[0] == "message-type")


def bad(counter, frame):
    expected[counter] += 1
    wire.send(frame)


def good(counter, what, frame, seconds=5):
    """A frame that is answered with a message of this type."""
    expected[counter] += 1
    wire.send(frame)
    for packet in answers(seconds, Ether(frame)[BOOTP].xid):
        if kind(packet) == what:
            return packet
    sys.exit(f"no answer of type {what} to {Ether(frame)!r}")


def type_is(name, *more):
    return (("message-type", name), *more)


def exchange(n):
    """The address that a good client gets."""
    offer = good("dhcp_offers", 2, message(chaddr=client(n)))
    address = offer[BOOTP].yiaddr
    request = message(type_is("request", ("server_id", gateway), ("requested_addr", address)), chaddr=client(n))
    assert good("dhcp_acks", 5, request)[BOOTP].yiaddr == address
    return address


held = exchange(77)

# Messages.
bad("dhcp_too_short", bytes(ether() / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / Raw(b"\1\1\6\0" * 20)))
bad("dhcp_too_short", bytes(ether() / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67)))
bad("dhcp_no_cookie", message(cookie=b"cccc"))
bad("dhcp_no_cookie", message(cookie=b"\0\0\0\0"))
for options in (b"\x35\xff\x01", b"\x35\x01\x01\x0c", b"\x35\x01\x01\x0c\xc8abc", b"\x35\x01\x01\x34\x01\x03\xff"):
    spoilt = {"sname": b"\x0c\xff" * 32, "file": b"\x0c\xff" * 64} if b"\x34" in options else {}
    bad("dhcp_bad_option", message(options, **spoilt))
for options in (b"\xff", b"\x00" * 60, b"\x35\x00\xff", b"\x35\x01\x63\xff", b"\x35\x02\x01\x01\xff"):
    bad("dhcp_bad_type", message(options))
for name in ("offer", "ack", "nak"):
    bad("dhcp_bad_type", message(type_is(name)))
for op in (0, 2, 255):
    bad("dhcp_not_a_request", message(op=op))
for hardware in ({"hlen": 0}, {"hlen": 16}, {"hlen": 255}, {"htype": 0}, {"htype": 32}):
    bad("dhcp_not_ethernet", message(**hardware))
for chaddr in (b"\xff" * 6, b"\1\0\x5e\0\0\1", b"\0" * 6):
    bad("dhcp_bad_address", message(chaddr=chaddr))

# Packets.
bad("dhcp_bad_checksum", message(udp={"chksum": 0x1234}))
bad("dhcp_bad_checksum", message(ip={"chksum": 0x1234}))
bad("dhcp_fragment", message(ip={"flags": "MF"}))
for udp in ({"len": 4}, {"len": 4000}):
    bad("dhcp_bad_packet", message(udp=udp))
for ip in ({"len": 4000}, {"len": 22}):
    bad("dhcp_bad_packet", message(ip=ip))
wire.send(message(ip={"frag": 100}))

# Who is meant.
bad("dhcp_foreign_relay", message(giaddr=outside))
bad("dhcp_foreign_relay", message(giaddr="255.255.255.255"))
bad("dhcp_foreign_relay", message(giaddr=gateway))
bad("dhcp_elsewhere", message(ip={"dst": outside}))
bad("dhcp_elsewhere", message(ip={"dst": "224.0.0.1"}))
bad("dhcp_other_server", message(type_is("request", ("server_id", outside), ("requested_addr", held))))
bad("dhcp_contradictory", message(type_is("request")))
bad("dhcp_contradictory", message(type_is("request", ("server_id", gateway))))
bad("dhcp_contradictory", message(type_is("request", ("requested_addr", held)), ciaddr=relay))
bad("dhcp_contradictory", message(type_is("inform"), ciaddr=outside))
for name in ("release", "decline"):
    for server in (gateway, outside):
        options = type_is(name, ("server_id", server), ("requested_addr", held))
        bad("dhcp_ignored", message(options, ciaddr=held, chaddr=client(66)))

# ARP.
whole = bytes(ether() / ARP(op=1, hwsrc=mac, psrc=relay, pdst=gateway))
bad("arp_malformed", whole[:30])
for at, value in ((15, 7), (17, 0xDD), (18, 0), (19, 16)):
    bad("arp_malformed", whole[:at] + bytes([value]) + whole[at + 1 :])
for sender in ("ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "00:00:00:00:00:00"):
    bad("arp_bad_address", bytes(ether() / ARP(op=2, hwsrc=sender, psrc=held, hwdst=mac, pdst=held)))
# Nobody loses what he has by such a claim.
for operation in (1, 2):
    bad("arp_heard", bytes(ether() / ARP(op=operation, hwsrc=mac, psrc=held, pdst=held)))

for packet in answers(0.5):
    sys.exit(f"answered: {packet!r}")

# Odd, and to be served.
good("dhcp_offers", 2, message(b"\x35\x01\x01" + b"\x0c\xfa" + b"x" * 250 + b"\x0c\xfa" + b"y" * 250 + b"\x37\xff" + bytes(range(255)) + b"\xff"))
good("dhcp_offers", 2, message(b"\x35\x01\x01\x34\x01\x09\xff"))
good("dhcp_offers", 2, message(b"\x34\x01\x01\xff", file=b"\x35\x01\x01\xff"))
good("dhcp_offers", 2, message(padding=b"\0" * 900))
good("dhcp_offers", 2, message(b"\x35\x01\x01\x39\x02\x00\x00\xff"))
served = good("dhcp_offers", 2, message(giaddr=relay, ip={"src": relay, "dst": gateway}))
assert (served[IP].dst, served[UDP].dport) == (relay, 67), served
wrong = good("dhcp_naks", 6, message(type_is("request", ("requested_addr", outside))))
assert (wrong.dst, wrong[IP].dst) == ("ff:ff:ff:ff:ff:ff", "255.255.255.255"), wrong
renewed = good("dhcp_acks", 5, message(type_is("request"), ciaddr=held, chaddr=client(77)))
assert renewed[BOOTP].yiaddr == held, renewed
print(json.dumps({"expected": expected, "address": exchange(1)}))
