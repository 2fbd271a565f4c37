"""Packs upstream's golden objects for the tests of protobuf.

    python3 golden.py FOLDER > golden.json.gz

FOLDER is `staging/src/k8s.io/api/testdata/HEAD` of kubernetes/kubernetes: one object of every kind, filled to the last
field, as `<group>.<version>.<kind>.json` and `.pb`. Made is one JSON object, name -> {"json": tree, "pb": base64}.
"""

import base64
import gzip
import json
import pathlib
import sys

folder = pathlib.Path(sys.argv[1])
pack = {}
for encoded in sorted(folder.glob("*.pb")):
    tree = json.loads(encoded.with_suffix(".json").read_text())
    pack[encoded.stem] = {"json": tree, "pb": base64.b64encode(encoded.read_bytes()).decode()}
text = json.dumps(pack, separators=(",", ":")).encode()
sys.stdout.buffer.write(gzip.compress(text, 9, mtime=0))
