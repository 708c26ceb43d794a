"""Pictures of Pillow that code saves are shown, through real kernels."""

from collections.abc import Iterator

import pytest

from tests.support.kernel_process import KernelProcess, shared_fork_server

IMAGE = "from PIL import Image\nimage = Image.new('RGB', (3, 2), 'red')\n"


@pytest.fixture
def kernel() -> Iterator[KernelProcess]:
    with shared_fork_server().kernel() as process:
        yield process


@pytest.mark.parametrize(
    "target",
    ["'/dev/null', 'png'", "pathlib.Path('/dev/null'), format='jpeg'", "b'/dev/null', 'PNG'"],
)
def test_a_picture_saved_to_a_file_is_shown(kernel: KernelProcess, target: str) -> None:
    (result,) = kernel.run(f"{IMAGE}import pathlib\nimage.save({target})").results
    assert str(result.bundle["image/png"]).startswith("iVBOR")
    assert not result.is_main


def test_a_picture_saved_to_memory_is_not_shown(kernel: KernelProcess) -> None:
    outcome = kernel.run(IMAGE + "import io\nimage.save(io.BytesIO(), 'png')")
    assert (outcome.results, outcome.status) == ([], "ok")


def test_a_picture_that_cannot_be_saved_is_not_shown(kernel: KernelProcess) -> None:
    outcome = kernel.run(IMAGE + "image.save('/missing/x.png')")
    assert (outcome.results, outcome.error.name) == ([], "FileNotFoundError")
    assert "headrace" not in outcome.error.traceback


def test_a_saved_picture_of_very_many_pixels_is_named_with_its_size(kernel: KernelProcess) -> None:
    outcome = kernel.run(
        "from PIL import Image\nImage.new('1', (8000, 8000)).save('/dev/null', 'gif')"
    )
    (result,) = outcome.results
    assert "8000x8000" in str(result.bundle["text/plain"])
    assert result.omitted == {"image/png": 64_000_000}


def test_processes_of_user_code_save_without_a_word(kernel: KernelProcess) -> None:
    code = (
        "import multiprocessing\n"
        "def save(n): image.save('/dev/null', 'png')\n"
        "with multiprocessing.get_context('fork').Pool(1) as pool: pool.map(save, [1, 2])"
    )
    outcome = kernel.run(IMAGE + code)
    assert (outcome.results, outcome.stdout, outcome.status) == ([], "", "ok")


def test_a_large_picture_is_left_out_visibly_and_its_smaller_form_kept(
    kernel: KernelProcess,
) -> None:
    code = (
        "from PIL import Image\nimport numpy as np\n"
        "noise = np.random.default_rng(1).integers(0, 255, (2700, 2700, 3), dtype=np.uint8)\n"
        "Image.fromarray(noise)"
    )
    result = kernel.run(code).main
    assert result.omitted["image/png"] > 20_000_000
    assert "image/jpeg" in result.bundle
