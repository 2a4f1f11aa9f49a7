"""Questions to an authoritative server through dnspython, checked rule by rule. Usage: rules_of_dns.py ADDRESS PORT

The zone is the one that `tests/conformance/dns.rs` serves. Prints a line for each rule that does not hold; status 1 if any.
"""

import socket
import struct
import sys

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype

ADDRESS, PORT = sys.argv[1], int(sys.argv[2])
failures = []


def check(rule, holds, seen=""):
    if not holds:
        failures.append(f"{rule}: {seen}")


def ask(name, kind="A", **options):
    query = dns.message.make_query(name, kind, **options)
    return dns.query.udp(query, ADDRESS, port=PORT, timeout=20)


def raw(octets):
    """One datagram; the answer's octets, or None if there is none in a moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.settimeout(1.0)
        asked.sendto(octets, (ADDRESS, PORT))
        try:
            return asked.recv(4096)
        except TimeoutError:
            return None


def code(answer):
    return dns.rcode.to_text(answer.rcode())


def authority(answer):
    return [dns.rdatatype.to_text(rrset.rdtype) for rrset in answer.authority]


# RFC 1034 §4.3.2, RFC 2308 §2, RFC 4592 §2.2.2, RFC 8020.
for rule, name, kind, expected, sections in [
    ("a set", "n1.z.test", "A", "NOERROR", (1, [], 0)),
    ("NODATA has the SOA", "n1.z.test", "MX", "NOERROR", (0, ["SOA"], 0)),
    ("NXDOMAIN has the SOA", "none.z.test", "A", "NXDOMAIN", (0, ["SOA"], 0)),
    ("an empty non-terminal is there", "b.c.z.test", "A", "NOERROR", (0, ["SOA"], 0)),
    ("below what is not there", "x.y.none.z.test", "A", "NXDOMAIN", (0, ["SOA"], 0)),
    ("a wildcard", "any.w.z.test", "A", "NOERROR", (1, [], 0)),
    ("a wildcard's missing type", "any.w.z.test", "TXT", "NOERROR", (0, ["SOA"], 0)),
    ("no wildcard beside a name", "x.own.w.z.test", "A", "NXDOMAIN", (0, ["SOA"], 0)),
    ("an alias", "alias.z.test", "A", "NOERROR", (2, [], 0)),
    ("an alias to nothing", "dangling.z.test", "A", "NXDOMAIN", (1, ["SOA"], 0)),
    ("an alias to elsewhere", "far.z.test", "A", "NOERROR", (1, [], 0)),
    ("a delegation", "host.sub.z.test", "A", "NOERROR", (0, ["NS"], 1)),
    ("a delegation's DS", "sub.z.test", "DS", "NOERROR", (0, ["SOA"], 0)),
    ("not ours", "example.org", "A", "REFUSED", (0, [], 0)),
    ("a reverse name", "1.0.0.10.in-addr.arpa", "PTR", "NOERROR", (1, [], 0)),
    ("a type without a name", "n1.z.test", "TYPE65280", "NOERROR", (0, ["SOA"], 0)),
]:
    answer = ask(name, kind)
    seen = (len(answer.answer), authority(answer), len(answer.additional))
    check(rule, code(answer) == expected and seen == sections, f"{code(answer)} {seen}")
    is_ours = rule not in ("not ours", "a delegation")
    check(f"{rule}, AA", bool(answer.flags & dns.flags.AA) == is_ours, answer.flags)
    check(f"{rule}, RA", not answer.flags & dns.flags.RA, answer.flags)

# RFC 2308 §5: the least of SOA's lifetime and minimum.
check("negative lifetime", ask("none.z.test").authority[0].ttl == 30)
# RFC 8482: no more than a part of what there is.
check("ANY is minimal", len(ask("n1.z.test", "ANY").answer) == 1)
# Letters come back as they were sent.
answer = ask("nOnE.Z.tEsT")
check("0x20", answer.question[0].name.to_text() == "nOnE.Z.tEsT.", answer.question[0].name)
# RFC 1035 §4.1.1: recursion desired is repeated.
check("RD", bool(ask("n1.z.test").flags & dns.flags.RD))

# RFC 6891, RFC 8906 §8.2: versions, unknown options and flags, sizes.
answer = ask("n1.z.test", use_edns=0)
check("EDNS is answered with EDNS", answer.edns == 0 and answer.payload == 1232, answer)
check("no EDNS without", ask("n1.z.test", use_edns=False).edns == -1)
# Written out: not every release of dnspython asks with a version that it does not speak.
plain = dns.message.make_query("n1.z.test", "A").to_wire()
seen = raw(plain[:10] + b"\0\1" + plain[12:] + b"\0\0\x29\x04\xd0\0\1\0\0\0\0")
check("BADVERS", seen[3] & 15 == 0 and seen[-6:-4] == b"\1\0" and seen[6:8] == b"\0\0", seen)
unknown = [dns.edns.GenericOption(100, b"abc")]
answer = ask("n1.z.test", use_edns=0, options=unknown)
check("an unknown option is ignored", code(answer) == "NOERROR" and not answer.options, answer)
answer = ask("n1.z.test", use_edns=0, ednsflags=0x0080)
check("an unknown flag is not repeated", answer.ednsflags == 0, answer.ednsflags)
answer = ask("n1.z.test", want_dnssec=True)
check("DO is repeated", answer.ednsflags == dns.flags.DO, answer.ednsflags)
check("512 octets without EDNS", ask("big.z.test", "TXT", use_edns=False).flags & dns.flags.TC)
check("a size below 512 is 512", not ask("n1.z.test", use_edns=0, payload=100).flags & dns.flags.TC)
check("never above 1,232", ask("big.z.test", "TXT", use_edns=0, payload=4096).flags & dns.flags.TC)

# RFC 7873: a cookie is answered with one, which is taken back.
cookie = dns.edns.GenericOption(10, b"12345678")
answer = ask("n1.z.test", use_edns=0, options=[cookie])
both = answer.options[0].to_wire() if answer.options else b""
check("a cookie", both[:8] == b"12345678" and len(both) == 24, both)
again = ask("n1.z.test", use_edns=0, options=[dns.edns.GenericOption(10, both)])
check("the same cookie", again.options[0].to_wire() == both)
for length in (1, 7, 9, 15, 41):
    bad = dns.edns.GenericOption(10, bytes(length))
    check(f"a cookie of {length}", code(ask("n1.z.test", use_edns=0, options=[bad])) == "FORMERR")

# RFC 8906 §3: what must be answered, and how; RFC 9267: names that mislead.
good = dns.message.make_query("n1.z.test", "A").to_wire()


def changed(at, octets):
    return good[:at] + octets + good[at + len(octets) :]


for rule, octets, expected in [
    ("opcode IQUERY", changed(2, b"\x08"), 4),
    ("opcode NOTIFY", changed(2, b"\x20"), 4),
    ("opcode UPDATE", changed(2, b"\x28"), 4),
    ("opcode 15", changed(2, b"\x78"), 4),
    ("no question", changed(4, b"\0\0"), 1),
    ("two questions", changed(4, b"\0\2"), 1),
    ("an answer in a question", changed(6, b"\0\1"), 1),
    ("a name to itself", changed(12, b"\xc0\x0c"), 1),
    ("a name forwards", changed(12, b"\xc0\x20"), 1),
    ("a name into the header", changed(12, b"\xc0\0"), 1),
    ("a name beyond the end", changed(12, b"\xff\xff"), 1),
    ("a reserved label", changed(12, b"\x40"), 1),
    ("a label beyond the end", changed(12, b"\x3f"), 1),
    ("octets behind the end", good + b"x", 1),
    ("cut short", good[:-1], 1),
    ("class CHAOS", good[:-2] + b"\0\3", 5),
    ("a transfer", good[:-4] + b"\0\xfc\0\1", 5),
    ("unknown flags", changed(3, b"\x70"), 0),
    ("AA, TC and RA set", changed(2, b"\x07\x80"), 0),
]:
    seen = raw(octets)
    check(rule, seen is not None and seen[3] & 15 == expected and seen[:2] == octets[:2], seen)
    check(f"{rule}, no longer than needed", seen is None or expected == 0 or len(seen) <= len(octets), seen)
for rule, octets in [("a response", changed(2, b"\x80")), ("a short one", good[:11]), ("nothing", b"")]:
    check(f"{rule} is not answered", raw(octets) is None)
long = b"".join(struct.pack("B", 63) + b"a" * 63 for _ in range(4)) + b"\0"
check("a name of 257 octets", raw(good[:12] + long + good[-4:])[3] & 15 == 1)

print("\n".join(failures))
sys.exit(1 if failures else 0)
