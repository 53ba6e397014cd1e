"""Latency and memory of an artifact, each measured in a fresh process.

    from edgecomp.bench.options import BenchOptions
    from edgecomp.bench.runner import run_bench

The package imports nothing by itself: the measured process loads `_worker` below it and must stay small.
"""
