"""What the peers' sides share: options, threads, timing, peak memory, and one JSON line for each measurement.

A side measures one case in one process, so that its peak memory is that case's. With --check it measures nothing:
it reads the weights, inputs and results that tide's side wrote to the exchange file, computes the same and reports
how far they are apart.
"""
import argparse
import json
import resource
import statistics
import time


def options(description, **more):
    """The parsed command line; `more` maps names of further options to their defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--case", default="")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--exchange", default="")
    parser.add_argument("--check", action="store_true")
    for name, default in more.items():
        parser.add_argument("--" + name, type=type(default), default=default)
    return parser.parse_args()


def peak_rss():
    """The greatest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def processor_time():
    """Seconds that this process has computed, on all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(f, repeats, least=0.02):
    """The medians of one call of f after a first one: {"seconds": wall time, "cpu": processor time of all threads}.
    A sample lasts at least `least` seconds."""
    f()
    samples, calls = [], 0
    while len(samples) < repeats:
        start, cpu = time.perf_counter(), processor_time()
        for _ in range(max(1, calls)):
            f()
        seconds, cpu = time.perf_counter() - start, processor_time() - cpu
        if calls == 0:
            calls = max(1, int(least / seconds))
            if calls > 1:
                continue
        samples.append((seconds / calls, cpu / calls))
    wall, cpu = zip(*samples)
    return {"seconds": statistics.median(wall), "cpu": statistics.median(cpu)}


def report(case, **record):
    """Prints a measurement."""
    print(json.dumps({"case": case, "rss": peak_rss(), **record}, ensure_ascii=False), flush=True)


def torch_with(threads):
    """torch on that many threads, with deterministic random numbers."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return torch


def difference(pairs):
    """The greatest |ours − theirs| / |theirs| (Euclidean norms) of pairs of tensors; those whose norm is below 1e-6
    of the greatest one are rounding alone and do not count."""
    for ours, theirs in pairs:
        if ours.shape != theirs.shape:
            raise SystemExit(f"shapes differ: {tuple(ours.shape)} and {tuple(theirs.shape)}")
    norms = [float(theirs.double().norm()) for _, theirs in pairs]
    return max(
        float((ours.double() - theirs.double()).norm()) / norm
        for (ours, theirs), norm in zip(pairs, norms)
        if norm > 1e-6 * max(norms)
    )
