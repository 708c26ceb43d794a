"""Small wheels, for tests that install something without a network.

The functions stand for themselves, so that their source can be run inside a sandbox.
"""

import inspect


def make_wheel(
    directory: str, name: str, version: str, files: dict[str, str], requires: str = ""
) -> str:
    """Write a wheel of pure Python and give its path."""
    import zipfile

    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    members = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{info}/RECORD"
    members[record] = "".join(f"{member},,\n" for member in [*members, record])
    path = f"{directory}/{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in members.items():
            archive.writestr(member, text)
    return path


SOURCE = inspect.getsource(make_wheel)
"""Defines `make_wheel` where tests cannot be imported."""
