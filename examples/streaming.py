"""Everything that a program prints arrives at once and in order, whoever prints it.

Run it with: scripts/run examples/streaming.py
"""

import asyncio
import os
import subprocess
import sys

print("a print")
os.write(1, b"a write to the descriptor, as C code does it\n")
subprocess.run(["echo", "a child process"], check=True)
print("and a print again")

print("this line goes to standard error", file=sys.stderr)


async def tick(name: str, pause: float) -> None:
    """Print three times, with a pause before each."""
    for number in range(1, 4):
        await asyncio.sleep(pause)
        print(f"{name} {number}")


await asyncio.gather(tick("slow", 0.2), tick("fast", 0.15))

for percent in range(0, 101, 10):
    print(f"\rdone: {percent:3} %", end="")
    await asyncio.sleep(0.05)
print()
