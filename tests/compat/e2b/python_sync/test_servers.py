# Made from the async face by scripts/generate-sync; change that one.
"""Servers of users in a sandbox, reached from outside."""

import os

import pytest
from browsing import fetch
from e2b_code_interpreter import Sandbox

URL = os.environ["E2B_API_URL"]


def serve(sandbox: Sandbox) -> None:
    """Serve a page on port 3000."""
    sandbox.files.write("site/index.html", "served")
    sandbox.commands.run("python3 -m http.server 3000 --directory site", background=True, timeout=0)
    sandbox.commands.run(
        "for i in $(seq 100); do curl -s localhost:3000 && exit; sleep 0.1; done; exit 1"
    )


# covers: Sandbox.get_host
def test_a_server_is_reached_by_its_host_name(sandbox: Sandbox) -> None:
    serve(sandbox)

    open_port = fetch(URL, headers={"Host": sandbox.get_host(3000)})
    closed_port = fetch(URL, headers={"Host": sandbox.get_host(3001)})

    assert open_port.text == "served"
    assert closed_port.status_code == 502
    assert closed_port.json() == {
        "sandboxId": sandbox.sandbox_id,
        "message": "The sandbox is running but port is not open",
        "port": 3001,
        "code": 502,
    }


def test_a_server_may_be_for_those_with_a_token_only() -> None:
    sandbox = Sandbox.create(network={"allow_public_traffic": False})
    try:
        serve(sandbox)
        host = {"Host": sandbox.get_host(3000)}
        token = {"E2B-Traffic-Access-Token": sandbox.traffic_access_token or ""}
        without = fetch(URL, headers=host)
        wrong = fetch(URL, headers={**host, "E2B-Traffic-Access-Token": "wrong"})
        right = fetch(URL, headers={**host, **token})
        code = sandbox.run_code("1 + 1")
    finally:
        sandbox.kill()

    assert without.status_code == wrong.status_code == 403
    assert without.json()["code"] == 403
    assert right.text == "served"
    assert code.text == "2"


@pytest.mark.parametrize("header", ["Host", "E2b-Sandbox-Id"])
def test_a_server_is_gone_with_its_sandbox(header: str) -> None:
    sandbox = Sandbox.create()
    host = sandbox.get_host(3000)
    sandbox.kill()
    other = Sandbox.create()  # may make the service forget the dead one
    other.kill()
    headers = {
        "Host": {"Host": host},
        "E2b-Sandbox-Id": {
            "E2b-Sandbox-Id": sandbox.sandbox_id,
            "E2b-Sandbox-Port": "3000",
        },
    }

    answer = fetch(URL, headers=headers[header])

    assert answer.status_code == 502
    assert answer.json()["message"] == "The sandbox was not found"
