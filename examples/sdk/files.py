"""Files: small ones as values, large ones from and to local paths with progress."""

import tempfile
from pathlib import Path

from headrace import Sandbox


def show(done: int, total: int | None) -> None:
    """Show how far a transfer is."""
    if done == total:
        print(f"{done} bytes done")


with Sandbox.create() as sandbox, tempfile.TemporaryDirectory() as directory:
    files = sandbox.files
    files.write("prices.csv", "grain,price\nrye,21\nwheat,28\n")
    sandbox.run_code(
        "import pandas; pandas.read_csv('prices.csv').to_json('prices.json', orient='records')"
    )
    print(files.read_text("prices.json"))

    local = Path(directory, "harvest.bin")
    local.write_bytes(b"grain" * 1_000_000)
    files.write("/workspace/harvest.bin", local, progress=show)
    files.download("/workspace/harvest.bin", Path(directory, "copy.bin"), progress=show)

    for entry in files.list("/workspace"):
        print(entry.type, entry.name, entry.size)
