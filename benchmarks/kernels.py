"""Every Triton kernel of a step of the released model, compiled ahead of time for every architecture, without a GPU.

    python benchmarks/kernels.py
    python benchmarks/kernels.py --arch 87 --form int8

For each: registers and spills, shared memory, barriers in a loop, how wide weights and window are read, and how many
blocks there are to one wave of a card. Needs Triton (its wheel brings ptxas and cuobjdump); nothing is run.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from fake_cuda import Launch
from launches import FORMS, RELEASED, launches
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

ARCHITECTURES = (80, 86, 87, 89, 90, 100, 110, 120)
# Processors of a card of that architecture, and the threads and registers that one of them holds.
CARDS = {
    80: ("A100", 108, 2048),
    86: ("RTX 3090", 82, 1536),
    87: ("AGX Orin", 16, 1536),
    89: ("RTX 4090", 128, 1536),
    90: ("H100", 132, 2048),
    100: ("B200", 148, 2048),
    110: ("Thor", 20, 1536),
    120: ("RTX 5090", 170, 1536),
}
REGISTERS = 65536
MAX_BLOCKS = 24  # the least that any of them holds at once, but 16 for sm_86 and sm_87
TYPES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.int32: "i32",
    torch.int64: "i64",
}


class Compiled(NamedTuple):
    registers: int
    spills: int  # bytes of local memory
    shared: int  # bytes
    barriers: int  # in loops
    widest: int  # bits of the widest load from global memory
    blocks: int  # to a processor


def kernels(form: str | None, kv_cache: str | None) -> dict[str, Launch]:
    """Each kernel of a step once, by what it is compiled for."""
    parts, _ = launches("full", torch.bfloat16, form, kv_cache, picture=True)
    found: dict[str, Launch] = {}
    for launch in parts["whole"]:
        if launch.kernel is not None:
            signature, constants, _, options = specialised(launch)
            found.setdefault(
                repr((launch.name, signature, sorted(map(str, constants.items())), options)), launch
            )
    return found


def specialised(launch: Launch) -> tuple[dict[str, Any], dict[Any, Any], dict[Any, Any], dict[str, int]]:
    """Signature, constants, attributes and options, as Triton itself would take them for these arguments."""
    signature: dict[str, Any] = {}
    constants: dict[Any, Any] = {}
    attributes: dict[Any, Any] = {}
    assert launch.arguments is not None
    for index, parameter in enumerate(launch.kernel.params):
        value = launch.arguments[parameter.name]
        if parameter.is_constexpr:
            signature[parameter.name] = "constexpr"
            constants[(index,)] = value
        elif isinstance(value, tuple):
            types = [_type(part, (index, i), constants, attributes) for i, part in enumerate(value)]
            signature[parameter.name] = tuple(types)
        else:
            special = None if parameter.do_not_specialize else constants
            signature[parameter.name] = _type(value, (index,), special, attributes)
    names = {parameter.name for parameter in launch.kernel.params}
    options = {name: value for name, value in launch.arguments.items() if name not in names}
    return signature, constants, attributes, options


def _type(
    value: Any, path: tuple[int, ...], constants: dict[Any, Any] | None, attributes: dict[Any, Any]
) -> str:
    if isinstance(value, Tensor):
        attributes[path] = [["tt.divisibility", 16]]  # torch's allocations are
        return "*" + TYPES[value.dtype]
    if isinstance(value, float):
        return "fp32"
    if value == 1 and constants is not None:
        constants[path] = 1
        return "constexpr"
    if value % 16 == 0 and constants is not None:
        attributes[path] = [["tt.divisibility", 16]]
    return "i32" if abs(value) < 2**31 else "i64"


def compiled(launch: Launch, architecture: int) -> Compiled:
    signature, constants, attributes, options = specialised(launch)
    source = ASTSource(launch.kernel, signature, constants, attributes)
    binary = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    ptx = binary.asm["ptx"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage, code = (_cuobjdump(option, file.name) for option in ("-res-usage", "-sass"))
    registers = int(re.search(r"REG:(\d+)", usage)[1])  # type: ignore[index]
    local = int(re.search(r"LOCAL:(\d+)", usage)[1])  # type: ignore[index]
    stack = int(re.search(r"STACK:(\d+)", usage)[1])  # type: ignore[index]
    threads = 32 * options["num_warps"]
    resident = min(
        CARDS[architecture][2] // threads, REGISTERS // (-(-registers // 8) * 8 * threads), MAX_BLOCKS
    )
    return Compiled(
        registers, local + stack, binary.metadata.shared, _in_loops(code, "BAR.SYNC"), _widest(ptx), resident
    )


def _cuobjdump(option: str, file: str) -> str:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    path = {**os.environ, "PATH": f"{tool.parent}:{os.environ['PATH']}"}
    return subprocess.run([tool, option, file], check=True, capture_output=True, text=True, env=path).stdout


def _in_loops(code: str, instruction: str) -> int:
    """How often ``instruction`` is between a backward branch and its target."""
    lines = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", code)
    at = [(int(address, 16), text) for address, text in lines]
    loops = []
    for address, text in at:
        target = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", text)
        if target and int(target[1], 16) < address:  # the branch to itself after the end is none
            loops.append((int(target[1], 16), address))
    return sum(any(a <= address <= b for a, b in loops) for address, text in at if instruction in text)


def _widest(ptx: str) -> int:
    widths = [
        int(v or 1) * int(bits) for v, bits in re.findall(r"ld\.global\S*?(?:\.v(\d))?\.[busf](\d+)", ptx)
    ]
    return max(widths, default=0)


def lines(
    forms: list[tuple[str | None, str | None]], architectures: list[int]
) -> Iterator[tuple[str, int, Compiled]]:
    seen = set()
    for form, kv_cache in forms:
        for key, launch in kernels(form, kv_cache).items():
            if key in seen:
                continue
            seen.add(key)
            for architecture in architectures:
                yield _name(launch), architecture, compiled(launch, architecture)


def _name(launch: Launch) -> str:
    """The kernel, the shape of its weight, what comes before and after it, and the number of blocks."""
    arguments = launch.arguments or {}
    about = [str(arguments[name]) for name in ("NORM", "END") if arguments.get(name)]
    if "values" in arguments and isinstance(arguments["values"], tuple):
        weights = arguments["values"]
        shape = "x".join(map(str, weights[0].shape))
        about.append(
            f"{len(weights)} of {shape} {TYPES[weights[0].dtype]}"
            if len(weights) > 1
            else f"{shape} {TYPES[weights[0].dtype]}"
        )
    if arguments.get("INT8"):
        about.append("int8")
    if "card" in arguments:
        about.append(f"of {arguments['card']}")
    blocks = 1
    for size in launch.grid:
        blocks *= size
    return f"{launch.name.strip('_')} {', '.join(about)} ({blocks} blocks)"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--arch", type=int, choices=ARCHITECTURES, action="append", help="default: all of them"
    )
    parser.add_argument(
        "--form", choices=("bf16", "int8", "int4", *RELEASED), help="of the weights; default: all of them"
    )
    args = parser.parse_args()
    every = FORMS + [(form, None) for form in RELEASED]
    chosen = [f for f in every if args.form is None or (f[0] or "bf16") == args.form]
    print(f"{'kernel':72}{'sm':>4}{'regs':>6}{'spills':>7}{'shared':>7}{'bars':>5}{'bits':>5}{'waves':>7}")
    spilled = 0
    for name, architecture, found in lines(chosen, args.arch or list(ARCHITECTURES)):
        blocks = int(re.search(r"\((\d+) blocks", name)[1])  # type: ignore[index]
        waves = blocks / (found.blocks * CARDS[architecture][1])
        print(f"{name:72}{architecture:4}{found.registers:6}{found.spills:7}{found.shared:7}", end="")
        print(f"{found.barriers:5}{found.widest:5}{waves:7.2f}", flush=True)
        spilled += found.spills > 0
    print(f"{spilled} of them spill registers" if spilled else "none spills registers")
    return int(spilled > 0)


if __name__ == "__main__":
    raise SystemExit(main())
