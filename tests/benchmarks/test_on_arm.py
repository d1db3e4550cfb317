from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from on_arm.counts import Block, Cost, by_function, read_blocks, read_maps, short, total
from on_arm.elf import read_functions
from on_arm.emulating import losses_here, run
from on_arm.rooting import BOARDS, HERE, set_up
from on_arm.table import ratio_rows, render

MAPS = """\
400000-500000 r-xp 00001000 fe:00 11     /usr/bin/python3.11
5500000000-5500001000 rw-p 00000000 00:00 0      [stack]
5504000000-5504100000 r-xp 00002000 fe:00 12    /a folder/lib.so
5504200000-5504300000 rw-p 00000000 00:00 0
"""


def test_lines_of_the_plugin_become_blocks() -> None:
    assert read_blocks(["ff0 4 1 10\n", "5504000010 2 0 3\n"]) == [Block(0xFF0, 4, 1, 10), Block(0x5504000010, 2, 0, 3)]


@pytest.mark.parametrize("line", ["ff0 4 1", "ff0 4 1 10 2", "xyz 4 1 10", ""])
def test_other_lines_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"Expected|invalid literal"):
        read_blocks([line])


def test_the_cost_is_of_one_step() -> None:
    assert total([Block(0, 4, 1, 10), Block(16, 2, 0, 3)], steps=2) == Cost(23.0, 5.0)


def test_only_files_are_kept_of_the_maps_and_their_names_may_have_spaces() -> None:
    kept = [(each.start, each.offset, each.path) for each in read_maps(MAPS.splitlines(keepends=True))]
    assert kept == [(0x400000, 0x1000, "/usr/bin/python3.11"), (0x5504000000, 0x2000, "/a folder/lib.so")]


def test_instructions_are_counted_for_the_function_and_else_for_the_file_that_they_lie_in() -> None:
    named = {("/a folder/lib.so", 0x2010): "gemm", ("/a folder/lib.so", 0x2020): "gemm"}
    blocks = [Block(0x5504000010, 4, 1, 10), Block(0x5504000020, 1, 0, 6), Block(0x400004, 3, 0, 10), Block(8, 1, 1, 2)]
    found = by_function(
        blocks, read_maps(MAPS.splitlines()), lambda path: lambda offset: named.get((path, offset)), steps=2
    )
    assert found == {"gemm": Cost(23.0, 5.0), "[python3.11]": Cost(15.0, 0.0), "[elsewhere]": Cost(1.0, 1.0)}
    assert next(iter(found)) == "gemm"


def test_functions_of_a_library_are_found_by_their_place_in_the_file(tmp_path: Path) -> None:
    source = tmp_path / "two.c"
    source.write_text("int first(int x) { return x * 3 + 1; }\nint second(int x) { return first(x) - 7; }\n")
    library = tmp_path / "two.so"
    subprocess.run(["gcc", "-O0", "-shared", "-fPIC", "-o", library, source], check=True)
    functions = read_functions(library)
    for name in ("first", "second"):
        index = functions.names.index(name)
        offset = next(
            first + functions.starts[index] - address
            for first, size, address in functions.segments
            if address <= functions.starts[index] < address + size
        )
        assert functions.at(offset) == functions.at(offset + 3) == name
    assert functions.at(10**9) is None


def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no library, but long enough to be one")
    with pytest.raises(ValueError, match="no little-endian ELF file"):
        read_functions(tmp_path / "text")


def test_names_are_shown_without_templates_and_arguments() -> None:
    assert short("void ruy::Run<(ruy::Path)16, float>(ruy::Tuning, int) const") == "void ruy::Run const"
    assert short("xnn_f32_gemm") == "xnn_f32_gemm"
    assert short("(anonymous)") == "(anonymous)"


def row(group: str, name: str, where: str, instructions: float) -> dict[str, object]:
    return {"group": group, "name": name, "where": where, "instructions": instructions, "memory": 0.0}


def test_ratios_are_within_a_group_and_a_place() -> None:
    rows = [row("a", "naive", "x", 2e6), row("a", "other", "x", 1e6), row("b", "other", "x", 5e6)]
    rows += [row("a", "naive", "y", 4e6), row("a", "other", "y", 6e6)]
    assert [each["ratio"] for each in ratio_rows(rows, "naive")] == [1.0, 0.5, None, 1.0, 1.5]


def test_the_table_has_a_line_for_each_form_and_columns_for_each_place() -> None:
    rows = [row("a", "naive", "x", 2e6), row("a", "other", "x", 1e6), row("a", "naive", "y", 4e6)]
    lines = render(ratio_rows(rows, "naive")).splitlines()
    assert lines[0] == "| | form | x | ratio | y | ratio |"
    assert lines[2:] == ["| a | naive | 2 | 1.00 | 4 | 1.00 |", "|  | other | 1 | 0.50 | – |  |"]


def test_the_plugin_compiles_without_qemus_header(tmp_path: Path) -> None:
    command = ["gcc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", tmp_path / "counting.so", HERE / "counting.c"]
    subprocess.run(command, check=True)


def test_a_folder_without_a_model_is_named() -> None:
    program = [sys.executable, "-m", "on_arm", "models", "nowhere"]
    done = subprocess.run(program, cwd=HERE.parent, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no model.tflite in nowhere" in done.stderr


@pytest.mark.network
@pytest.mark.slow
def test_a_step_on_each_board_costs_the_same_twice_and_has_the_losses_of_this_machine(tmp_path: Path) -> None:
    batch = tmp_path / "batch"
    batch.mkdir()
    program = [sys.executable, "-m", "local_steps.keras_models", "2nn", "10", str(batch)]
    subprocess.run(program, cwd=HERE.parent, check=True, capture_output=True)
    inputs = {
        "input_layer": np.load(batch / "x.npy"),
        "y": np.load(batch / "y.npy"),
        "sample_weight": np.ones(10, np.float32),
        "learning_rate": np.full(1, 0.01, np.float32),
    }
    files = [((batch / "model.tflite").read_bytes(), inputs)]
    for board, about in BOARDS.items():
        set_up(tmp_path / "arm", board)
        for runtime in about.runtimes:
            first, second = (run(tmp_path / "arm", files, board=board, runtime=runtime)[0] for _ in range(2))
            assert first.cost.instructions == pytest.approx(second.cost.instructions, rel=1e-3)
            assert first.losses == pytest.approx(losses_here(files, runtime=runtime)[0], rel=1e-5)
            assert sum(cost.instructions for cost in first.functions.values()) == pytest.approx(first.cost.instructions)
