#!/usr/bin/env python3
"""Makes protobuf.tsv.gz: which field number of which message is which JSON field.

Usage: protobuf.py PROTOBUF_FIELDS_TSV API_DIR APIMACHINERY_DIR APIEXTENSIONS_DIR

The first lists package, message, number, name, label and type of every field of the published .proto files. The others
are checkouts of kubernetes/{api,apimachinery,apiextensions-apiserver}: the tags in their types.go tell what JSON
calls a field, whether it is inlined, and whether it is a pointer (so that a zero means something).
"""
import collections, gzip, os, re, sys

rows, api, machinery, extensions = sys.argv[1:5]
SHORT = {
    "k8s.io.apimachinery.pkg.apis.meta.v1": "meta.v1",
    "k8s.io.apimachinery.pkg.api.resource": "quantity",
    "k8s.io.apimachinery.pkg.runtime": "runtime",
    "k8s.io.apimachinery.pkg.util.intstr": "intstr",
    "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1": "apiextensions.v1",
    "k8s.io.kube_aggregator.pkg.apis.apiregistration.v1": "apiregistration.v1",
}
SCALARS = {"string", "bytes", "bool", "int32", "int64", "double"}
# Not in the checkouts: the pointers of apiregistration and meta that their tags would have told.
OTHER_POINTERS = {("apiregistration.v1", "APIServiceSpec", 1), ("apiregistration.v1", "ServiceReference", 3)}


def short(package):
    if package in SHORT:
        return SHORT[package]
    m = re.fullmatch(r"k8s\.io\.api\.(\w+\.v\d\w*)", package)
    if m and m[1].split(".")[0] not in ("imagepolicy", "extensions", "admission"):
        return m[1]


def folder(package):
    if package == "meta.v1":
        return os.path.join(machinery, "pkg/apis/meta/v1")
    if package == "apiextensions.v1":
        return os.path.join(extensions, "pkg/apis/apiextensions/v1")
    return os.path.join(api, *package.split("."))


FIELD = re.compile(r"^\s*(?:(\w+)\s+)?([\w.*\[\]]+)\s+`([^`]*)`")
def tags(package):
    found, message = {}, None
    path = os.path.join(folder(package), "types.go")
    for name in ("types.go", "types_jsonschema.go"):
        path = os.path.join(folder(package), name)
        if not os.path.exists(path):
            continue
        for line in open(path):
            m = re.match(r"type (\w+) struct", line)
            if m:
                message = m[1]
            m = FIELD.match(line)
            if not m or not message:
                continue
            number = re.search(r'protobuf:"\w+,(\d+)', m[3])
            json = re.search(r'json:"([^",]*)((?:,\w+)*)"', m[3])
            if number and json:
                found[message, int(number[1])] = (json[1], not json[1], m[2].startswith("*"))
    return found


messages = collections.OrderedDict()
for line in open(rows).read().splitlines()[1:]:
    package, message, number, name, label, kind = line.split("\t")
    if short(package):
        messages.setdefault((package, message), []).append((int(number), name, label, kind))


known, unknown, out = {}, 0, []
for (package, message), fields in sorted(messages.items()):
    home = short(package)
    if home not in known:
        known[home] = tags(home)
    out.append(f"{home}.{message}")
    for number, name, label, kind in sorted(fields):
        if label == "map":
            kind = re.fullmatch(r"map<string,(.*)>", kind)[1]
        if kind not in SCALARS:
            owner, _, target = kind[1:].rpartition(".") if kind.startswith(".") else (package, "", kind)
            if short(owner) is None:
                continue
            kind = f"{short(owner)}.{target}"
        json, inline, pointer = known[home].get((message, number), (None, False, False))
        if json is None:
            unknown += 1
            json = name
        pointer = pointer or (home, message, number) in OTHER_POINTERS
        flags = {"optional": "o", "repeated": "r", "map": "m"}[label] + ("i" if inline else "") + ("p" if pointer else "")
        out.append(f"\t{number}\t{json or name}\t{kind}\t{flags}")
# Messages without fields are in no row of the list.
named = {line for line in out if not line.startswith("\t")}
used = {line.split("\t")[3] for line in out if line.startswith("\t")}
out += sorted(used - named - SCALARS)
text = "\n".join(out) + "\n"
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "protobuf.tsv.gz"), "wb") as file:
    file.write(gzip.compress(text.encode(), 9, mtime=0))
print(f"{len(messages)} messages, {unknown} fields without a tag, {len(text)} bytes")
