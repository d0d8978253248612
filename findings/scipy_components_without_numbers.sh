#!/usr/bin/env bash
# Packages: scipy 1.11.2 and 1.11.3, numpy 1.26.4 (Python 3.10 to 3.12).
# Behaviour: scipy 1.11.2's csgraph.connected_components answers a COO graph whose indices are int64
#   with 0 components and the label -9999 for every node. The ValueError behind it is only printed
#   ("Exception ignored"), so the caller goes on with labels that mean nothing. 1.11.3 is right.
# Output seen, for five nodes with the edges 0-1 and 2-3:
#   1.11.2 0 [-9999, -9999, -9999, -9999, -9999]
#   1.11.3 3 [0, 0, 1, 1, 2]
# Exits with 0 while that is so, with 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
for version in 1.11.2 1.11.3; do
  "$python" -m pip install -q numpy==1.26.4 "scipy==$version"
  "$python" - <<'GRAPH'
import numpy as np
import scipy
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

edges = (np.array([0, 2], np.int64), np.array([1, 3], np.int64))
graph = coo_array((np.ones(2), edges), shape=(5, 5))
count, labels = connected_components(graph, directed=False)
print(scipy.__version__, count, labels.tolist())
GRAPH
done | tee "$folder/seen"
grep -qx "1.11.2 0 \[-9999, -9999, -9999, -9999, -9999\]" "$folder/seen"
grep -qx "1.11.3 3 \[0, 0, 1, 1, 2\]" "$folder/seen"
