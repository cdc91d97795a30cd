"""Compile Triton kernels for a GPU that is not there, exactly as their launchers would start them.

A launcher is called on small CPU tensors with its kernels replaced by recorders; what was recorded is compiled for a
compute capability and read back: shared memory, registers, stack. Needs a process without TRITON_INTERPRET.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

SHARED_LIMIT = {80: 166_912, 86: 101_376, 90: 232_448, 100: 232_448}  # bytes one block may use
_POINTERS = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.uint8: "*u8",
    torch.bool: "*i1",
    torch.int16: "*i16",
    torch.int32: "*i32",
    torch.int64: "*i64",
}


class Launch(NamedTuple):
    """One recorded kernel start."""

    kernel: JITFunction
    grid: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def start(self) -> None:
        """Start the kernel on the GPU that holds its arguments."""
        self.kernel[self.grid](*self.arguments, **self.options)


class Compiled(NamedTuple):
    """What the compiler says about one launch."""

    kernel: str
    arch: int
    shared: int  # bytes of shared memory
    registers: int  # per thread
    stack: int  # bytes per thread: above 0 registers spill
    wgmma: bool  # uses Hopper's asynchronous matrix instructions

    @property
    def fits(self) -> bool:
        return self.shared <= SHARED_LIMIT[self.arch] and self.stack == 0


class _Recorder:
    def __init__(self, kernel: JITFunction, launches: list[Launch]):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid: object) -> Callable[..., None]:
        return lambda *arguments, **options: self.launches.append(Launch(self.kernel, grid, arguments, options))


@contextmanager
def recorded(*modules: ModuleType) -> Iterator[list[Launch]]:
    """Inside, kernels of these modules whose names end in `_kernel` are recorded instead of started."""
    launches: list[Launch] = []
    kernels = [
        (module, name, kernel)
        for module in modules
        for name, kernel in vars(module).items()
        if name.endswith("_kernel") and isinstance(kernel, JITFunction)
    ]
    for module, name, kernel in kernels:
        setattr(module, name, _Recorder(kernel, launches))
    try:
        yield launches
    finally:
        for module, name, kernel in kernels:
            setattr(module, name, kernel)


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers and stack bytes per thread."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    if found is None:
        raise RuntimeError(f"cuobjdump gave no resource line: {text[-200:]}")
    return int(found[1]), int(found[2])


def compile_launch(launch: Launch, arch: int) -> Compiled:
    """Compile one recorded launch for compute capability `arch` (80, 90, ...)."""
    kernel = launch.kernel
    names = kernel.arg_names
    given = dict(zip(names, launch.arguments, strict=False))
    compiler = {name: value for name, value in launch.options.items() if name not in names}
    given |= {name: value for name, value in launch.options.items() if name in names}
    constants = {p.name for p in kernel.params if p.is_constexpr}
    signature, fixed, hints = {}, {}, {}
    for place, name in enumerate(names):
        value = given[name]
        if isinstance(value, torch.Tensor):
            signature[name] = _POINTERS[value.dtype]
            hints[(place,)] = [["tt.divisibility", 16]]
        elif name in constants or (isinstance(value, int) and value == 1):
            signature[name], fixed[(place,)] = "constexpr", value
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32" if abs(value) < 2**31 else "i64"
            if value % 16 == 0:
                hints[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, fixed, hints)
    binary = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=compiler)
    registers, stack = _resources(binary.asm["cubin"])
    wgmma = "wgmma" in binary.asm["ptx"]
    return Compiled(kernel.__name__, arch, binary.metadata.shared, registers, stack, wgmma)
