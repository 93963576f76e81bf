#!/usr/bin/env python3
"""Where keys belong on rings that the Python server wrote: the vectors that Larder is tested against.

Works out, apart from Larder and from the Python pair, which node each of a few hundred keys belongs to: by the
rule of the Python SDK (positions sorted as text) and by the true next position (sorted as numbers).

    python3 scripts/placement_vectors.py > tests/vectors/placement.json
    python3 scripts/placement_vectors.py --check tests/vectors/placement.json

The output is one JSON object: `keys`, a list of strings, and `maps`, each with

    name      what the map stands for
    nodes     urls, in the order in which the server was given them
    per_node  positions a node, or null if the positions are not the server's
    fields    the Redis hash HASH_RING_MAP: pairs of a field and the index of its url in `nodes`
    sdk       one digit for each key: the index of its node by the SDK's rule
    numeric   the same by the true next position

Needs Python 3.6 and its standard library alone.
"""

import argparse
import json
import sys
from bisect import bisect_right
from itertools import zip_longest
from zlib import crc32

PER_NODE = 5

NODES = [
    "redis://:pw@127.0.0.1:7001/0",
    "redis://127.0.0.1:7002/0",
    "redis://127.0.0.1:7003/0",
    "redis://user:p%40ss@10.1.2.3:6379/4",
    "redis://cache-5.example.org:6379/0",
    "redis://cache-6.example.org:6379/13",
    "redis://[::1]:6379/0",
    "rediss://:geheim@cache-8.example.org:6380/1",
]

# "plumless" and "buckeroo" have the same CRC-32, so the first two of these meet on every position.
MEETING = ["redis://plumless:6379/0", "redis://buckeroo:6379/0", "redis://127.0.0.1:7003/0"]


def key_hash(key):
    return crc32(key.encode("utf-8"))


def make_keys():
    """Plain keys of several shapes, and those whose hash is at, before and behind a position of `edge_map`."""
    keys = ["", " ", "0", "a", "A", "\n", "\t x", "\"", "\\", "a b", "{user:1}:name", "lk:x", "%s_vnode%d"]
    keys += ["user:%d" % i for i in range(150)]
    keys += ["session/%08x/%d" % (i * 2654435761 % 2**32, i) for i in range(60)]
    keys += ["flask_cache_view//items/%d?page=%d" % (i, i % 7) for i in range(30)]
    keys += ["\u00fcber:%d" % i for i in range(10)]
    keys += ["\u952e:%d" % i for i in range(10)]
    keys += ["\U0001f511%d" % i for i in range(10)]
    keys += ["e\u0301", "\u00e9", "\u202eabc", "\ufeff", "\x00", "a\x00b", "\uffff", "\U0010ffff"]
    keys += ["x" * n for n in (15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 1000, 5000)]
    return keys + edge_keys()


def edge_keys():
    return ["edge:%d" % i for i in range(24)]


def server_map(nodes):
    """The map as the server makes it: a node that comes later takes a position that two meet on."""
    return {str(key_hash("%s_vnode%d" % (node, i))): node for node in nodes for i in range(PER_NODE)}


def edge_map(nodes):
    """Positions that are the hash of a key, one less or one more, and both ends of the range."""
    positions = [0, 5, 10**9 - 1, 10**9, 2**32 - 1]
    positions += [key_hash(key) + i % 3 - 1 for i, key in enumerate(edge_keys())]
    return {str(position): nodes[i % len(nodes)] for i, position in enumerate(positions)}


def healed(fields):
    """The map as Larder's manager publishes it: what has fewer than ten digits comes zero-padded as well."""
    return {spelling: node for field, node in fields.items() for spelling in (field, field.zfill(10))}


def sdk_node(fields, key):
    """Fields in text order; the first whose number is greater; looked up again as that number prints."""
    target = key_hash(key)
    in_text_order = sorted(fields)
    greater = (int(field) for field in in_text_order if int(field) > target)
    found = next(greater, None)
    return fields[in_text_order[0] if found is None else str(found)]


def numeric_node(fields, key):
    """The smallest position greater than the hash, past the end the smallest of all."""
    by_number = {int(field): node for field, node in fields.items()}
    positions = sorted(by_number)
    return by_number[positions[bisect_right(positions, key_hash(key)) % len(positions)]]


def entry(name, nodes, fields, keys, per_node):
    def owners(rule):
        return "".join(str(nodes.index(rule(fields, key))) for key in keys)

    return {
        "name": name,
        "nodes": nodes,
        "per_node": per_node,
        "fields": [[field, nodes.index(node)] for field, node in fields.items()],
        "sdk": owners(sdk_node),
        "numeric": owners(numeric_node),
    }


def make_vectors():
    keys = make_keys()
    plain = [("server_%d" % n, NODES[:n], server_map(NODES[:n]), PER_NODE) for n in (1, 2, 3, 4, 8)]
    plain.append(("meeting", MEETING, server_map(MEETING), PER_NODE))
    plain.append(("edges", NODES[:4], edge_map(NODES[:4]), None))
    maps = []
    for name, nodes, fields, per_node in plain:
        maps.append(entry(name, nodes, fields, keys, per_node))
        maps.append(entry(name + "_healed", nodes, healed(fields), keys, per_node))
        if maps[-1]["sdk"] != maps[-1]["numeric"] or maps[-1]["numeric"] != maps[-2]["numeric"]:
            sys.exit("placement: healing does not heal the map " + name)
    return {"keys": keys, "maps": maps}


def text_of(vectors):
    """One line for the keys and one for each map, so that a difference is easy to see."""

    def compact(value):
        return json.dumps(value, separators=(",", ":"))

    maps = ",\n".join(compact(one) for one in vectors["maps"])
    return '{"keys":%s,\n"maps":[\n%s\n]}\n' % (compact(vectors["keys"]), maps)


def check(path, text):
    try:
        with open(path, encoding="utf-8") as file:
            committed = file.read()
    except (OSError, UnicodeDecodeError) as error:
        sys.exit("placement: cannot read %s: %s" % (path, error))
    if committed == text:
        return
    pairs = zip_longest(committed.splitlines(), text.splitlines())
    line = next((number for number, (one, other) in enumerate(pairs, 1) if one != other), "end of file")
    sys.exit("placement: %s differs from what this script works out (line: %s)" % (path, line))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", metavar="FILE", help="compare with FILE; exit 1 if it differs")
    arguments = parser.parse_args()
    text = text_of(make_vectors())
    if arguments.check:
        check(arguments.check, text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
