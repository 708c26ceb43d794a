"""Random numbers that differ between kernels forked from one warm process."""

import os
import random
import sys


def reseed(parent: int) -> None:
    """Make random numbers differ between kernels forked from the process ``parent``."""
    random.seed()
    if numpy_random := sys.modules.get("numpy.random"):
        # The state of the legacy generator is 624 random words, and reading them is ten times
        # faster than numpy's own way to make them from a seed.
        words = sys.modules["numpy"].frombuffer(os.urandom(624 * 4), "uint32")
        numpy_random.set_state(("MT19937", words, 624))
    ssl = sys.modules.get("ssl")
    if ssl is not None and os.getpid() == parent:
        # OpenSSL tells a fork by the process id, which is the same in two namespaces at times.
        # Otherwise it needs no help, which would take it two milliseconds.
        ssl.RAND_add(os.urandom(32), 32.0)
    if tempfile := sys.modules.get("tempfile"):
        vars(tempfile).update(_name_sequence=None, tempdir=None)
    if process := sys.modules.get("multiprocessing.process"):
        process.current_process().authkey = os.urandom(32)
