"""The harness shared by the end-to-end tests (`e2e/`) and the benchmarks (`bench/`).

It starts programs on isolated hosts, makes and parses packets, capture files and messages, and reports results.
"""
