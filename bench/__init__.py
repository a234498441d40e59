"""The benchmarks. See bench/README.md."""
