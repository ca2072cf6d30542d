"""The canary of `agent bpf check --canary`: a known life, and what was measured of it."""
