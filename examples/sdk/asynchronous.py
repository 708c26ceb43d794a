"""Two sandboxes at the same time, with asyncio."""

import asyncio

from headrace import AsyncSandbox


async def grind(grain: str) -> str:
    """Run a piece of code in a sandbox of its own."""
    async with await AsyncSandbox.create(env={"GRAIN": grain}) as sandbox:
        outcome = await sandbox.run_code("import os; f'{os.environ[\"GRAIN\"]} is flour now'")
        return outcome.text or ""


async def main() -> None:
    """Do both and show what they gave."""
    print(await asyncio.gather(grind("rye"), grind("wheat")))


asyncio.run(main())
