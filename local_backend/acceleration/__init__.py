"""Fewer and cheaper passes through the transformer: one technique a file.

Per step (velocity forecasting, masked-token attention): a field in levels.py, wired in
step_runner.py. On kernels (block compile, attention backend, fp8 products): wired in
offload/runtime_options.py. The AdaLN table: a part of offload/flux_parts.py, filled by
offload/placement.py before the loop.
"""
