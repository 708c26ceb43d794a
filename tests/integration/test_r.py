"""An R context behaves as people know it from notebooks."""

import base64

import anyio
import pytest

from headrace.engine.sandbox import Sandbox
from headrace.model.events import (
    CodeRaised,
    FinishReason,
    OutputWritten,
    ResultDisplayed,
)
from headrace.model.results import Result
from headrace.model.specs import ExecutionRequest, Language
from tests.support.running import Outcome, run_process, run_python

PNG = b"\x89PNG\r\n\x1a\n"


async def run(sandbox: Sandbox, code: str) -> Outcome:
    """Run code in the default R context."""
    return await run_python(sandbox, code, language=Language.R)


def pictures(outcome: Outcome) -> list[Result]:
    """Give the results that are pictures, after a look at each."""
    found = [result for result in outcome.results if "image/png" in result.bundle]
    for result in found:
        assert base64.b64decode(str(result.bundle["image/png"]), validate=True).startswith(PNG)
    return found


async def test_each_visible_value_is_displayed_and_the_last_is_the_main_one(
    sandbox: Sandbox,
) -> None:
    outcome = await run(sandbox, "1:3\nx <- 4\ninvisible(5)\nNULL\n'six'")
    assert [(result.text, result.is_main) for result in outcome.results] == [
        ("[1] 1 2 3", False),
        ("NULL", False),
        ('[1] "six"', True),
    ]
    assert outcome.stdout == ""


async def test_what_is_printed_is_output_and_no_result(sandbox: Sandbox) -> None:
    outcome = await run(sandbox, "print('x')\ncat('y\\n')")
    assert (outcome.stdout, outcome.results) == ('[1] "x"\ny\n', [])


async def test_output_and_results_keep_their_order(sandbox: Sandbox) -> None:
    steps = [f"'r{n}'\ncat('o{n}\\n')\nsystem('echo c{n}')\nmessage('e{n}')" for n in range(25)]
    told = []
    for event in (await run(sandbox, "\n".join(steps))).events:
        if isinstance(event, OutputWritten):
            told += event.text.split()
        elif isinstance(event, ResultDisplayed):
            told.append(str(event.result.text)[5:-1])
    results = [f"r{n}" for n in range(25)]
    assert [word for word in told if word[0] == "r"] == results
    for n in range(25):
        after = told[told.index(f"r{n}") + 1 :]
        assert {f"o{n}", f"c{n}", f"e{n}"} <= set(after)
        assert {f"o{n - 1}", f"c{n - 1}", f"e{n - 1}"} & set(after) == set()


async def test_methods_for_printing_that_user_code_defines_are_used(sandbox: Sandbox) -> None:
    code = (
        "print.box <- function(x, ...) cat('a box\\n')\n"
        "setClass('P', representation(n = 'numeric'))\n"
        "setMethod('show', 'P', function(object) cat('a P\\n'))\n"
        "structure(1, class = 'box')\nnew('P', n = 1)\n"
    )
    assert [result.text for result in (await run(sandbox, code)).results] == ["a box", "a P"]


async def test_a_data_frame_is_text_and_html(sandbox: Sandbox) -> None:
    (result,) = (await run(sandbox, "data.frame(n = 1:2, s = c('x', '<b> & \"q\"'))")).results
    assert result.text == '  n         s\n1 1         x\n2 2 <b> & "q"'
    html = str(result.bundle["text/html"])
    assert html.startswith('<table class="dataframe">')
    assert "<td>&lt;b&gt; &amp; " in html
    assert html.count("<tr>") == 3


async def test_of_a_large_data_frame_the_ends_are_shown(sandbox: Sandbox) -> None:
    code = "data.frame(matrix(1:300000, 10000))"
    (result,) = (await run(sandbox, code)).results
    html = str(result.bundle["text/html"])
    assert html.count("<tr>") == 1 + 30 + 1 + 30
    assert "10000 rows, 30 columns" in html
    assert "<th>10000</th>" in html


async def test_each_page_of_a_plot_is_a_picture(sandbox: Sandbox) -> None:
    code = "plot(1:3)\nlines(3:1)\nhist(c(1, 2, 2))\nx <- 1"
    outcome = await run(sandbox, code)
    assert [result.is_main for result in pictures(outcome)] == [False, False]
    assert [result.text for result in outcome.results] == ["<Plot of 840x840 pixels>"] * 2
    assert (await run(sandbox, "x")).results[0].bundle.keys() == {"text/plain"}


async def test_the_size_of_plots_can_be_set(sandbox: Sandbox) -> None:
    code = "options(repr.plot.width = 4, repr.plot.height = 3, repr.plot.res = 100)\nplot(1)"
    (picture,) = pictures(await run(sandbox, code))
    assert picture.text == "<Plot of 400x300 pixels>"


async def test_a_value_that_draws_itself_is_the_main_result(sandbox: Sandbox) -> None:
    code = "print.drawn <- function(x, ...) plot(1)\nplot(2)\nstructure(1, class = 'drawn')"
    assert [result.is_main for result in pictures(await run(sandbox, code))] == [False, True]


async def test_a_plot_before_an_error_is_shown(sandbox: Sandbox) -> None:
    outcome = await run(sandbox, "plot(1)\nstop('late')")
    assert len(pictures(outcome)) == 1
    assert isinstance(outcome.events[-2], CodeRaised)


async def test_files_that_user_code_plots_to_are_its_own(sandbox: Sandbox) -> None:
    code = "png('mine.png')\nplot(1)\ninvisible(dev.off())\nfile.size('mine.png') > 1000"
    outcome = await run(sandbox, code)
    assert [result.text for result in outcome.results] == ["[1] TRUE"]
    assert (await run(sandbox, "pdf('open.pdf')\nplot(1)")).results == []
    outcome = await run(sandbox, "names(dev.cur())\ndev.off()\nfile.exists('Rplots.pdf')")
    assert [result.text for result in outcome.results][::2] == ['[1] "pdf"', "[1] FALSE"]


async def test_an_error_has_its_call_and_the_calls_before_it(sandbox: Sandbox) -> None:
    outcome = await run(sandbox, "f <- function(n) g(n)\ng <- function(m) stop('bad ', m)\nf(7)")
    (raised,) = outcome.errors
    assert (raised.error.name, raised.error.value) == ("simpleError", "bad 7")
    assert raised.error.traceback == (
        'Error in g(n) : bad 7\nCalls, the outermost first:\n1: f(7)\n2: g(n)\n3: stop("bad ", m)'
    )
    assert outcome.stderr == ""


async def test_an_error_of_its_own_class_is_named_so(sandbox: Sandbox) -> None:
    code = (
        "stop(structure(list(message = 'm', call = NULL), class = c('odd', 'error', 'condition')))"
    )
    (raised,) = (await run(sandbox, code)).errors
    assert (raised.error.name, raised.error.value) == ("odd", "m")


async def test_nothing_of_code_with_a_syntax_error_runs(sandbox: Sandbox) -> None:
    outcome = await run(sandbox, "cat('never\\n')\nif (")
    (raised,) = outcome.errors
    assert raised.error.name == "SyntaxError"
    assert "<text>:3:0: unexpected end of input" in raised.error.value
    assert outcome.stdout == ""


@pytest.mark.parametrize(
    "code", ["x <- '\\xff\\0'", "f <- function() f()\nf()", "f <- function(n) n + f(n)\nf(1)"]
)
async def test_what_r_cannot_do_is_an_error_and_keeps_the_state(
    sandbox: Sandbox, code: str
) -> None:
    await run(sandbox, "kept <- 42")
    outcome = await run(sandbox, code)
    assert outcome.finished.reason is FinishReason.ERROR
    assert len(outcome.errors) == 1
    assert (await run(sandbox, "kept")).results[0].text == "[1] 42"


async def test_warnings_come_after_their_expression(sandbox: Sandbox) -> None:
    code = "f <- function() { warning('careful'); cat('on\\n') }\nf()\nmessage('next')\nlog(-1)"
    outcome = await run(sandbox, code)
    assert outcome.stderr == (
        "Warning message:\nIn f() : careful\nnext\nWarning message:\nIn log(-1) : NaNs produced\n"
    )
    assert outcome.finished.reason is FinishReason.OK


@pytest.mark.parametrize(
    ("level", "stderr"),
    [(-1, ""), (1, "Warning: one\nWarning in f() : two\n")],
)
async def test_the_option_for_warnings_is_kept(sandbox: Sandbox, level: int, stderr: str) -> None:
    code = f"options(warn = {level})\nf <- function() warning('two')\nwarning('one')\nf()"
    assert (await run(sandbox, code)).stderr == stderr


async def test_warnings_can_be_errors(sandbox: Sandbox) -> None:
    outcome = await run(sandbox, "options(warn = 2)\nas.integer('x')")
    assert "converted from warning" in outcome.errors[0].error.value


async def test_many_warnings_are_bounded(sandbox: Sandbox) -> None:
    lines = (await run(sandbox, "for (i in 1:1000) warning(i)")).stderr.splitlines()
    assert lines[0] == "There were 1000 warnings. The first 50 are:"
    assert len(lines) == 51


async def test_readline_has_nothing_to_read(sandbox: Sandbox) -> None:
    outcome = await run(sandbox, "x <- readline('name? ')\nnchar(x)\nscan()")
    assert outcome.stdout.startswith("name? ")
    assert [result.text for result in outcome.results] == ["[1] 0", "numeric(0)"]


async def test_the_way_out_to_the_prompt_ends_the_code(sandbox: Sandbox) -> None:
    outcome = await run(sandbox, "kept <- 1\ninvokeRestart('abort')\nkept <- 2")
    assert outcome.finished.reason is FinishReason.ERROR
    assert (await run(sandbox, "kept")).results[0].text == "[1] 1"


async def test_an_interrupt_while_a_value_is_printed_leaves_no_diversion(sandbox: Sandbox) -> None:
    code = "print.slow <- function(x, ...) { cat('half'); repeat {} }\nstructure(1, class = 'slow')"
    execution = await sandbox.execute(ExecutionRequest(code, language=Language.R))
    await anyio.sleep(0.8)
    await execution.interrupt()
    with anyio.fail_after(20):
        assert (await execution.wait()).reason is FinishReason.INTERRUPTED
    assert (await run(sandbox, "cat('here\\n')")).stdout == "here\n"


async def test_an_interrupt_runs_what_code_does_at_its_end(sandbox: Sandbox) -> None:
    code = "tryCatch(repeat {}, finally = cat('cleaned up\\n'))"
    execution = await sandbox.execute(ExecutionRequest(code, language=Language.R))
    await anyio.sleep(0.8)
    await execution.interrupt()
    with anyio.fail_after(20):
        outcome = Outcome(tuple([event async for event in execution.events()]))
    assert outcome.finished.reason is FinishReason.INTERRUPTED
    assert outcome.stdout == "cleaned up\n"


async def test_forms_that_are_too_large_are_named_with_their_size(sandbox: Sandbox) -> None:
    (result,) = (await run(sandbox, "strrep('x', 2e7)")).results
    assert result.omitted == {"text/plain": 20_000_006}
    # In JSON as many characters have six times their size.
    code = "print.big <- function(x, ...) cat(strrep('\\u00e4', 4e6))\nstructure(1, class = 'big')"
    (result,) = (await run(sandbox, code)).results
    assert result.omitted == {"text/plain": 8_000_000}


async def test_user_code_that_redefines_base_functions_breaks_only_itself(
    sandbox: Sandbox,
) -> None:
    code = "T <- 0; c <- paste <- print <- function(...) stop('mine')\nrm(list = ls(all = TRUE))"
    await run(sandbox, code)
    await run(sandbox, "c <- paste <- cat <- function(...) stop('mine')")
    assert (await run(sandbox, "1:2")).results[0].text == "[1] 1 2"


async def test_a_signal_that_comes_while_nothing_runs_does_nothing(sandbox: Sandbox) -> None:
    await run(sandbox, "kept <- 42")
    process = await run_process(sandbox, "pkill", "-INT", "-f", "bin/exec/R")
    assert process.exited.exit_code == 0
    outcome = await run(sandbox, "for (i in 1:1000) i\nkept")
    assert outcome.finished.reason is FinishReason.OK
    assert outcome.results[0].text == "[1] 42"
