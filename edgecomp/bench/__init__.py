"""Latency and memory of an artifact on one or several devices, each round in a fresh process of the C++ runner.

from edgecomp.bench.options import BenchOptions
from edgecomp.bench.runner import run_bench
"""
