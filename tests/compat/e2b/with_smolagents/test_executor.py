"""The executor of smolagents that runs an agent's code in a sandbox of E2B."""

from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from smolagents import ChatMessage, CodeAgent, LogLevel, Model, Tool, tool
from smolagents.default_tools import FinalAnswerTool
from smolagents.models import MessageRole
from smolagents.monitoring import AgentLogger
from smolagents.remote_executors import E2BExecutor
from smolagents.utils import AgentError


@pytest.fixture
def executor() -> Iterator[E2BExecutor]:
    """An executor with the tool that ends an agent's work."""
    executor = E2BExecutor([], AgentLogger(level=LogLevel.OFF))
    try:
        tools: dict[str, Tool] = {"final_answer": FinalAnswerTool()}
        executor.send_tools(tools)
        yield executor
    finally:
        executor.cleanup()


def test_code_gives_its_value_and_its_output(executor: E2BExecutor) -> None:
    result = executor("print('seen')\nx = 6\nx * 7")

    assert result.output == "42"
    assert result.logs == "seen\n"
    assert not result.is_final_answer


def test_state_and_variables_are_kept(executor: E2BExecutor) -> None:
    executor.send_variables({"given": {"a": [1, 2]}, "word": "ü"})

    executor("total = sum(given['a'])")
    result = executor("f'{word} {total}'")

    assert result.output == "ü 3"


def test_a_data_frame_is_its_data(executor: E2BExecutor) -> None:
    result = executor("import pandas as pd\npd.DataFrame({'a': [1, 2]})")

    assert result.output == {"a": [1, 2]}


def test_a_figure_is_an_image(executor: E2BExecutor) -> None:
    result = executor("from PIL import Image\nImage.new('RGB', (3, 2), 'red')")

    assert isinstance(result.output, Image.Image)
    assert result.output.size == (3, 2)


def test_an_exception_is_an_error_of_the_agent(executor: E2BExecutor) -> None:
    with pytest.raises(AgentError, match="ZeroDivisionError"):
        executor("1/0")


def test_the_final_answer_ends_the_work(executor: E2BExecutor) -> None:
    result = executor("final_answer({'sum': 3, 'names': ['a', 'ü']})")

    assert result.is_final_answer
    assert result.output == {"sum": 3, "names": ["a", "ü"]}


class Scripted(Model):
    """A model that says what it was told to."""

    def __init__(self, *answers: str) -> None:
        super().__init__(model_id="scripted")
        self.answers = list(answers)

    def generate(self, messages: list[Any], **options: Any) -> ChatMessage:
        """Give the next answer."""
        return ChatMessage(role=MessageRole.ASSISTANT, content=self.answers.pop(0))


@tool
def triple(number: int) -> int:
    """Triple a number.

    Args:
        number: The number.
    """
    return 3 * number


def test_an_agent_works_in_a_sandbox() -> None:
    model = Scripted(
        "Thought: first\n<code>\nx = triple(13)\nprint('so far', x)\n</code>",
        "Thought: then\n<code>\nfinal_answer(x + 3)\n</code>",
    )

    with CodeAgent([triple], model, executor_type="e2b", verbosity_level=LogLevel.OFF) as agent:
        answer = agent.run("Triple thirteen and add three.")

    assert answer == 42
    assert model.answers == []
